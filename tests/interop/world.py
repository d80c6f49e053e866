"""A small world of namespaces: a client, a gateway, and an Internet behind it. Goes away with the process.

    client 198.51.100.2 ── 198.51.100.1 gateway 203.0.113.1 ── 203.0.113.10 … .12 internet
           2001:db8:1::2 ── 2001:db8:1::1      2001:db8:2::1 ── 2001:db8:2::10 … ::12
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PREFIX = "bauta-interop-"
ROLES = ("client", "gateway", "internet")
GATEWAY, GATEWAY6 = "198.51.100.1", "2001:db8:1::1"
OUTSIDE, OUTSIDE6 = "203.0.113.1", "2001:db8:2::1"
ECHO, ECHO6 = "203.0.113.10", "2001:db8:2::10"
ORIGIN, NARROW = "203.0.113.11", "203.0.113.12"
NARROW_MTU = 1300
SITE = "site.test"

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUT = ROOT / "target" / "interop"
PYTHON = str(OUT / "venv" / "bin" / "python")


def sh(*command: str, check: bool = True, **kw) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; its words are in the error where it fails."""
    done = subprocess.run(command, text=True, capture_output=True, check=False, **kw)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done


def sweep() -> None:
    """Removes what a run left that was killed outright."""
    for line in sh("ip", "netns", "list", check=False).stdout.splitlines():
        name = line.split()[0] if line.split() else ""
        if name.startswith(PREFIX):
            owner = name[len(PREFIX) :].split("-")[0]
            if not owner.isdigit() or not Path(f"/proc/{owner}").exists():
                remove_namespace(name)


def remove_namespace(name: str) -> None:
    """Ends everything that runs in a namespace, by process id, and the namespace."""
    for pid in sh("ip", "netns", "pids", name, check=False).stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    sh("ip", "netns", "del", name, check=False)
    shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)


class World:
    """The namespaces, and the programs that run in them."""

    def __init__(self) -> None:
        self.programs: list[tuple[str, subprocess.Popen]] = []
        self.files = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.files.chmod(0o755)  # the gateway gives up root and must read its certificate
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        sweep()
        for role in ROLES:
            sh("ip", "netns", "add", self.name(role))
            self.ip(role, "link set lo up")
            # A link-local address that becomes usable seconds later is a change of network to a browser.
            for which in ("all", "default"):
                sh(*self.inside(role, "sysctl", "-qw", f"net.ipv6.conf.{which}.accept_dad=0"))
        self.wire("client", "out0", ["198.51.100.2/24", "2001:db8:1::2/64"], "gateway", "in0", [f"{GATEWAY}/24", f"{GATEWAY6}/64"])
        self.wire("gateway", "out0", [f"{OUTSIDE}/24", f"{OUTSIDE6}/64"], "internet", "in0",
                  [f"203.0.113.{n}/24" for n in (10, 11, 12)] + [f"2001:db8:2::{n}/64" for n in (10, 11, 12)])  # fmt: skip
        self.ip("client", f"route add default via {GATEWAY}")
        self.ip("client", f"route add default via {GATEWAY6}")
        self.ip("gateway", f"route add {NARROW} dev out0 mtu lock {NARROW_MTU}")
        self.etc("gateway", "resolv.conf", f"nameserver {ECHO}\noptions timeout:1 attempts:2\n")
        self.etc("client", "hosts", f"127.0.0.1 localhost\n{GATEWAY} {SITE}\n")
        # Nothing in the client's namespace may resolve a name by itself.
        self.etc("client", "resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def name(self, role: str) -> str:
        return f"{PREFIX}{os.getpid()}-{role}"

    def ip(self, role: str, words: str) -> None:
        family = ["-6"] if "::" in words else []
        sh("ip", *family, "-n", self.name(role), *words.split())

    def wire(self, a: str, a_link: str, a_addresses: list[str], b: str, b_link: str, b_addresses: list[str]) -> None:
        sh("ip", "link", "add", a_link, "netns", self.name(a), "type", "veth", "peer", "name", b_link, "netns", self.name(b))
        for role, link, addresses in ((a, a_link, a_addresses), (b, b_link, b_addresses)):
            for address in addresses:
                self.ip(role, f"addr add {address} dev {link}" + (" nodad" if ":" in address else ""))
            self.ip(role, f"link set {link} up")

    def etc(self, role: str, name: str, text: str) -> None:
        """A file that programs in this namespace see in /etc (man ip-netns)."""
        folder = Path("/etc/netns") / self.name(role)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    def inside(self, role: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name(role), *command]

    def start(self, role: str, what: str, *command: str, ready: str | None = None, timeout: float = 10) -> Path:
        """Starts a program that goes on; waits until its log says `ready`. Returns its log."""
        log = self.files / f"{what}.log"
        with log.open("w") as out:
            program = subprocess.Popen(self.inside(role, *command), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       cwd=HERE, start_new_session=True)  # fmt: skip
        self.programs.append((what, program))
        deadline = time.monotonic() + timeout
        while ready is not None and ready not in log.read_text(errors="replace"):
            if program.poll() is not None or time.monotonic() > deadline:
                how = "is not ready" if program.poll() is None else f"ended with {program.returncode}"
                raise RuntimeError(f"{what} {how}:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return log

    def alive(self, what: str) -> bool:
        """Whether a started program still runs."""
        return any(program.poll() is None for name, program in self.programs if name == what)

    def stop(self, what: str, timeout: float = 5) -> None:
        """Ends a started program, politely first."""
        for name, program in self.programs:
            if name == what and program.poll() is None:
                os.killpg(program.pid, signal.SIGTERM)
                try:
                    program.wait(timeout)
                except subprocess.TimeoutExpired:
                    os.killpg(program.pid, signal.SIGKILL)
                    program.wait()

    def run(self, role: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end; a time-out looks like exit code 124."""
        program = subprocess.Popen(self.inside(role, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   errors="replace", cwd=HERE, start_new_session=True)  # fmt: skip
        self.programs.append((command[0], program))
        try:
            out, err = program.communicate(timeout=timeout)
            code = program.returncode
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            out, err = program.communicate()
            code, err = 124, f"{err}\nnot done after {timeout} s"
        return subprocess.CompletedProcess(command, code, out, err)

    def close(self) -> None:
        for what, program in reversed(self.programs):
            if program.poll() is None:
                self.stop(what, 3)
        for role in ROLES:
            remove_namespace(self.name(role))
        if keep := os.environ.get("INTEROP_KEEP"):
            shutil.copytree(self.files, keep, dirs_exist_ok=True)
        shutil.rmtree(self.files, ignore_errors=True)
