"""What is held against each other over bad links, and one measurement of each."""

import contextlib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import measure
import relays
import tunnels
from links import Hosts
from scene import net, product
from scene.proc import Failed, wait_until

STREAM = Path(__file__).resolve().parent / "stream.py"
PORT = 5400
RIVAL = "198.51.100.9"  # the gateway's machine, for what is to go beside the tunnel
INNER = 1400  # bytes of an inner packet, wherever a figure is about packets
TCP_HEADERS = 52  # IPv4, TCP, timestamps
SHARE = 0.959  # of the link's bits: an inner packet of 1,400 bytes in one of 1,460
LEAST = 5  # seconds of a transfer, after SETTLE: rate control and CUBIC need some
SETTLE = 4


def limit(mbit, loss):
    """Inner-IP Mbit/s that nothing can exceed on links of `mbit` altogether that lose this share of packets."""
    return mbit * (1 - loss) * SHARE


class Bauta(tunnels.Bauta):
    """A tunnel; `words` are added to the client's configuration."""

    def __init__(self, folder, words="", name="bauta"):
        super().__init__(folder)
        self.words, self.name = words, name

    def up(self, client, gateway, paths=1):
        folder = Path(tempfile.mkdtemp(dir=self.home))
        self.gateway = product.Gateway(gateway, folder / "gateway", mtu=tunnels.MTU)
        self.client = product.Client(client, folder / "client", self.gateway)
        devices = ", ".join(f'"wan{n or ""}"' for n in range(paths))
        with open(self.client.config, "a") as config:
            config.write((f"paths = [{devices}]\n" if paths > 1 else "") + self.words)
        self.client.start()
        self.daemons = [self.client.daemon, self.gateway.daemon]
        if paths > 1:
            wait_until(lambda: self.active() == paths, f"the tunnel to use {paths} paths", 20, self.daemons)

    def status(self):
        return json.loads(self.client.host.run([self.client.program, "--config", self.client.config, "status", "--json"]))

    def active(self):
        return sum(path["state"] == "active" for path in self.status()["paths"])

    def target(self):
        return net.INTERNET4, measure.IPERF_PORT


def plain(folder):
    """The same programs with Context ID 0 alone: no rate control, no repair."""
    return Bauta(folder, "resilience = false\n", "plain CONNECT-IP")


class Relay(relays.Hysteria):
    """Hysteria relays streams, so that no inner packet is ever lost; CUBIC only runs to the local port. With `rate`, in Mbit/s, its Brutal
    control sends at that rate whatever is lost, else its BBR does what it finds."""

    def __init__(self, folder, rate=0):
        super().__init__(folder, rate)
        self.name = f"hysteria, Brutal {rate} Mbit/s" if rate else "hysteria"

    def up(self, client, gateway, paths=1):
        super().up(client, gateway, f"{net.INTERNET4}:{measure.IPERF_PORT}")

    def target(self):
        return "127.0.0.1", relays.LOCAL_PORT


class Wireguard(tunnels.Wireguard):
    """wireguard-go; `control` is what the flows inside go by."""

    def __init__(self, control="cubic"):
        super().__init__("wireguard-go", ["-f"])
        self.control = control
        self.name += "" if control == "cubic" else f", inner {control.upper()}"

    def target(self):
        return net.INTERNET4, measure.IPERF_PORT


class Bare:
    """No tunnel: what the same flows do to each other by themselves."""

    name, daemons = "no tunnel", []

    def __init__(self, internet):
        self.internet = internet

    def missing(self):
        return None

    def up(self, client, gateway, paths=1):
        gateway.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        client.ip("route", "replace", "203.0.113.0/24", "via", net.GATEWAY4, "dev", "wan", "onlink")
        self.internet.ip("route", "replace", "198.51.100.0/24", "via", "203.0.113.1")

    def down(self):
        self.internet.run(["ip", "route", "del", "198.51.100.0/24"], check=False)

    def target(self):
        return net.INTERNET4, measure.IPERF_PORT


