"""How well a small model tells tunnels from Chromium on the site by the shape of the first 5 seconds: sizes, times, directions.

Captures at the client's interface, segmentation offload off, so that sizes are those of the wire. Browsing: Chromium with a page of the
site in a window, another every 0.5 to 2.5 s, over HTTP/3. Tunnels, by the client's setting `shape`: idle; the same browsing of another site
inside; a download. Each capture is a run of its own, and no run is judged by a model that saw it. AUC 0.5 is guessing, 1 is certainty;
once for everything in the window, once for the first 20 packets' sizes and directions alone. What a shape costs is told by the bytes that
went up, for a run and for each that came down. `--seconds 30` judges the first 30 seconds as well; `--rows idle,browsing` some classes.
"""

import base64
import hashlib
import random
import statistics
import subprocess
import tempfile
import time
from socket import inet_aton

import classify
import measure
from scene import net, product
from scene.proc import Failed, wait_until

PACKAGES = ["tcpdump:tcpdump", "chromium:chromium", "iperf3:iperf3", "ethtool:ethtool"]
SITE, OTHER, PORT = "site.test", "other.test", 443
WINDOWS = (5, 30)  # seconds; the second if so many are asked for
RUNS = 4  # a class and round
SHAPES = ("none", "start", "web")
GOAL = "<= 0.6"
VISITS = """<script>
let n = 0, shown = null;
function next() {{
  const page = "https://{site}/?visit=" + {seed} + n++;
  if (shown) shown.location = page; else shown = open(page);
  setTimeout(next, 500 + 2000 * Math.random());
}}
next();
</script>"""


def run(course):
    judge(course, SHAPES, course.stage())


def judge(course, shapes, stage):
    """Captures every class by turns, and adds what the model makes of them."""
    windows = [window for window in WINDOWS if window <= max(course.seconds, WINDOWS[0])]
    client, gateway, internet = stage
    for host, device in ((client, "eth0"), (gateway, "lan")):
        host.run(["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"])
    iperf = measure.Iperf(internet)
    server = product.Gateway(gateway, course.folder / "judged", domain=SITE, port=PORT)
    other = product.Gateway(internet, course.folder / "other", domain=OTHER, port=PORT)

    def within(shape, action):
        tunnel = product.Client(client, course.folder / "client", server)
        with tunnel.config.open("a") as config:
            config.write(f'shape = "{shape}"\n')
        tunnel.start()
        try:
            action()
        finally:
            tunnel.stop()

    inside = {
        "idle": lambda: time.sleep(windows[-1]),
        "browsing": lambda: browse(client, other, net.INTERNET4, windows[-1]),
        "bulk": lambda: iperf.run(client, True, windows[-1] - 1),
    }
    classes = {"Chromium": lambda: browse(client, server, net.GATEWAY4, windows[-1])}
    for what, action in inside.items():
        for shape in shapes if what in (course.rows or inside) else ():
            classes[f"{what}, {shape}"] = lambda shape=shape, action=action: within(shape, action)
    seen = {name: [] for name in classes}
    try:
        for number in range(RUNS * course.rounds):
            for name, action in classes.items():
                course.say(f"shape: run {number + 1} of {RUNS * course.rounds}, {name}")
                seen[name].append(capture(course, client, action, windows[-1]))
    finally:
        for daemon in (server, other, iperf):
            daemon.stop()
    browsing = seen.pop("Chromium")
    looks = {f"{window} s": lambda flow, window=window: classify.features(within_seconds(flow, window)) for window in windows}
    looks["first 20 packets"] = classify.head
    for what, features in looks.items():
        real = [features(flow) for flow in browsing]
        for name, flows in seen.items():
            value = classify.auc(real, [features(flow) for flow in flows])
            course.add(f"AUC, tunnel, {name}: {what}", "bauta", value, "", "lower", GOAL)
        # Fewer leave folds without a run of either half, and the figure would mean nothing.
        if len(real) >= 2 * classify.FOLDS:
            course.note(f"Chromium against itself, {what}: AUC {classify.auc(real[::2], real[1::2]):.2f}")
    for name, flows in {"Chromium": browsing, **seen}.items():
        flows = [within_seconds(flow, windows[0]) for flow in flows]
        up, down = (statistics.median(sum(size for _, size, way in flow if way is up) for flow in flows) for up in (True, False))
        name = name if name == "Chromium" else f"tunnel, {name}"
        course.add(f"bytes up, {name}", "bauta", up / 1e3, "kB", "lower")
        course.add(f"bytes up for 1,000 down, {name}", "bauta", 1e3 * up / down, "B", "lower")
    course.note(f"{len(browsing)} runs a class, {windows[-1]} s each; bytes of the first {windows[0]} s")


def within_seconds(flow, window):
    return [packet for packet in flow if packet[0] <= window]


def capture(course, client, action, window):
    file = course.folder / "flow.pcap"
    file.unlink(missing_ok=True)
    words = ["tcpdump", "-i", "eth0", "-s", "96", "-B", "16384", "-U", "-w", file, "-Z", "root", "udp", "port", PORT]
    daemon = client.start(f"tcpdump-{time.monotonic_ns()}", words)
    try:
        wait_until(lambda: "listening on" in daemon.last_words(), "tcpdump to listen", 20, [daemon])
        action()
    finally:
        daemon.stop()
    packets = classify.flow(file.read_bytes(), inet_aton(net.GATEWAY4), PORT, window)
    if len(packets) < 10:
        raise Failed(f"{len(packets)} packets to and from the gateway")
    return packets


def browse(client, server, address, seconds):
    pem = subprocess.run(["openssl", "x509", "-in", server.folder / "cert.pem", "-noout", "-pubkey"], capture_output=True, check=True).stdout
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=pem, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        page = f"{home}/page.html"
        with open(page, "w") as out:
            out.write(VISITS.format(site=server.domain, seed=random.randrange(1 << 30)))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update", "--disable-background-networking", "--disable-popup-blocking"]
        quic = ["--enable-quic", f"--origin-to-force-quic-on={server.domain}:{PORT}", f"--host-resolver-rules=MAP {server.domain} {address}"]
        trust = f"--ignore-certificate-errors-spki-list={base64.b64encode(hashlib.sha256(key).digest()).decode()}"
        browser = client.start("chromium", ["chromium", *flags, *quic, trust, f"--user-data-dir={home}/profile", f"file://{page}"])
        time.sleep(seconds + 2.5)  # of which it takes about two to begin
        browser.stop()
