"""What the quickstart looks at. Each check returns (how it was done, what was seen) or raises Failed."""

import hashlib
import re
import socket
import struct
import sys
import time

from . import internet, net
from .proc import Failed, wait_until

FILE_BYTES = 256 << 20
PINGS = 20
DATAGRAMS, DATAGRAM_BYTES, WINDOW = 20_000, 1200, 32
FORWARD_PORT = 7007


def rate(size, seconds):
    bits = size * 8 / seconds
    return f"{bits / 1e9:.2f} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.0f} Mbit/s"


def site(client, gateway, version):
    """The first page of the website, with the certificate checked."""
    url = f"https://{gateway.domain}:{gateway.port}/"
    trust = ["--cacert", gateway.folder / "ca.pem", "--connect-to", f"::{net.GATEWAY4}:"]
    wanted = {"1.1": "--http1.1", "2": "--http2"}[version]
    out = client.run(["curl", "-sS", "-m", 10, wanted, *trust, "-o", client.logs / f"page-{version}", "-w", "%{http_version} %{http_code} %{size_download} %{time_total}", url])
    seen, status, size, seconds = out.split()
    if (seen, status) != (version, "200"):
        raise Failed(f"HTTP/{seen} and status {status}")
    return "curl", f"200, {int(size):,} bytes in {float(seconds) * 1e3:.0f} ms, certificate checked"


def site_h3(client, gateway):
    """The same page over HTTP/3 by ngtcp2's client, which is nobody's relative; it checks no certificates."""
    folder = client.logs / "h3"
    folder.mkdir(exist_ok=True)
    url = f"https://{gateway.domain}:{gateway.port}/"
    start = time.monotonic()
    client.run(["gtlsclient", "-q", "--exit-on-all-streams-close", "--timeout=5s", f"--download={folder}", gateway.domain, gateway.port, url], timeout=15)
    seconds = time.monotonic() - start
    page = folder / "index.html"
    if not page.exists() or not page.stat().st_size:
        raise Failed("no page came")
    other = client.logs / "page-2"
    if not other.exists() or page.read_bytes() != other.read_bytes():
        raise Failed(f"{page.stat().st_size:,} bytes came, another page than over HTTP/2")
    return "gtlsclient", f"{page.stat().st_size:,} bytes in {seconds * 1e3:.0f} ms, the same page"


def outside(client):
    """Before the tunnel: the Internet has to be out of reach, or the checks below would prove nothing."""
    if "bytes from" in client.run(["ping", "-c", 1, "-W", 1, net.INTERNET4], check=False):
        raise Failed("the Internet answers without a tunnel")
    return "ping", "the Internet is out of reach, as it should be"


def ping(client, address):
    out = client.run(["ping", "-n", "-i", "0.02", "-c", PINGS, "-W", 2, address], check=False)
    lost = re.search(r"([\d.]+)% packet loss", out)
    times = re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", out)
    if not lost or float(lost[1]) or not times:
        raise Failed(f"{lost[1] if lost else 100} % of {PINGS} pings to {address} were lost")
    return address, f"{PINGS} of {PINGS}, {times[2]} ms on average, {times[3]} ms at most"


def download(client, address):
    """A file of noise, compared by its hash."""
    base = f"http://[{address}]" if ":" in address else f"http://{address}"
    file = client.logs / "download"
    out = client.run(["curl", "-sS", "-m", 120, "-o", file, "-w", "%{http_code} %{size_download} %{time_total}", f"{base}/file"], timeout=150)
    status, size, seconds = out.split()
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    file.unlink()
    if status != "200" or digest != client.run(["curl", "-sS", "-m", 10, f"{base}/sha256"]):
        raise Failed(f"status {status}, {size} bytes, and not the file that was sent")
    return "curl", f"{int(size) >> 20} MiB in {float(seconds):.1f} s, {rate(int(size), float(seconds))}, every byte right"


def echo(client, tunnel):
    """Datagrams to an echo server and back, through a CONNECT-UDP of the client's."""
    target = f"{net.INTERNET4}:{internet.ECHO_PORT}"
    forward = tunnel.forward("udp", f"127.0.0.1:{FORWARD_PORT}", target)
    try:
        wait_until(lambda: f":{FORWARD_PORT} " in client.run(["ss", "-Hlun"]), "the forward to listen", daemons=[forward])
        out = client.run([sys.executable, "-m", "scene.checks", FORWARD_PORT], timeout=60)
    finally:
        forward.stop()
    back, seconds = out.split()
    if int(back) < DATAGRAMS * 0.99:
        raise Failed(f"{back} of {DATAGRAMS} datagrams came back")
    return "bauta forward udp", f"{int(back):,} of {DATAGRAMS:,} echoed, {rate(int(back) * DATAGRAM_BYTES, float(seconds))} each way"


def count_echoes(port):
    """Keeps a window of numbered datagrams under way; what does not come back within half a second is lost."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(0.5)
    start, back, filling = time.monotonic(), set(), bytes(DATAGRAM_BYTES - 4)
    for first in range(0, DATAGRAMS, WINDOW):
        window = range(first, min(first + WINDOW, DATAGRAMS))
        for number in window:
            sock.send(struct.pack("!I", number) + filling)
        try:
            while not back.issuperset(window):
                back.add(struct.unpack_from("!I", sock.recv(2048))[0])
        except TimeoutError:
            if not back:
                break
    print(len(back), time.monotonic() - start)


if __name__ == "__main__":
    count_echoes(int(sys.argv[1]))
