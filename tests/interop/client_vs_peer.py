"""Bauta's client against a MASQUE proxy that is not ours: peer/server.py on aioquic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from world import ECHO, GATEWAY, ORIGIN, PYTHON, SITE

PORT, UDP, TCP = 8443, 5400, 5401
SOMEBODY4, SOMEBODY6 = "203.0.113.77", "2001:db8:77::1"  # the peer answers for the whole Internet

ECHOES = f"""
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
sock.connect(("127.0.0.1", {UDP}))
for n in range(100):
    word = b"%d " % n * 50
    sock.send(word)
    if sock.recv(65536) != word:
        sys.exit("another answer")
"""

Outcome = tuple[str, bool, str]


def checks(session, bauta: str, token: str) -> Iterator[Outcome]:
    """Flows, then the whole machine, then a token that does not count."""
    world = session.world
    world.start("gateway", "peer", PYTHON, "-m", "peer.server", "--listen", f"{GATEWAY}:{PORT}", "--cert", session.path(f"{SITE}.pem"),
                "--key", session.path(f"{SITE}.key"), "--token", token, "--grease", ready="listening")  # fmt: skip
    yield from flows(session, command(session, bauta, token))
    yield from machine(session, command(session, bauta, token))
    done = world.run("client", *command(session, bauta, "wrong"), "up", timeout=20)
    yield "bauta_names_a_token_that_does_not_count", done.returncode == 7, f"{done.returncode}: {(done.stdout + done.stderr)[-300:]}"


def command(session, bauta: str, token: str) -> list[str]:
    link = Path(session.path(f"{token}.link"))
    link.write_text(f"bauta://{token}@{SITE}:{PORT}?ca={session.path('ca.pem')}&addr={GATEWAY}")
    link.chmod(0o600)
    return [bauta, "--link-file", str(link), "--state-dir", session.path("client-state")]


def flows(session, bauta: list[str]) -> Iterator[Outcome]:
    world = session.world
    world.start("client", "forward-udp", *bauta, "forward", "udp", f"127.0.0.1:{UDP}", f"{ECHO}:7", ready=f"{UDP}")
    done = world.run("client", PYTHON, "-c", ECHOES, timeout=20)
    yield "bauta_forwards_udp_through_aioquic", done.returncode == 0, done.stderr[-300:]
    world.start("client", "forward-tcp", *bauta, "forward", "tcp", f"127.0.0.1:{TCP}", f"{ORIGIN}:443", ready=f"{TCP}")
    url = f"https://origin.test:{TCP}/"
    done = world.run("client", "curl", "-sSf", "--cacert", session.path("ca.pem"), "--resolve", f"origin.test:{TCP}:127.0.0.1", url, timeout=10)
    yield "bauta_forwards_tcp_through_aioquic", "origin" in done.stdout, done.stderr[-300:]
    for name in ("forward-udp", "forward-tcp"):
        world.stop(name)


def machine(session, bauta: list[str]) -> Iterator[Outcome]:
    world = session.world
    log = world.start("client", "up", *bauta, "up", ready="tunnel is up", timeout=20)
    for family, target in (("ipv4", SOMEBODY4), ("ipv6", SOMEBODY6)):
        done = world.run("client", "ping", "-c", "5", "-i", "0.1", "-W", "2", target, timeout=15)
        yield f"bauta_pings_{family}_through_aioquic_past_an_unknown_capsule", " 5 received" in done.stdout, done.stdout[-300:]
    world.stop("up")
    left = world.run("client", "nft", "list", "ruleset").stdout
    yield "bauta_leaves_nothing_behind", left.strip() == "", left[-300:] + log.read_text()[-300:]
