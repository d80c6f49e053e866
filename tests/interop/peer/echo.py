"""The Internet's UDP services, to be reached through the tunnels.

A payload comes back as it went, except that `SIZE n` brings n bytes (with Don't Fragment) or `EMSGSIZE m` when this host
has learned that only m fit, `FORCE n` brings n bytes whatever it has learned, `MTU` what it knows of the path's MTU, and
`FROM` the sender's address.

    python -m peer.echo 203.0.113.10:7 [2001:db8:2::10]:7
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE, IP_MTU = 10, 2, 3, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24


def known_mtu(family: int, local, peer) -> int:
    """What the kernel believes about the path to a peer."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((local[0], 0))
        probe.connect(peer)
        if family == socket.AF_INET:
            return probe.getsockopt(socket.IPPROTO_IP, IP_MTU)
        return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)


def discover(sock: socket.socket, how: int) -> None:
    """Never fragments; with PROBE, sends what is larger than the known path MTU all the same."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, how)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, how)


def answer(sock: socket.socket, data: bytes, peer) -> bytes:
    if data.startswith((b"SIZE ", b"FORCE ")):
        return b"x" * min(int(data.split()[1]), 65507)
    if data == b"MTU":
        return b"%d" % known_mtu(sock.family, sock.getsockname(), peer)
    if data == b"FROM":
        return peer[0].encode()
    return data


def ready(sock: socket.socket) -> None:
    try:
        data, peer = sock.recvfrom(65536)
    except OSError:
        return  # an ICMP error about an earlier answer
    try:
        reply = answer(sock, data, peer)
        discover(sock, IP_PMTUDISC_PROBE if data.startswith(b"FORCE ") else IP_PMTUDISC_DO)
        sock.sendto(reply, peer)
    except OSError as failed:
        if failed.errno == errno.EMSGSIZE:
            sock.sendto(b"EMSGSIZE %d" % known_mtu(sock.family, sock.getsockname(), peer), peer)


async def main(addresses: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((host, int(port)))
        discover(sock, IP_PMTUDISC_DO)
        loop.add_reader(sock, ready, sock)
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        pass
