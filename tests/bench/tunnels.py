"""The IP tunnels that are compared: each comes up between client and gateway and leads to the Internet."""

import subprocess
import tempfile
from pathlib import Path

import wireguard
from scene import net, product
from scene.proc import wait_until

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "target/bench/peers/bin"
MTU = 1420  # of every TUN: WireGuard's customary one
ALONE = False  # Bauta without any peer


class Bauta:
    name = "bauta"

    def __init__(self, folder):
        self.home = Path(folder)
        self.client = self.gateway = None

    def missing(self):
        return product.missing()

    def up(self, client, gateway):
        folder = Path(tempfile.mkdtemp(dir=self.home))
        self.gateway = product.Gateway(gateway, folder / "gateway", mtu=MTU)
        self.client = product.Client(client, folder / "client", self.gateway).start()
        self.daemons = [self.client.daemon, self.gateway.daemon]

    def down(self):
        for end in (self.client, self.gateway):
            if end:
                end.stop()
        self.client = self.gateway = None


class Wireguard:
    """A WireGuard in user space, told what to do over its control socket as `wg` would."""

    def __init__(self, name, options):
        self.name, self.program, self.options = name, PEERS / name, options
        self.daemons = []

    def missing(self):
        return None if self.program.exists() else f"tests/bench/peers {self.name} builds it"

    def up(self, client, gateway):
        self.daemons = []
        (ours, public), (theirs, their_public) = wireguard.keys(), wireguard.keys()
        self._start(client, "wgc", "10.66.0.2/24")
        self._start(gateway, "wgs", "10.66.0.1/24")
        wireguard.control("wgs", private_key=theirs, listen_port=51820, public_key=public, allowed_ip="10.66.0.2/32")
        peer = {"public_key": their_public, "endpoint": f"{net.GATEWAY4}:51820", "persistent_keepalive_interval": 25}
        wireguard.control("wgc", private_key=ours, **peer, allowed_ip="0.0.0.0/0")
        lead("10.66.0", "wgc", client, gateway)

    def _start(self, host, interface, address):
        daemon = host.start(self.name, [self.program, *self.options, interface])
        daemon.interface = interface
        self.daemons.append(daemon)
        ready = lambda: wireguard.socket_of(interface).exists() and interface in host.run(["ls", "/sys/class/net"])
        wait_until(ready, f"{self.name}'s interface and control socket", daemons=[daemon])
        host.ip("address", "add", address, "dev", interface)
        host.ip("link", "set", interface, "mtu", MTU, "up")

    def down(self):
        for daemon in self.daemons:
            daemon.stop()
            wireguard.socket_of(daemon.interface).unlink(missing_ok=True)


class OpenVpn:
    """OpenVPN in user space (no DCO), AES-128-GCM, each end trusting the other's certificate by its fingerprint."""

    name, program = "openvpn", Path("/usr/sbin/openvpn")

    def __init__(self, folder):
        self.home, self.daemons = Path(folder), []

    def missing(self):
        return None if self.program.exists() else "tests/bench/peers openvpn installs it"

    def up(self, client, gateway):
        self.daemons = []
        prints = {end: self._certificate(end) for end in ("client", "gateway")}
        common = ["--dev-type", "tun", "--proto", "udp", "--data-ciphers", "AES-128-GCM", "--disable-dco", "--tun-mtu", MTU]
        ends = (
            (gateway, "gateway", "client", ["--dev", "ovs", "--tls-server", "--dh", "none", "--ifconfig", "10.67.0.1", "10.67.0.2", "--port", 1194]),
            (client, "client", "gateway", ["--dev", "ovc", "--tls-client", "--ifconfig", "10.67.0.2", "10.67.0.1", "--remote", net.GATEWAY4, 1194, "--nobind"]),
        )
        for host, end, other, words in ends:
            files = ["--cert", self.home / f"openvpn-{end}.pem", "--key", self.home / f"openvpn-{end}.key", "--peer-fingerprint", prints[other]]
            self.daemons.append(host.start(f"openvpn-{end}", [self.program, *words, *common, *files]))
        up = lambda: "LOWER_UP" in client.run(["ip", "link", "show", "dev", "ovc"], check=False)
        wait_until(up, "openvpn's interface", 20, self.daemons)
        lead("10.67.0", "ovc", client, gateway)

    def _certificate(self, end):
        cert, key = self.home / f"openvpn-{end}.pem", self.home / f"openvpn-{end}.key"
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={end}"]
        subprocess.run([*new, "-keyout", key, "-out", cert], capture_output=True, check=True)
        shown = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True, check=True)
        return shown.stdout.strip().partition("=")[2]

    def down(self):
        for daemon in self.daemons:
            daemon.stop()


NAT = """
table inet peer
delete table inet peer
table inet peer {{
  chain out {{ type nat hook postrouting priority srcnat; ip saddr {network}.0/24 oifname "wan" masquerade; }}
}}
"""


def lead(network, interface, client, gateway):
    """Routes the client into a tunnel that is up, masquerades behind the gateway, and waits until the other end answers."""
    gateway.run(["nft", "-f", "-"], input=NAT.format(network=network))
    client.ip("route", "replace", "203.0.113.0/24", "dev", interface)
    answers = lambda: "bytes from" in client.run(["ping", "-c", "1", "-W", "1", net.INTERNET4], check=False)
    wait_until(answers, f"the Internet to answer through {interface}", 20)


def wireguard_go():
    return Wireguard("wireguard-go", ["-f"])


def best(folder):
    """Bauta and the peer it is held against."""
    return [Bauta(folder)] + ([] if ALONE else [wireguard_go()])


def others(folder):
    """Further peers, for orientation."""
    if ALONE:
        return []
    return [Wireguard("gotatun", ["--foreground", "--disable-drop-privileges"]), Wireguard("boringtun", ["--foreground", "--disable-drop-privileges"]), OpenVpn(folder)]
