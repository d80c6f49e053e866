"""Starts a gateway in a world of its own and lets every group of foreign programs at it."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from world import ECHO, ECHO6, GATEWAY, GATEWAY6, HERE, NARROW, ORIGIN, OUT, OUTSIDE, OUTSIDE6, PYTHON, ROOT, SITE, World, sh

TOKEN = "interop-peer-token"  # of peer/server.py
ORIGIN_NAME = "origin.test"
LINE = re.compile(r"^(ok|FAIL)\s+(.*)$")


@dataclass
class Result:
    group: str
    name: str
    ok: bool
    why: str = ""


class Session:
    """The world with a gateway and an Internet in it."""

    def __init__(self) -> None:
        self.world = World()
        self.token = ""
        self.gateway = binary("BAUTA_GATEWAY", "bauta-gateway")
        for name in (SITE, ORIGIN_NAME):
            sh(str(HERE / "ca"), str(self.world.files), name)

    def path(self, name: str) -> str:
        return str(self.world.files / name)

    def start_internet(self) -> None:
        """Name server, echo server, and an origin that speaks h1, h2 and h3."""
        world = self.world
        self.world.start("internet", "dnsmasq", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                         f"--listen-address={ECHO}", "--bind-interfaces", "--local=/test/", f"--host-record=echo.test,{ECHO},{ECHO6}",
                         f"--host-record={ORIGIN_NAME},{ORIGIN}", "--host-record=loop.test,127.0.0.1", ready="started")  # fmt: skip
        world.start("internet", "echo", PYTHON, "-m", "peer.echo", f"{ECHO}:7", f"[{ECHO6}]:7", ready="listening")
        page = (HERE / "browsers" / "origin.html").read_text()
        (world.files / "origin").mkdir()
        (world.files / "origin" / "index.html").write_text(page)
        (world.files / "Caddyfile").write_text(CADDY.format(files=world.files, origin=ORIGIN, echo=ECHO, name=ORIGIN_NAME))
        world.start("internet", "caddy", "env", f"HOME={world.files}", "caddy", "run", "--adapter", "caddyfile", "--config",
                    self.path("Caddyfile"), ready="serving initial configuration")  # fmt: skip

    def start_gateway(self) -> None:
        config = self.path("gateway.toml")
        Path(config).write_text(GATEWAY_TOML.format(files=self.world.files, site=SITE))
        added = self.world.run("gateway", self.gateway, "--config", config, "user", "add", "peer", "--quiet", timeout=20)
        link = re.search(r"bauta://([^@\s]+)@", added.stdout)
        if not link:
            raise RuntimeError(f"user add printed no link: {added.stdout}{added.stderr}")
        self.token = link.group(1)
        self.world.start("gateway", "gateway", self.gateway, "--config", config, "run")
        deadline = time.monotonic() + 15
        while self.metrics() is None:
            if not self.world.alive("gateway") or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway does not serve:\n{Path(self.path('gateway.log')).read_text()[-3000:]}")
            time.sleep(0.1)

    def metrics(self) -> str | None:
        """The gateway's own figures."""
        got = self.world.run("gateway", "curl", "-sf", "--max-time", "3", "http://127.0.0.1:9464/metrics", timeout=5)
        return got.stdout if got.returncode == 0 else None

    def gateway_args(self) -> list[str]:
        return ["--name", SITE, f"--token={self.token}", "--ca", self.path("ca.pem")]

    def lines(self, role: str, *command: str, timeout: float) -> Iterator[tuple[str, bool, str]]:
        """Runs a program that prints `ok|FAIL name: why`; one that says nothing has failed."""
        done = self.world.run(role, *command, timeout=timeout)
        for line in done.stdout.splitlines():
            if line.startswith("SKIPPED"):
                print(line, flush=True)
        said = [LINE.match(line) for line in done.stdout.splitlines()]
        said = [match for match in said if match]
        for match in said:
            name, _, why = match.group(2).partition(": ")
            yield name, match.group(1) == "ok", why
        failed = any(match.group(1) == "FAIL" for match in said)
        if not said or (done.returncode and not failed):
            yield Path(command[0]).name, False, f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-1500:]}"


def binary(variable: str, name: str) -> str:
    return os.environ.get(variable) or str(ROOT / "target" / "debug" / name)


def aioquic(session: Session) -> Iterator[tuple[str, bool, str]]:
    own = [word for address in (GATEWAY, GATEWAY6, OUTSIDE, OUTSIDE6) for word in ("--own", address)]
    targets = ["--echo4", ECHO, "--echo6", ECHO6, "--narrow", NARROW]
    only = ["--only", os.environ["INTEROP_ONLY"]] if os.environ.get("INTEROP_ONLY") else []
    yield from session.lines("client", PYTHON, "client_vs_gateway.py", "--host", GATEWAY, *session.gateway_args(), *targets, *own, *only,
                             timeout=400)  # fmt: skip
    yield from session.lines("client", PYTHON, "curl_vs_gateway.py", SITE, session.path("ca.pem"), timeout=30)
    yield from session.lines("client", "node", "h2_vs_gateway.mjs", SITE, ORIGIN, ORIGIN_NAME, session.token, session.path("ca.pem"), timeout=20)


