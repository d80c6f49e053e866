"""The tunnels that are compared: each comes up between client and gateway and leads to the Internet."""

import socket
import subprocess
import tempfile
from pathlib import Path

from scene import net, product
from scene.proc import Failed, wait_until

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "target/bench/peers/bin"
MTU = 1420  # of every TUN: WireGuard's customary one


class Bauta:
    name = "bauta"

    def __init__(self, folder):
        self.home = Path(folder)

    def missing(self):
        return product.missing()

    def up(self, client, gateway):
        self.folder = Path(tempfile.mkdtemp(dir=self.home))
        self.gateway = product.Gateway(gateway, self.folder / "gateway", mtu=MTU)
        self.client = product.Client(client, self.folder / "client", self.gateway).start()
        self.server, self.daemons = self.gateway.daemon, [self.client.daemon, self.gateway.daemon]

    def down(self):
        for end in ("client", "gateway"):
            if hasattr(self, end):
                getattr(self, end).stop()
                delattr(self, end)

    def serve(self, gateway):
        """The gateway alone, for clients that come one by one."""
        self.folder = Path(tempfile.mkdtemp(dir=self.home))
        self.gateway = product.Gateway(gateway, self.folder / "gateway", mtu=MTU, sessions=256)
        self.server = self.gateway.daemon

    def join(self, host, number, address):
        return product.Client(host, self.folder / f"client{number}", self.gateway, address=address).start()


class Wireguard:
    """A WireGuard in user space, told what to do over its control socket as `wg` would."""

    net4 = "10.66.0"

    def __init__(self, name, program):
        self.name, self.program = name, PEERS / program
        self.command = [self.program, "--foreground", "--disable-drop-privileges"] if program == "boringtun" else [self.program, "-f"]

    def missing(self):
        return None if self.program.exists() else f"tests/bench/peers {self.program.name} builds it"

    def up(self, client, gateway):
        self.serve(gateway)
        self.client = self.join(client, 0, net.GATEWAY4)
        self.daemons = [self.client, self.server]
        client.ip("route", "add", "203.0.113.0/24", "dev", "wgc0")

    def serve(self, gateway):
        self.key, self.public = keys()
        self.server = self._start(gateway, "wgs", f"{self.net4}.1/16")
        control("wgs", private_key=self.key, listen_port=51820)
        gateway.run(["nft", "-f", "-"], input=NAT.format(network=f"{self.net4}.0/16"))

    def join(self, host, number, address):
        key, public = keys()
        inner = f"10.66.{number // 250}.{number % 250 + 2}"
        control("wgs", public_key=public, allowed_ip=f"{inner}/32")
        name = f"wgc{number}"
        client = self._start(host, name, f"{inner}/32")
        peer = {"public_key": self.public, "endpoint": f"{address}:51820", "persistent_keepalive_interval": 25}
        control(name, private_key=key, **peer, allowed_ip="0.0.0.0/0")
        host.ip("route", "replace", f"{self.net4}.1/32", "dev", name)
        host.run(["ping", "-c", "1", "-W", "5", f"{self.net4}.1"])
        return client

    def _start(self, host, interface, address):
        daemon = host.start(self.name, [*self.command, interface])
        ready = lambda: socket_of(interface).exists() and interface in host.run(["ls", "/sys/class/net"])
        wait_until(ready, f"{self.name}'s interface and control socket", daemons=[daemon])
        host.ip("address", "add", address, "dev", interface)
        host.ip("link", "set", interface, "mtu", MTU, "up")
        daemon.interface = interface
        return daemon

    def down(self):
        for daemon in (getattr(self, "client", None), getattr(self, "server", None)):
            if daemon:
                daemon.stop()
                socket_of(daemon.interface).unlink(missing_ok=True)
        self.client = self.server = None


NAT = """
table inet peer
delete table inet peer
table inet peer {{
  chain out {{ type nat hook postrouting priority srcnat; ip saddr {network} oifname "wan" masquerade; }}
}}
"""


def keys():
    """An X25519 key pair in hexadecimal, made by openssl."""
    der = subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-outform", "DER"], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"], input=der, capture_output=True, check=True)
    return der[-32:].hex(), public.stdout[-32:].hex()


def socket_of(interface):
    return Path(f"/run/wireguard/{interface}.sock")


def control(interface, **settings):
    """WireGuard's cross-platform user-space configuration protocol."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(socket_of(interface)))
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        sock.sendall(f"set=1\n{lines}\n".encode())
        answer = sock.recv(4096).decode()
    if "errno=0" not in answer:
        raise Failed(f"{interface} refused {list(settings)}: {answer.strip()}")


def all_of(folder):
    return [Bauta(folder), Wireguard("wireguard-go", "wireguard-go"), Wireguard("boringtun", "boringtun")]
