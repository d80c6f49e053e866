"""IP packets by hand: just enough to ping, to send UDP and to read ICMP errors (RFC 791, 792, 768, 8200, 4443)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

from .wire import Address, Malformed

ICMP, UDP, ICMP6 = 1, 17, 58


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: Address, target: Address, protocol: int, length: int) -> bytes:
    if source.version == 4:
        return source.packed + target.packed + struct.pack(">BBH", 0, protocol, length)
    return source.packed + target.packed + struct.pack(">IBBBB", length, 0, 0, 0, protocol)


def ip(source: Address, target: Address, protocol: int, payload: bytes, ttl: int = 64, df: bool = True) -> bytes:
    """One IP packet of the addresses' family."""
    if source.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(payload), protocol, ttl) + source.packed + target.packed + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0x4000 if df else 0, ttl, protocol, 0)
    head += source.packed + target.packed
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def echo(source: Address, target: Address, ident: int, seq: int, data: bytes = b"bauta", ttl: int = 64, reply: bool = False) -> bytes:
    """An ICMP or ICMPv6 echo request, or its reply."""
    if source.version == 4:
        body = struct.pack(">BBHHH", 0 if reply else 8, 0, 0, ident, seq) + data
        body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
        return ip(source, target, ICMP, body, ttl)
    body = struct.pack(">BBHHH", 129 if reply else 128, 0, 0, ident, seq) + data
    total = checksum(_pseudo(source, target, ICMP6, len(body)) + body)
    return ip(source, target, ICMP6, body[:2] + struct.pack(">H", total) + body[4:], ttl)


def udp(source: Address, target: Address, sport: int, dport: int, data: bytes, ttl: int = 64) -> bytes:
    """A UDP datagram with its checksum."""
    body = struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data
    total = checksum(_pseudo(source, target, UDP, len(body)) + body) or 0xFFFF
    return ip(source, target, UDP, body[:6] + struct.pack(">H", total) + body[8:], ttl)


@dataclass(frozen=True)
class Packet:
    """What a received packet says. IPv6 extension headers are not walked: nothing here sends any."""

    source: Address
    target: Address
    protocol: int
    ttl: int
    payload: bytes

    @classmethod
    def read(cls, data: bytes) -> Packet:
        if len(data) >= 20 and data[0] >> 4 == 4:
            header = (data[0] & 15) * 4
            length = struct.unpack_from(">H", data, 2)[0]
            if header < 20 or length != len(data) or checksum(data[:header]):
                raise Malformed(f"an IPv4 packet with a bad header: {data[:header].hex()}")
            return cls(ip_address(data[12:16]), ip_address(data[16:20]), data[9], data[8], data[header:])
        if len(data) >= 40 and data[0] >> 4 == 6:
            if struct.unpack_from(">H", data, 4)[0] != len(data) - 40:
                raise Malformed("an IPv6 packet of the wrong length")
            return cls(ip_address(data[8:24]), ip_address(data[24:40]), data[6], data[7], data[40:])
        raise Malformed(f"not an IP packet: {data[:40].hex()}")

    @property
    def icmp(self) -> tuple[int, int] | None:
        """Type and code, with the checksum verified."""
        if self.protocol == ICMP and len(self.payload) >= 8:
            bad = checksum(self.payload)
        elif self.protocol == ICMP6 and len(self.payload) >= 8:
            bad = checksum(_pseudo(self.source, self.target, ICMP6, len(self.payload)) + self.payload)
        else:
            return None
        if bad:
            raise Malformed("an ICMP message with a wrong checksum")
        return self.payload[0], self.payload[1]

    def answers(self, ident: int, seq: int) -> bool:
        """Whether this is the echo reply to that request."""
        return self.icmp in ((0, 0), (129, 0)) and struct.unpack_from(">HH", self.payload, 4) == (ident, seq)

    @property
    def mtu(self) -> int | None:
        """The MTU of a Packet Too Big (RFC 4443 section 3.2) or Fragmentation Needed (RFC 1191 section 4)."""
        if self.icmp == (2, 0) and self.protocol == ICMP6:
            return struct.unpack_from(">I", self.payload, 4)[0]
        if self.icmp == (3, 4) and self.protocol == ICMP:
            return struct.unpack_from(">H", self.payload, 6)[0]
        return None

    @property
    def quoted(self) -> bytes:
        """The packet that an ICMP error is about."""
        return self.payload[8:]
