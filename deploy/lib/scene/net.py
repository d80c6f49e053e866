"""Network namespaces, and the three hosts of a tunnel: client, gateway, Internet."""

import subprocess
from pathlib import Path

from .proc import Daemon, Failed

# client ─ 198.51.100.0/24, 2001:db8:1::/64 ─ gateway ─ 203.0.113.0/24, 2001:db8:2::/64 ─ internet
GATEWAY4, CLIENT4 = "198.51.100.1", "198.51.100.2"
GATEWAY6, CLIENT6 = "2001:db8:1::1", "2001:db8:1::2"
INTERNET4, INTERNET6 = "203.0.113.2", "2001:db8:2::2"

_SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv6.conf.default.accept_dad": 0,
    # The kernel's default differs from machine to machine; a figure needs a name.
    "net.ipv4.tcp_congestion_control": "cubic",
}


class Host:
    """One namespace."""

    def __init__(self, name, logs=None):
        self.name, self.logs = name, Path(logs or "/tmp")
        _ip("netns", "add", name)
        self.ip("link", "set", "lo", "up")
        for key, value in _SYSCTLS.items():
            self.run(["sysctl", "-qw", f"{key}={value}"], check=False)

    def inside(self, command):
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, command, timeout=30, check=True, input=""):
        """Runs a command to its end and returns what it printed."""
        try:
            done = subprocess.run(self.inside(command), input=input, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"`{command[0]}` did not end within {timeout} s") from None
        if check and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise Failed(f"`{command[0]}` ended with {done.returncode}: {last}")
        return done.stdout

    def start(self, name, command, **options):
        """Starts a program that stays; its output goes to a log."""
        return Daemon(name, self.inside(command), self.logs / f"{self.name}-{name}.log", **options)

    def counter(self, interface, name):
        """One of the kernel's statistics of an interface."""
        return int(self.run(["cat", f"/sys/class/net/{interface}/statistics/{name}"]))

    def ip(self, *words):
        _ip("-n", self.name, *words)


def _ip(*words):
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"`ip {' '.join(map(str, words))}`: {done.stderr.strip()}")


def cable(a, a_name, a_addresses, b, b_name, b_addresses):
    """A veth pair between two hosts."""
    _ip("link", "add", a_name, "netns", a.name, "type", "veth", "peer", "name", b_name, "netns", b.name)
    for host, name, addresses in ((a, a_name, a_addresses), (b, b_name, b_addresses)):
        for address in addresses:
            host.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        host.ip("link", "set", name, "up")


def three_hosts(prefix, logs):
    """Client, gateway, Internet in a row. The Internet has no route back to the client: what arrives came by the gateway's own address."""
    client, gateway, internet = (Host(f"{prefix}-{name}", logs) for name in ("client", "gateway", "internet"))
    cable(client, "eth0", [f"{CLIENT4}/24", f"{CLIENT6}/64"], gateway, "lan", [f"{GATEWAY4}/24", f"{GATEWAY6}/64"])
    cable(gateway, "wan", ["203.0.113.1/24", "2001:db8:2::1/64"], internet, "eth0", [f"{INTERNET4}/24", f"{INTERNET6}/64"])
    client.ip("route", "add", "default", "via", GATEWAY4)
    client.ip("-6", "route", "add", "default", "via", GATEWAY6)
    return client, gateway, internet
