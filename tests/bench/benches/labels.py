"""What nDPI calls a tunnel, beside what it calls Chromium's visit to the same site: protocol, category, name, ALPN, risks.

One capture each at the client's interface, from the first packet on: Chromium loads the page over HTTP/3; `bauta up` carries pings and a
download. Each item that differs is counted. What nDPI finds in neither (4.2 finds no name in a hello that is shuffled over two datagrams,
as Chromium's is) is equal and says little: the notes show every item.
"""

import base64
import hashlib
import re
import subprocess
import tempfile
import time

import measure
from scene import net, product
from scene.proc import Failed, wait_until

PACKAGES = ["ndpiReader:libndpi-bin", "tcpdump:tcpdump", "chromium:chromium", "iperf3:iperf3"]
SITE, PORT = "site.test", 443


def run(course):
    client, gateway, internet = course.stage()
    iperf = measure.Iperf(internet)
    server = product.Gateway(gateway, course.folder / "gateway", domain=SITE, port=PORT)
    try:
        visit = capture(course, client, "chromium", lambda: browse(client, server))
        tunnel = capture(course, client, "tunnel", lambda: use(course, client, server, iperf))
    finally:
        server.stop()
        iperf.stop()
    for item in ("protocol", "category", "name", "alpn", "risks"):
        seen = visit.get(item), tunnel.get(item)
        course.note(f"{item}: Chromium {seen[0]!r}, tunnel {seen[1]!r}")
    differing = [item for item in visit if visit[item] != tunnel[item]]
    course.add("what nDPI tells a tunnel by", "bauta", len(differing), "items", "lower", "<= 0")


def capture(course, client, name, action):
    """What nDPI says of the one flow to the gateway while `action` runs."""
    file = course.folder / f"{name}.pcap"
    words = ["tcpdump", "-i", "eth0", "-U", "-w", file, "-Z", "root", "udp", "port", PORT]
    daemon = client.start(f"tcpdump-{name}", words)
    try:
        wait_until(lambda: "listening on" in daemon.last_words(), "tcpdump to listen", 20, [daemon])
        action()
        time.sleep(1)
    finally:
        daemon.stop()
    said = subprocess.run(["ndpiReader", "-i", file, "-v", "2"], capture_output=True, text=True, timeout=60).stdout
    flows = [line for line in said.splitlines() if re.search(rf"UDP .*:{PORT}\b.*\[proto:", line)]
    if not flows:
        raise Failed(f"{name}: no flow to the gateway in what ndpiReader says of {file.stat().st_size} bytes:\n{said[-1500:]}")
    items = {
        "protocol": r"\[proto: ([^\]]*)\]",
        "category": r"\[cat: ([^\]]*)\]",
        "name": r"\[Hostname/SNI: ([^\]]*)\]",
        "alpn": r"ALPNs: ([^\]]*)\]",
        "risks": r"\[Risk: ([^\]]*)\]",
    }
    return {item: sorted({found for line in flows for found in re.findall(how, line)}) for item, how in items.items()}


def browse(client, server):
    der = ["openssl", "x509", "-in", server.folder / "cert.pem", "-noout", "-pubkey"]
    pem = subprocess.run(der, capture_output=True, check=True).stdout
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=pem, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as profile:
        page = client.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update"),
                *("--disable-background-networking", "--enable-quic", f"--origin-to-force-quic-on={SITE}:{PORT}"),
                f"--host-resolver-rules=MAP {SITE} {net.GATEWAY4}",
                f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(key).digest()).decode()}",
                *(f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom", f"https://{SITE}:{PORT}/"),
            ],
            timeout=90,
        )
    if "</html>" not in page:
        raise Failed(f"Chromium did not load the page: {page[:200]!r}")


def use(course, client, server, iperf):
    tunnel = product.Client(client, course.folder / "client", server).start()
    try:
        measure.round_trips(client, 20, 0.05)
        iperf.run(client, True, 1)
    finally:
        tunnel.stop()
