"""Starts the two gateways, probes both at the same time and compares.

Bytes, frames, ends and codes must be the same in one and the same attempt. Lengths of packets and TLS records hang on timing too, by what is
acknowledged along the way: there, some attempt at the one must look like some attempt at the other. What differs is tried again, more slowly each
time, and counts as different only if it always is.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import quic
import table
import tcp
from probe import Probe, Trace

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"with tunnels": "127.0.1.1", "without": "127.0.1.2"}
QUIET = (0.3, 0.8, 1.6, 3.2, 1.6, 3.2)  # seconds, attempt by attempt: acknowledgements come when they do
AT_ONCE = 12  # probes
KNOWN = Ed25519PrivateKey.from_private_bytes(b"a secret key of nobody, 32 bytes").public_key().public_bytes_raw()  # it has an account
DATE = re.compile(rb"(?i)(date: )[^\r]*")

CONFIG = """domain = "site.test"
listen = "{address}:443"
user = "root"
workers = 2
state_dir = "{folder}/state"
[tls]
cert = "{files}/site.test.pem"
key = "{files}/site.test.key"
[tunnel]
enabled = {enabled}
nat = false
allow = ["203.0.113.0/24"]
[accounts]
file = "{folder}/accounts.toml"
[admin]
listen = "{address}:9464"
"""


class Gateways:
    """Both, in a folder that goes away."""

    def __init__(self) -> None:
        self.files = Path(tempfile.mkdtemp(prefix="bauta-probes-"))
        self.binary = os.environ.get("BAUTA_GATEWAY", str(ROOT / "target/debug/bauta-gateway"))
        self.running: list[subprocess.Popen] = []
        atexit.register(self.stop)
        subprocess.run([ROOT / "tests/interop/ca", self.files, "site.test"], check=True, capture_output=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.spent = self.valid = b""
        for name, address in ADDRESSES.items():
            folder = self.files / name.replace(" ", "-")
            folder.mkdir()
            enabled = "true" if name == "with tunnels" else "false"
            (folder / "gateway.toml").write_text(CONFIG.format(address=address, folder=folder, files=self.files, enabled=enabled))
            self.user(folder, "add", "keyed", "--key", table.b64(KNOWN).decode())
            link = self.user(folder, "add", "alice", "--quiet")
            self.user(folder, "link", "alice", "--revoke", "--quiet")
            fresh = self.user(folder, "add", "bob", "--quiet")
            if enabled == "true":
                self.spent, self.valid = (text.split("//")[1].split("@")[0].encode() for text in (link, fresh))
            self.start(name, folder)

    def user(self, folder: Path, *words: str) -> str:
        done = subprocess.run([self.binary, "--config", folder / "gateway.toml", "user", *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def start(self, name: str, folder: Path) -> None:
        log = folder / "log"
        with log.open("w") as out:
            program = subprocess.Popen([self.binary, "--config", folder / "gateway.toml", "run"], stdout=out, stderr=subprocess.STDOUT)
        self.running.append(program)
        deadline = time.monotonic() + 20
        while "serving" not in log.read_text():
            if program.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the gateway {name} does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def alive(self) -> bool:
        return all(program.poll() is None for program in self.running)

    def stop(self) -> None:
        for program in self.running:
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
        for program in self.running:
            try:
                program.wait(5)
            except subprocess.TimeoutExpired:
                program.kill()
        subprocess.run(["rm", "-rf", str(self.files)], check=False)


async def once(address: str, ca: str, probe: Probe, quiet: float) -> Trace:
    if probe.carrier == "h3":
        return await quic.run(address, ca, probe, quiet)
    if probe.carrier == "udp":
        return await quic.bare(address, probe, quiet)
    return await asyncio.to_thread(tcp.run, address, ca, probe, quiet)


def masked(value: object) -> object:
    """Without dates. Those of HTTP/2 and 3 are compressed; both gateways are asked in the same second, or once more."""
    return DATE.sub(rb"\1-", value) if isinstance(value, bytes) else value


def first_difference(a: Trace, b: Trace) -> str:
    for field in sorted(a.content.keys() | b.content.keys()):
        one, other = masked(a.content.get(field)), masked(b.content.get(field))
        if one != other:
            return f"{field}: {str(one)[:300]} | {str(other)[:300]}"
    return f"lengths: {a.shape} | {b.shape}"


async def differs(ca: str, probe: Probe) -> str | None:
    """What differs between the two, if anything does whenever it is tried."""
    addresses = list(ADDRESSES.values())
    shapes: tuple[set, set] = (set(), set())
    same, last = False, ""
    for quiet in QUIET:
        try:
            a, b = await asyncio.gather(*(once(address, ca, probe, quiet) for address in addresses))
        except OSError as error:
            last = f"not to be had: {error}"
            continue
        shapes[0].add(a.shape)
        shapes[1].add(b.shape)
        equal = {k: masked(v) for k, v in a.content.items()} == {k: masked(v) for k, v in b.content.items()}
        same = same or equal
        if same and shapes[0] & shapes[1]:
            return None
        last = first_difference(a, b)
    return last


async def compare(gateways: Gateways, probes: list[Probe]) -> list[tuple[str, str]]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4 * AT_ONCE))
    room, found = asyncio.Semaphore(AT_ONCE), []
    ca = str(gateways.files / "ca.pem")

    async def one(probe: Probe) -> None:
        async with room:
            try:
                what = await differs(ca, probe)
            except Exception:  # noqa: BLE001 (the other probes go on)
                what = traceback.format_exc(limit=-3)
            if what is not None:
                found.append((probe.name, what))
                print(f"FAIL {probe.name}: {what}", flush=True)

    # Whether a difference would be seen: whoever has a right token does meet one.
    for probe in table.with_a_right_token(gateways.valid):
        if await differs(ca, probe) is None:
            found.append((probe.name, "the right token changes nothing: the comparison is blind"))
            print(f"FAIL {probe.name}: {found[-1][1]}", flush=True)
    await asyncio.gather(*(one(probe) for probe in probes))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/probes/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="", help="only probes whose names contain it")
    parser.add_argument("--list", action="store_true", help="print names, probe nothing")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if options.list:
        print("\n".join(probe.name for probe in table.all_probes(KNOWN, b"spent")))
        return 0
    gateways = Gateways()
    probes = [probe for probe in table.all_probes(KNOWN, gateways.spent) if options.pattern in probe.name]
    started = time.monotonic()
    found = asyncio.run(compare(gateways, probes))
    if not gateways.alive():
        print("FAIL a gateway has ended")
        found.append(("gateways", "ended"))
    by = {carrier: sum(probe.carrier == carrier for probe in probes) for carrier in ("h1", "h2", "h3", "udp")}
    print(f"{len(probes)} probes tried ({', '.join(f'{n} {carrier}' for carrier, n in by.items())}), {len(found)} differed, in {time.monotonic() - started:.0f} s")
    print(f"{len(probes) - len(found)} passed, {len(found)} failed")
    return int(bool(found) or not probes)


if __name__ == "__main__":
    sys.exit(main())