def chromium(session: Session) -> Iterator[tuple[str, bool, str]]:
    shots = screenshots("chromium")
    yield from session.lines("client", "node", "browsers/chromium.mjs", "--url", f"https://{SITE}/", "--address", GATEWAY, "--certificate",
                             session.path(f"{SITE}.pem"), "--out", shots, timeout=120)  # fmt: skip
    yield from session.lines("client", "env", f"BAUTA={binary('BAUTA', 'bauta')}", PYTHON, "fingerprint.py", "compare", timeout=150)


def firefox(session: Session) -> Iterator[tuple[str, bool, str]]:
    before = session.metrics()
    yield from session.lines("client", "node", "browsers/firefox.mjs", "--url", f"https://{ORIGIN_NAME}/", "--proxy", SITE, "--token",
                             session.token, "--ca", session.path("ca.pem"), "--out", screenshots("firefox"), timeout=150)  # fmt: skip
    log = Path(session.path("origin.log"))
    seen = log.read_text() if log.exists() else ""
    yield "firefox_origin_saw_the_gateway_over_h3", f'"remote_ip":"{OUTSIDE}"' in seen and '"proto":"HTTP/3.0"' in seen, seen[-300:]
    yield "firefox_origin_never_saw_the_client", bool(seen) and "198.51.100.2" not in seen, ""
    yield "firefox_moved_the_gateways_figures", session.metrics() != before, ""


def go(session: Session) -> Iterator[tuple[str, bool, str]]:
    env = [f"GATEWAY={GATEWAY}:443", f"NAME={SITE}", f"TOKEN={session.token}", f"CA={session.path('ca.pem')}", f"BIN={OUT / 'bin'}"]
    env += [f"ECHO={ECHO}", "ECHO_NAME=echo.test", "INNER=10.77.0.1"]
    yield from session.lines("client", "env", *env, "./go_vs_gateway.sh", timeout=90)


def client(session: Session) -> Iterator[tuple[str, bool, str]]:
    from client_vs_peer import checks

    yield from checks(session, binary("BAUTA", "bauta"), TOKEN)


GROUPS: dict[str, Callable[[Session], Iterator[tuple[str, bool, str]]]] = {
    "aioquic": aioquic, "client": client, "chromium": chromium, "firefox": firefox, "go": go,
}  # fmt: skip
WITHOUT_GATEWAY = {"client"}


def screenshots(browser: str) -> str:
    folder = OUT / "screenshots" / browser
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def main() -> int:
    args = argparse.ArgumentParser(prog="tests/interop/run", description=__doc__)
    args.add_argument("groups", nargs="*", metavar="GROUP", help=" ".join(GROUPS))
    opts = args.parse_args()
    groups = opts.groups or list(GROUPS)
    if unknown := set(groups) - set(GROUPS):
        args.error(f"unknown: {' '.join(sorted(unknown))}; there are {' '.join(GROUPS)}")
    results: list[Result] = []
    session = Session()
    session.start_internet()
    if set(groups) - WITHOUT_GATEWAY:
        session.start_gateway()
    for group in groups:
        print(f"── {group}", flush=True)
        started = time.monotonic()
        try:
            for name, ok, why in GROUPS[group](session):
                results.append(Result(group, name, ok, why))
                print(f"{'ok  ' if ok else 'FAIL'} {name}{': ' + why if why and not ok else ''}", flush=True)
        except Exception as broken:  # noqa: BLE001 (the other groups go on)
            results.append(Result(group, "driver", False, repr(broken)))
            print(f"FAIL {group}: {broken}", flush=True)
        if set(groups) - WITHOUT_GATEWAY and not session.world.alive("gateway"):
            results.append(Result(group, "the gateway lives", False, "it ended"))
            print(f"FAIL the gateway ended:\n{Path(session.path('gateway.log')).read_text()[-2000:]}")
            break
        print(f"   {time.monotonic() - started:.0f} s")
    print("\ngroup      passed failed")
    for group in dict.fromkeys(result.group for result in results):
        mine = [result.ok for result in results if result.group == group]
        print(f"{group:<10} {sum(mine):>6} {len(mine) - sum(mine):>6}")
    passed = sum(result.ok for result in results)
    print(f"{passed} passed, {len(results) - passed} failed")
    return int(passed < len(results) or not results)


GATEWAY_TOML = """domain = "{site}"
listen = "[::]:443"
state_dir = "{files}/state"
workers = 2

[tls]
cert = "{files}/{site}.pem"
key = "{files}/{site}.key"

[site]
kind = "sample"

[tunnel]
# The documentation ranges stand for the Internet here.
allow = ["203.0.113.0/24", "2001:db8:2::/64"]
dns = ["203.0.113.10"]

[accounts]
file = "{files}/accounts.toml"

[admin]
listen = "127.0.0.1:9464"

[log]
level = "debug"
"""

CADDY = """{{
  admin off
  auto_https off
  log {{
    output stdout
  }}
}}
http://{echo}:80 {{
  bind {echo}
  respond "{{http.request.remote.host}}"
}}
https://{name}:443 {{
  bind {origin}
  tls {files}/{name}.pem {files}/{name}.key
  header Cache-Control no-store
  respond /who "{{http.request.remote.host}} {{http.request.proto}}"
  root * {files}/origin
  file_server
  log {{
    output file {files}/origin.log
    format json
  }}
}}
"""

if __name__ == "__main__":
    sys.exit(main())
