"""Relays of single flows: a local port of the client that leads to a target in the Internet."""

import json
import tempfile
from pathlib import Path

import tunnels
from scene import net, product
from scene.proc import wait_until

LOCAL_PORT = 7001
PASSWORD = "a password that only this machine ever sees"


class Relay:
    """What all have in common: programs at both ends, and a port that listens when they are ready."""

    transport = "tcp"

    def __init__(self, folder, program=None):
        self.home, self.program, self.daemons = Path(folder), program, []

    def missing(self):
        return None if self.program.exists() else f"tests/bench/peers {self.name} brings it"

    def up(self, client, gateway, target):
        self.daemons = []
        self.folder = Path(tempfile.mkdtemp(dir=self.home))
        product.certificate(self.folder)
        self.begin(client, gateway, target)
        listing = ["ss", "-Hltn" if self.transport == "tcp" else "-Hlun"]
        wait_until(lambda: f":{LOCAL_PORT} " in client.run(listing), f"{self.name} to listen", daemons=self.daemons)

    def down(self):
        for daemon in reversed(self.daemons):
            daemon.stop()


class Bauta(Relay):
    """CONNECT (TCP) or CONNECT-UDP over HTTP/3: `bauta forward`, the road that `bauta proxy` takes too."""

    name = "bauta"

    def __init__(self, folder, transport):
        super().__init__(folder)
        self.transport = transport

    def missing(self):
        return product.missing()

    def begin(self, client, gateway, target):
        server = product.Gateway(gateway, self.folder / "gateway")
        self.daemons.append(server.daemon)
        near = product.Client(client, self.folder / "client", server)
        self.daemons.append(near.forward(self.transport, f"127.0.0.1:{LOCAL_PORT}", target))


class Hysteria(Relay):
    """Hysteria 2, with its BBR, or with its Brutal if a `rate` in Mbit/s is given."""

    name = "hysteria"

    def __init__(self, folder, rate=0):
        super().__init__(folder, tunnels.PEERS / "hysteria")
        self.rate = rate

    def begin(self, client, gateway, target):
        environment = ["env", f"HYSTERIA_AUTH={PASSWORD}"]
        files = ["-cert", self.folder / "cert.pem", "-key", self.folder / "key.pem"]
        self.daemons.append(gateway.start("hysteria", [*environment, self.program, "server", "-listen", f":{product.PORT}", *files]))
        wait_until(lambda: f":{product.PORT} " in gateway.run(["ss", "-Hlun"]), "hysteria to serve", daemons=self.daemons)
        words = ["-server", f"{net.GATEWAY4}:{product.PORT}", "-name", product.DOMAIN, "-ca", self.folder / "ca.pem"]
        words += ["-listen", f"127.0.0.1:{LOCAL_PORT}", "-target", target, "-rate", self.rate]
        self.daemons.append(client.start("hysteria", [*environment, self.program, "client", *words]))


class Shadowsocks(Relay):
    """shadowsocks-libev over TCP, with ChaCha20-Poly1305: the cipher that Debian's build is fastest with."""

    name = "shadowsocks"

    def __init__(self, folder):
        super().__init__(folder, Path("/usr/bin/ss-server"))

    def begin(self, client, gateway, target):
        common = {"server_port": 8388, "password": PASSWORD, "method": "chacha20-ietf-poly1305", "timeout": 60, "mode": "tcp_only"}
        near, far = self.folder / "near.json", self.folder / "far.json"
        far.write_text(json.dumps({"server": "0.0.0.0", **common}))
        near.write_text(json.dumps({"server": net.GATEWAY4, "local_address": "127.0.0.1", "local_port": LOCAL_PORT, **common}))
        self.daemons.append(gateway.start("ss-server", [self.program, "-c", far]))
        wait_until(lambda: ":8388 " in gateway.run(["ss", "-Hltn"]), "ss-server to listen", daemons=self.daemons)
        self.daemons.append(client.start("ss-tunnel", ["ss-tunnel", "-c", near, "-L", target]))


class MasqueGo(Relay):
    """CONNECT-UDP by masque-go at both ends."""

    name, transport = "masque-go", "udp"

    def __init__(self, folder):
        super().__init__(folder, tunnels.PEERS / "masque-go")

    def begin(self, client, gateway, target):
        files = ["-cert", self.folder / "cert.pem", "-key", self.folder / "key.pem"]
        words = ["-listen", f"{net.GATEWAY4}:{product.PORT}", "-name", product.DOMAIN, *files]
        self.daemons.append(gateway.start("masque-go", [self.program, "proxy", *words]))
        wait_until(lambda: f":{product.PORT} " in gateway.run(["ss", "-Hlun"]), "masque-go to serve", daemons=self.daemons)
        words = ["-proxy", f"{net.GATEWAY4}:{product.PORT}", "-name", product.DOMAIN, "-ca", self.folder / "ca.pem"]
        words += ["-listen", f"127.0.0.1:{LOCAL_PORT}", "-target", target]
        self.daemons.append(client.start("masque-go", [self.program, "forward", *words]))


def peers(*those):
    return [] if tunnels.ALONE else list(those)
