"""Requests a second of the website's first page over h1, h2 and h3, and what a request costs the server. Caddy serves the same bytes.

h1 by wrk, h2 by h2load. Neither speaks h3, so that h3 is asked by several of ngtcp2's gtlsclient, each with one connection and a fixed
number of requests; that they were all answered is read off the interface's counters.
"""

import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tunnels
from report import Samples
from scene import net, product
from scene.proc import Failed, wait_until

CONNECTIONS = 16
H3_CLIENTS, H3_REQUESTS = 4, 5000


class Bauta:
    name = "bauta"

    def missing(self):
        return product.missing()

    def serve(self, host, folder, page):
        gateway = product.Gateway(host, tempfile.mkdtemp(dir=folder))
        self.daemon = gateway.daemon


class Caddy:
    name, program = "caddy", tunnels.PEERS / "caddy"

    def missing(self):
        return None if self.program.exists() else "tests/bench/peers caddy builds it"

    def serve(self, host, folder, page):
        product.certificate(folder / "caddy")
        (folder / "www").mkdir(exist_ok=True)
        (folder / "www/index.html").write_bytes(page)
        config = folder / "Caddyfile"
        config.write_text(CADDYFILE.format(domain=product.DOMAIN, port=product.PORT, folder=folder))
        environment = ["env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
        command = [*environment, self.program, "run", "--config", config, "--adapter", "caddyfile"]
        self.daemon = host.start("caddy", command)
        wait_until(lambda: f":{product.PORT} " in host.run(["ss", "-Hltn"]), "Caddy to listen", daemons=[self.daemon])


CADDYFILE = """
{{
  admin off
  auto_https off
}}
https://{domain}:{port} {{
  tls {folder}/caddy/cert.pem {folder}/caddy/key.pem
  root * {folder}/www
  file_server
}}
"""
URL = f"https://{product.DOMAIN}:{product.PORT}/"


def run(folder, options, say):
    client, gateway, _ = net.three_hosts("bauta-bench-site", folder)
    with open("/etc/hosts", "a") as hosts:  # the cage's own
        hosts.write(f"{net.GATEWAY4} {product.DOMAIN}\n")
    samples, notes, contenders, page = Samples(), [], [], b"<!doctype html><title>Bauta</title>".ljust(8192)
    for contender in (Bauta(), Caddy()):
        missing = contender.missing()
        if missing:
            notes.append(f"site: {contender.name} is left out: {missing}")
        else:
            contenders.append(contender)
    for number in range(options.rounds):
        for contender in list(contenders):
            say(f"site: round {number + 1} of {options.rounds}, {contender.name}")
            try:
                contender.serve(gateway, folder, page)
                fetched = _fetch(client)
                page = fetched if contender.name == "bauta" else page
                for version, load in (("h1", _wrk), ("h2", _h2load), ("h3", _gtlsclient)):
                    before = contender.daemon.cpu_seconds()
                    rate, requests = load(client, options.seconds, len(page))
                    cost = (contender.daemon.cpu_seconds() - before) / requests
                    samples.add("site", f"requests, {version}", contender.name, rate, "1/s", "higher", ">= 1")
                    samples.add("site", f"server's CPU a request, {version}", contender.name, cost * 1e6, "µs", "lower", "<= 1")
            except Failed as failure:
                notes.append(f"site: {contender.name} is out from round {number + 1}: {failure}")
                contenders.remove(contender)
            finally:
                if hasattr(contender, "daemon"):
                    contender.daemon.stop()
    if page:
        notes.append(f"site: a page of {len(page):,} bytes, uncompressed")
    return samples, notes


def _fetch(client):
    file = client.logs / "page"
    command = ["curl", "-sSk", "-m", 5, "--connect-to", f"::{net.GATEWAY4}:", "-o", file, "-w", "%{http_code}", URL]
    status = client.run(command)
    if status != "200":
        raise Failed(f"the first page answers {status}")
    return Path(file).read_bytes()


def _wrk(client, seconds, size):
    out = client.run(["wrk", "-t", 2, "-c", CONNECTIONS, "-d", f"{seconds}s", URL], timeout=seconds + 20)
    if "Non-2xx" in out or "Socket errors" in out:
        raise Failed(f"wrk: {out.splitlines()[-3:]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), int(re.search(r"(\d+) requests in", out)[1])


def _h2load(client, seconds, size):
    out = client.run(["h2load", "-t", 2, "-c", CONNECTIONS, "-m", 10, "-D", seconds, URL], timeout=seconds + 20)
    if "h2" not in re.search(r"Application protocol: (.*)", out)[1]:
        raise Failed("h2load did not get h2")
    done = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    if not done:
        raise Failed("h2load: no request was answered with 2xx")
    return done / seconds, done


def _gtlsclient(client, seconds, size):
    command = ["gtlsclient", "-q", "--exit-on-all-streams-close", "--timeout=10s", "-n", H3_REQUESTS, product.DOMAIN, product.PORT, URL]
    before, start = _received(client), time.monotonic()
    with ThreadPoolExecutor(H3_CLIENTS) as pool:
        list(pool.map(lambda _: client.run(command, timeout=90, check=False), range(H3_CLIENTS)))
    took, received, wanted = time.monotonic() - start, _received(client) - before, H3_CLIENTS * H3_REQUESTS
    if received < wanted * size:
        raise Failed(f"h3: {received:,} bytes came for {wanted:,} requests of {size:,} bytes")
    return wanted / took, wanted


def _received(client):
    return client.counter("eth0", "rx_bytes")
