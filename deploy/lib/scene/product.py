"""Bauta itself on the stage: certificates, gateway, client."""

import os
import re
import subprocess
from pathlib import Path

from . import net
from .proc import Failed, wait_until

ROOT = Path(__file__).resolve().parents[3]
DOMAIN = "bauta.localhost"  # names under .localhost are loopback in every browser, so that a person can open the site
PORT = 8443
ADMIN = "127.0.0.1:9464"
FLOWS = 4096  # the default


def programs():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("BAUTA_PROFILE", "release")


def missing():
    """What has to be done before Bauta can run; None if nothing."""
    absent = [p for p in ("bauta-gateway", "bauta") if not (programs() / p).exists()]
    return f"cargo build --release --locked -p bauta-gateway -p bauta builds {' and '.join(absent)}" if absent else None


def certificate(folder, domain=DOMAIN):
    """A throw-away authority and a certificate of it for the site: ca.pem, cert.pem, key.pem."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*words):
        done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"openssl {words[0]}: {done.stderr.strip().splitlines()[-1]}")

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    (folder / "site.ext").write_text(f"subjectAltName=DNS:{domain}\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:false\n")
    constraints = ["-addext", "basicConstraints=critical,CA:true", "-addext", "keyUsage=critical,keyCertSign"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Bauta throw-away CA", *constraints)
    openssl("req", *curve, "-keyout", "key.pem", "-out", "site.csr", "-subj", f"/CN={domain}")
    openssl("x509", "-req", "-in", "site.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "site.ext", "-out", "cert.pem")
    (folder / "ca.key").unlink()  # Nobody shall sign anything else with it.


CONFIG = """
domain = "{domain}"
listen = "[::]:{port}"
state_dir = "{folder}/state"
user = "root"
{top}
[tls]
cert = "{folder}/cert.pem"
key = "{folder}/key.pem"

[tunnel]
mtu = {mtu}
sessions = {sessions}
flows = {flows}
allow = ["203.0.113.0/24", "2001:db8:2::/64"]

[accounts]
file = "{folder}/accounts.toml"

[admin]
listen = "{admin}"
"""


# Where thousands of clients share one address, as they do on no network but a test's.
CROWD = """
[limits]
free_handshakes = 1000000
retry_above = 1000000
handshakes = 1000000
handshakes_per_second = 1000000
source_per_second = 1000000
source_connections = 1000000
"""


class Gateway:
    """A gateway, running and answering, with one account. `extra` is appended to its configuration: further tables; `top` are further
    keys that belong to no table."""

    def __init__(self, host, folder, port=PORT, mtu=1420, sessions=16, domain=DOMAIN, extra="", top=""):
        self.host, self.folder, self.port, self.domain = host, Path(folder), port, domain
        certificate(self.folder, domain)
        (self.folder / "state").mkdir(exist_ok=True)
        self.config = self.folder / "gateway.toml"
        config = CONFIG.format(top=top, admin=ADMIN, domain=domain, port=port, folder=self.folder, mtu=mtu, sessions=sessions, flows=max(FLOWS, sessions))
        self.config.write_text(config + extra + (CROWD if sessions > 16 else ""))
        self.program = programs() / "bauta-gateway"
        added = host.run([self.program, "--config", self.config, "user", "add", "guest", "--quiet"])
        link = re.search(r"bauta://\S+", added)
        if not link:
            raise Failed(f"`bauta-gateway user add` printed no link:\n{added}")
        self.link = link[0]
        self.start()

    def start(self):
        self.daemon = self.host.start("gateway", [self.program, "--config", self.config, "run"])
        healthy = lambda: self.host.run(["curl", "-sf", "-m", 1, f"http://{ADMIN}/healthz"], check=False)
        self.seconds = wait_until(healthy, "the gateway to answer at its admin address", daemons=[self.daemon])

    def stop(self):
        return self.daemon.stop() if self.daemon else 0


class Client:
    """A client of the gateway, configured; `start` puts its whole machine behind the gateway."""

    def __init__(self, host, folder, gateway, address=net.GATEWAY4, name="bauta0"):
        self.host, self.folder, self.gateway, self.name = host, Path(folder), gateway, name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.program = programs() / "bauta"
        self.link = f"{gateway.link}?ca={gateway.folder}/ca.pem&addr={address}"
        self.config = self.folder / "bauta.toml"
        # The link is a secret: it stands in a file, not on a command line that every user can list.
        self.config.touch(mode=0o600)
        self.config.write_text(f'link = "{self.link}"\nname = "{name}"\nstate_dir = "{self.folder}/state"\n')
        self.daemon = None

    def start(self):
        self.daemon = self.host.start("client", [self.program, "--config", self.config, "up"])
        self.seconds = wait_until(self.is_up, "the tunnel to come up", 20, [self.daemon])
        return self

    def is_up(self):
        words = self.host.run(["ip", "-br", "address", "show", "dev", self.name], check=False).split()
        return len(words) > 2 and all(any(kind in w and not w.startswith("fe80") for w in words[2:]) for kind in ".:")

    def addresses(self):
        words = self.host.run(["ip", "-br", "address", "show", "dev", self.name]).split()
        return [w.partition("/")[0] for w in words[2:] if not w.startswith("fe80")]

    def forward(self, kind, local, target):
        """A local UDP or TCP port that leads to a target through CONNECT-UDP or CONNECT."""
        return self.host.start(f"forward-{kind}", [self.program, "--config", self.config, "forward", kind, local, target])

    def stop(self):
        return self.daemon.stop() if self.daemon else 0
