"""The quickstart from where everything is built: stage, gateway, client, checks, table; then it stays.

python3 -m scene.quickstart [--once] [--port PORT]     inside deploy/lib/cage
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import checks, net, product
from .proc import Daemon, Failed, wait_until

LIB = Path(__file__).resolve().parents[1]


class Asked(Exception):
    """Somebody wants this to end."""


def ask(*_):
    raise Asked


class Table:
    """Rows as they come, so that a person sees progress."""

    def __init__(self):
        self.failed = 0
        tty = sys.stdout.isatty()
        self.marks = ("\033[32m✓\033[0m", "\033[31m✗\033[0m") if tty else ("✓", "✗")

    def row(self, what, check, *arguments):
        try:
            how, seen = check(*arguments)
            mark = self.marks[0]
        except Failed as failure:
            self.failed += 1
            mark, how, seen = self.marks[1], "", str(failure)
        print(f"{mark} {what:<22} {how:<18} {seen}", flush=True)
        return mark is self.marks[0]


def play(port, once):
    logs = Path(tempfile.mkdtemp(prefix="bauta-qs-"))
    client, gateway, internet = net.three_hosts("bauta-qs", logs)
    with open("/etc/hosts", "a") as hosts:  # the cage's own
        hosts.write(f"{net.GATEWAY4} {product.DOMAIN}\n")
    internet.start("servers", [sys.executable, "-m", "scene.internet", checks.FILE_BYTES])
    wait_until(lambda: ":80 " in internet.run(["ss", "-Hltn"]), "the Internet's servers")

    table = Table()
    table.row("before the tunnel", checks.outside, client)
    server = product.Gateway(gateway, logs / "gateway", port)
    for version in ("1.1", "2"):
        table.row(f"website over HTTP/{version}", checks.site, client, server, version)
    table.row("website over HTTP/3", checks.site_h3, client, server)
    tunnel = product.Client(client, logs / "client", server)
    table.row("CONNECT-UDP", checks.echo, client, tunnel)

    def up():
        tunnel.start()
        return "bauta up", f"{', '.join(tunnel.addresses())} in {tunnel.seconds:.2f} s"

    if table.row("CONNECT-IP", up):
        table.row("ping through it, IPv4", checks.ping, client, net.INTERNET4)
        table.row("ping through it, IPv6", checks.ping, client, net.INTERNET6)
        table.row("download, IPv4", checks.download, client, net.INTERNET4)
        table.row("download, IPv6", checks.download, client, net.INTERNET6)
    if not once:
        stay(port, gateway, server, logs)
    for end in (tunnel, server):
        code = end.stop()
        if code:
            table.failed += 1
            print(f"{table.marks[1]} {end.daemon.name} ended with {code} when asked to stop:\n{end.daemon.last_words()}")
    return table.failed


def stay(port, gateway, server, logs):
    """Until Ctrl-C: the website for a person's browser, and the tunnel as it is."""
    cage = os.environ["CAGE_PID"]
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    door = Daemon("doorway", [sys.executable, "-m", "scene.doorway", str(port), gateway.name], logs / "doorway.log", env=environment)
    url = f"https://{server.domain}:{port}/"
    ca = f"/proc/{cage}/root{server.folder}/ca.pem"
    print(f"""
The website   {url}   on this machine; a browser warns, as the certificate is a throw-away one
              curl --cacert {ca} {url}
Look inside   nsenter -a -t {cage} ip netns exec bauta-qs-client bash     then e.g. ping {net.INTERNET4}
Logs          /proc/{cage}/root{logs}

Up. Ctrl-C ends it and leaves nothing behind.""", flush=True)
    try:
        while server.daemon.alive() and door.alive():
            time.sleep(0.5)
    except Asked:
        print()
        return
    dead = door if not door.alive() else server.daemon
    raise Failed(f"{dead.name} ended:\n{dead.last_words()}")


def main():
    parser = argparse.ArgumentParser(prog="deploy/quickstart")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int, default=product.PORT)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    try:
        failed = play(options.port, options.once)
    except Failed as failure:
        sys.exit(f"✗ {failure}")
    except Asked:
        sys.exit(130)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
