"""Hosts with emulated links between client and gateway (`bauta-link`, tests/lab), one for each path."""

import json
import socket
import tempfile
from pathlib import Path

import loads
from scene import net
from scene.proc import Daemon, wait_until

OWN = "198.51.100.{}"  # the client's address on each path; the gateway has one for all of them
BUFFERS = {"net.ipv4.tcp_wmem": "4096 65536 33554432", "net.ipv4.tcp_rmem": "4096 131072 33554432"}
# A link whose packets are later than this, in the hundredth of them that is latest, measures the machine; so does anything while the
# machine's own host takes more than this share of its time away. Such a measurement is made again, so often at most.
LATE_NS = 3_000_000
STOLEN = 0.03
AGAIN = 2


class Hosts:
    """Client, gateway and Internet; what is between the first two comes and goes by `lay`."""

    def __init__(self, course):
        prefix = f"bb-{course.name}"
        self.client, self.gateway, self.internet = (net.Host(f"{prefix}-{name}", course.folder) for name in ("client", "gateway", "internet"))
        net.cable(self.gateway, "wan", ["203.0.113.1/24", "2001:db8:2::1/64"], self.internet, "eth0", [f"{net.INTERNET4}/24", f"{net.INTERNET6}/64"])
        for host in (self.client, self.gateway, self.internet):
            for key, value in BUFFERS.items():
                host.run(["sysctl", "-qw", f"{key}={value}"], check=False)
        self.course, self.links = course, []

    def lay(self, *specs, seed=1, trace=None):
        """New links in place of the old ones: words of `bauta-link` for each path."""
        self.clear()
        for path, words in enumerate(specs):
            self.links.append(Link(self, path, words, seed * 16 + path, trace))

    def clear(self):
        for link in self.links:
            link.daemon.stop()
        self.links = []

    def undisturbed(self, attempt, between=lambda: None):
        """What `attempt()` returns, which lays links and measures; made again where the links or the machine were disturbed."""
        return undisturbed(self.course, attempt, between, lambda: [why for link in self.links if (why := link.disturbed())])


class Link:
    """An emulated link, the same both ways; `wan`, `wan1`… at the client."""

    def __init__(self, hosts, path, words, seed, trace):
        loads.require("bauta-link")
        self.course = hosts.course
        self.device = f"wan{path or ''}"
        self.folder = Path(tempfile.mkdtemp(prefix="link-", dir=self.course.folder))
        self.control = self.folder / "control"
        if trace:
            (self.folder / "trace").write_text(trace)
            words = f"{words} trace {self.folder / 'trace'}"
        ends = ["--between", hosts.client.name, "--and", hosts.gateway.name, "--device", f"link{path}"]
        command = [loads.program("bauta-link"), *ends, "--link", words, "--seed", seed, "--stats", "none", "--control", self.control]
        # It enters the namespaces by itself.
        self.daemon = Daemon("link", [str(word) for word in command], self.folder / "log")
        there = lambda: self.control.exists() and f"link{path}" in hosts.gateway.run(["ls", "/sys/class/net"])
        wait_until(there, "an emulated link", daemons=[self.daemon])
        own = OWN.format(2 + path)
        hosts.client.ip("link", "set", f"link{path}", "down")
        hosts.client.ip("link", "set", f"link{path}", "name", self.device)
        for host, device, here, far in ((hosts.client, self.device, own, net.GATEWAY4), (hosts.gateway, f"link{path}", net.GATEWAY4, own)):
            host.ip("address", "add", here, "peer", far, "dev", device)
            host.ip("link", "set", device, "up")
        if path:
            hosts.client.ip("route", "replace", "default", "via", net.GATEWAY4, "dev", self.device, "onlink", "table", 100 + path)
            hosts.client.run(["ip", "rule", "del", "from", own], check=False)
            hosts.client.ip("rule", "add", "from", own, "lookup", 100 + path, "priority", 100 + path)
        else:
            hosts.client.ip("route", "replace", "default", "via", net.GATEWAY4, "dev", self.device)
        self.tell("reset")  # What the kernel sent while the devices came up is nobody's measurement.

    def tell(self, command):
        """A command, such as `blackhole on` or `stats`; the answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.control))
            sock.sendall(f"{command}\n".encode())
            return sock.makefile().readline()

    def stats(self, way="down"):
        return json.loads(self.tell("stats"))[way]

    def disturbed(self):
        """Why what went over it cannot be believed, if so."""
        for way in ("up", "down"):
            try:
                late, failed = self.stats(way)["lateness"]["p99_ns"], self.stats(way)["failed"]
            except (OSError, ValueError, KeyError):
                continue  # it has ended; whoever used it has failed already
            if late > LATE_NS or failed:
                return f"the link ({self.device}, {way}) was {late / 1e6:.1f} ms late and failed {failed} packets"
        return None


def stolen(since=None):
    """Ticks of all processors and those their host took away since boot; with such a pair from before, the share taken since."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    now = sum(ticks), ticks[7]
    return now if since is None else (now[1] - since[1]) / max(now[0] - since[0], 1)


def undisturbed(course, attempt, between=lambda: None, disturbed=list):
    """What `attempt()` returns; made again (after `between()`) where it cannot be believed, for the reasons of `disturbed()` or because the
    machine's host took too much of its time. What the last one found is kept, and said to be disturbed."""
    for left in reversed(range(AGAIN + 1)):
        kept, before = course.samples.kept(), stolen()
        found = attempt()
        why = disturbed()
        if (share := stolen(before)) > STOLEN:
            why.append(f"{share:.0%} of the machine's time went elsewhere")
        if not why:
            break
        if left:
            course.say(f"! {course.name}: {'; '.join(why)}: once more")
            course.samples.back_to(kept)
            between()
        else:
            course.note(f"{'; '.join(why)}: disturbed, not to be used")
    return found