@contextlib.contextmanager
def rows(course, name, known):
    """The rows that were asked for, of those a bench knows (all of them, if none was), and hosts for them."""
    wanted = course.rows or list(known)
    unknown = set(wanted) - set(known)
    if unknown:
        raise Failed(f"{name} has no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    hosts = Hosts(course)
    try:
        yield wanted, hosts
    finally:
        hosts.clear()


def peers(folder):
    return [] if tunnels.ALONE else [plain(folder), Wireguard(), Relay(folder)]


def tcp(hosts, target, flows, seconds, down=True, far=None, control="cubic"):
    """Inner-IP Mbit/s of TCP flows from or to `far` (the Internet): what arrived of their payload, and the headers it needs."""
    address, port = target
    seconds, far = max(seconds, LEAST), far or hosts.internet
    # A server for each transfer: one whose control connection was lost in the transfer before stays busy.
    server = far.start("iperf3", ["iperf3", "-s", "-1", "-p", measure.IPERF_PORT])
    try:
        wait_until(lambda: f":{measure.IPERF_PORT}" in far.run(["ss", "-Hltn"]), "iperf3 to listen", daemons=[server])
        words = ["iperf3", "-c", address, "-p", port, "-C", control, "-P", flows, "-t", seconds, "-O", SETTLE, "-J", *(["-R"] if down else [])]
        report = json.loads(hosts.client.run(words, timeout=seconds + SETTLE + 40, check=False) or "{}")
    finally:
        server.stop()
    if "error" in report or "end" not in report:
        raise Failed(f"iperf3: {report.get('error', 'no report')}")
    return report["end"]["sum_received"]["bits_per_second"] / 1e6 * INNER / (INNER - TCP_HEADERS)


def rivals(folder):
    """All that can be had, for a table of its own."""
    return [] if tunnels.ALONE else [plain(folder), Wireguard(), Wireguard("bbr"), Relay(folder), Relay(folder, 95)]


def beside(hosts, contender, seconds):
    """Mbit/s of a tunnelled flow down and of a rival that shares the link with it, outside the tunnel. Both are CUBIC's."""
    hosts.gateway.ip("address", "add", RIVAL, "dev", "link0")
    hosts.client.ip("route", "replace", RIVAL, "dev", "wan")
    flow = lambda *words: tcp(hosts, words[0], 1, seconds, far=words[1])
    with ThreadPoolExecutor(1) as other:
        rival = other.submit(flow, (RIVAL, measure.IPERF_PORT), hosts.gateway)
        own = flow(contender.target(), hosts.internet)
        return own, rival.result()


@contextlib.contextmanager
def background(hosts, seconds):
    """A CUBIC flow up, beside something else."""
    server = hosts.internet.start("iperf3", ["iperf3", "-s", "-1"])
    wait_until(lambda: f":{measure.IPERF_PORT}" in hosts.internet.run(["ss", "-Hltn"]), "iperf3 to listen", daemons=[server])
    bulk = hosts.client.start("bulk", ["iperf3", "-c", net.INTERNET4, "-C", "cubic", "-t", seconds])
    try:
        yield
        if not bulk.alive():
            raise Failed(f"the flow beside it ended: {bulk.last_words(1)}")
    finally:
        bulk.stop()
        server.stop()


class Stream:
    """A constant stream from the client to the Internet, of inner packets of `size` bytes."""

    def __init__(self, hosts, size, rate, seconds):
        self.hosts, self.words, self.seconds = hosts, (size, rate, seconds), seconds
        command = hosts.internet.inside([sys.executable, STREAM, "receive", PORT, seconds + 10, SETTLE])
        self.receiver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wait_until(lambda: f":{PORT} " in hosts.internet.run(["ss", "-Hlun"]), "the stream's receiver")
        command = hosts.client.inside([sys.executable, STREAM, "send", net.INTERNET4, PORT, size, rate, seconds])
        self.sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self):
        """What became of it: the receiver's report, and how many were sent."""
        try:
            sent, _ = self.sender.communicate(timeout=self.seconds + 10)
            got, _ = self.receiver.communicate(timeout=self.seconds + 15)
        except subprocess.TimeoutExpired:
            raise Failed("a stream did not end in time") from None
        finally:
            for process in (self.sender, self.receiver):
                process.kill()
        report = json.loads(got or "{}") | json.loads(sent or "{}")
        if not report.get("received") or "sent" not in report:
            raise Failed("nothing of a stream arrived")
        return report | {"lost": report["sent"] - report["received"], "mbit": report["bytes"] * 8 / 1e6 / max(report["span_s"], 1e-9)}
