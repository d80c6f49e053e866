"""An IP tunnel in the hands of a check."""

from __future__ import annotations

import asyncio
import itertools
from ipaddress import ip_address

from peer import packet, wire
from peer.client import ip_path, opened
from peer.h3 import End, Stream
from peer.packet import Packet
from peer.wire import ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT, Assigned

from .lab import Lab

ANY = {4: (ip_address("0.0.0.0"), 32), 6: (ip_address("::"), 128)}
_seq = itertools.count(1)
_ids = itertools.count(1)


class Tunnel:
    """One CONNECT-IP request with what it was assigned."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.assigned: list[Assigned] = []
        self.routes: list[wire.Route] = []

    @classmethod
    async def open(cls, lab: Lab, end: End, target: str = "*", ipproto: str = "*", addresses: bool = True) -> Tunnel:
        """Opens it and, unless told otherwise, asks for an address of each family."""
        tunnel = cls(await opened(end.request(lab.proxy.connect("connect-ip", ip_path(target, ipproto)))))
        if addresses:
            await tunnel.ask(4, 6)
        return tunnel

    async def ask(self, *versions: int) -> dict[int, Assigned]:
        """ADDRESS_REQUEST without preference, and the answer by request id."""
        wanted = [Assigned(next(_ids), *ANY[version]) for version in versions]
        return await self.request(wanted)

    async def request(self, wanted: list[Assigned]) -> dict[int, Assigned]:
        """ADDRESS_REQUEST, and the entries that answer it."""
        self.stream.send_capsule(ADDRESS_REQUEST, wire.addresses(wanted))
        ids = {entry.request for entry in wanted}
        while True:
            kind, value = await self.capsule()
            if kind == ADDRESS_ASSIGN:
                answered = {a.request: a for a in wire.read_addresses(value) if a.request in ids}
                if set(answered) == ids:
                    return answered

    async def capsule(self, timeout: float = 3) -> tuple[int, bytes]:
        """The next capsule; what it says of addresses and routes is kept, and is checked to be well-formed."""
        try:
            kind, value = await self.stream.capsule(timeout)
        except TimeoutError:
            self.stream.raise_if_gone()
            raise TimeoutError("no capsule came") from None
        if kind == ADDRESS_ASSIGN:
            self.assigned = wire.read_addresses(value)
        elif kind == ROUTE_ADVERTISEMENT:
            self.routes = wire.read_routes(value)
        return kind, value

    async def drain(self, quiet: float = 0.3) -> None:
        """Reads capsules until none comes."""
        try:
            while True:
                await self.capsule(quiet)
        except TimeoutError:
            pass

    def address(self, version: int):
        """Our own address of a family."""
        for entry in self.assigned:
            if entry.address.version == version and not entry.refused:
                return entry.address
        raise AssertionError(f"no IPv{version} address was assigned: {self.assigned}")

    def send(self, data: bytes) -> None:
        self.stream.send_either(data)

    async def receive(self, wanted, timeout: float = 1.0) -> Packet | None:
        """The first packet for which `wanted(packet)` holds; None in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (left := deadline - loop.time()) > 0:
            try:
                got = Packet.read(await self.stream.datagram(left))
            except TimeoutError:
                break
            if wanted(got):
                return got
        self.stream.raise_if_gone()
        return None

    async def ping(self, target, size: int = 56, ttl: int = 64, source=None, tries: int = 3) -> Packet:
        """Pings until the reply comes; raises where none does."""
        source = source or self.address(target.version)
        for _ in range(tries):
            seq = next(_seq) & 0xFFFF
            self.send(packet.echo(source, target, 77, seq, bytes(size), ttl))
            reply = await self.receive(lambda got: got.answers(77, seq))
            if reply:
                return reply
        raise AssertionError(f"no reply to a ping of {target}")

    async def error_for(self, data: bytes, is_it, tries: int = 3) -> Packet:
        """Sends a packet until an ICMP error comes for which `is_it(packet)` holds, and which quotes it."""
        seen: list = []

        def wanted(got: Packet) -> bool:
            seen.append((str(got.source), got.protocol, got.icmp))
            # The quoted header may have been through NAT and back, and its TTL has changed: compare the addresses alone.
            return bool(got.icmp) and is_it(got) and addresses_of(got.quoted) == addresses_of(data)

        for _ in range(tries):
            self.send(data)
            got = await self.receive(wanted)
            if got:
                return got
        raise AssertionError(f"no such ICMP error came; what came: {seen}")


def addresses_of(data: bytes) -> bytes:
    """Source and target of a packet that may be cut short."""
    return data[12:20] if data[0] >> 4 == 4 else data[8:40]
