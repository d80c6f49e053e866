"""The website: requests of 1 KiB and bytes of a 100 MiB file a CPU second of the server, over h1, h2 and h3, beside Caddy.

h1 and h2 are asked by h2load. It does not speak h3, which ngtcp2's gtlsclient asks: several at once, each with one connection and a
fixed number of requests; that they were all answered is read off the interface's counters.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import measure
import sites
import tunnels
from scene import net, product
from scene.proc import Failed

PACKAGES = ["h2load:nghttp2-client", "gtlsclient:ngtcp2-client"]
CONNECTIONS = 16
H3_CLIENTS, H3_REQUESTS = 4, 2500
SMALL, LARGE = 1024, 100 << 20
URL = f"https://{product.DOMAIN}:{product.PORT}"


def run(course):
    client, gateway, _ = course.stage()
    www = course.folder / "www"
    www.mkdir()
    (www / "small.bin").write_bytes(os.urandom(SMALL))
    (www / "large.bin").write_bytes(os.urandom(LARGE))
    with open("/etc/hosts", "a") as hosts:  # the cage's own
        hosts.write(f"{net.GATEWAY4} {product.DOMAIN}\n")

    def one(contender):
        contender.serve(gateway, course.folder, www)
        _fetch(client)
        for version, load in (("h1", _h2load), ("h2", _h2load), ("h3", _gtlsclient)):
            goal = "ratio >= 1.5" if version == "h3" else "ratio >= 1"
            action = lambda: load(client, version, "small.bin", course.seconds)
            cost, took, requests = measure.spent([contender.daemon], action)
            course.add(f"requests of 1 KiB a CPU second, {version}", contender.name, requests / cost, "1/s", "higher", {"caddy": goal})
            course.add(f"requests of 1 KiB a second, {version}", contender.name, requests / took, "1/s", "higher")
            cost, took, files = measure.spent([contender.daemon], lambda: load(client, version, "large.bin", 1))
            course.add(f"100 MiB files: bytes a CPU second, {version}", contender.name, files * LARGE / cost / 1e6, "MB/s", "higher", {"caddy": goal})

    course.alternate([sites.Bauta(), *([] if tunnels.ALONE else [sites.Caddy()])], one)


def _fetch(client):
    file = client.logs / "page"
    command = ["curl", "-sSk", "-m", 5, "--connect-to", f"::{net.GATEWAY4}:", "-o", file, "-w", "%{http_code} %{size_download}", f"{URL}/small.bin"]
    said = client.run(command)
    if said != f"200 {SMALL}":
        raise Failed(f"the small file answers: {said}")


def _h2load(client, version, path, seconds):
    """Requests answered."""
    protocol = ["--h1"] if version == "h1" else ["-m", 10]
    amount = ["-c", CONNECTIONS, "-D", seconds] if path == "small.bin" else ["-c", 1, "-n", 3]
    out = client.run(["h2load", "-t", 1, *protocol, *amount, f"{URL}/{path}"], timeout=seconds + 60)
    spoken = re.search(r"Application protocol: (.*)", out)
    if not spoken or ("h2" in spoken[1]) != (version == "h2"):
        raise Failed(f"h2load did not speak {version}")
    done = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    if not done:
        raise Failed("h2load: no request was answered with 2xx")
    return done


def _gtlsclient(client, version, path, seconds):
    """Requests answered."""
    clients, each, size = (H3_CLIENTS, H3_REQUESTS, SMALL) if path == "small.bin" else (1, 1, LARGE)
    command = ["gtlsclient", "-q", "--exit-on-all-streams-close", "--timeout=20s", "-n", each, product.DOMAIN, product.PORT, f"{URL}/{path}"]
    before = client.counter("eth0", "rx_bytes")
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda _: client.run(command, timeout=90, check=False), range(clients)))
    received = client.counter("eth0", "rx_bytes") - before
    if received < clients * each * size:
        raise Failed(f"h3: {received:,} bytes came for {clients * each:,} requests of {size:,} bytes")
    return clients * each
