"""The wire elements of MASQUE, written from the RFCs and sharing nothing with Bauta's own code.

Variable-length integers (RFC 9000 section 16), capsules (RFC 9297 section 3.2), and the three capsules of
CONNECT-IP (RFC 9484 section 4.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

DATAGRAM = 0x00  # RFC 9297 section 3.5
ADDRESS_ASSIGN = 0x01  # RFC 9484 section 4.7.1
ADDRESS_REQUEST = 0x02  # section 4.7.2
ROUTE_ADVERTISEMENT = 0x03  # section 4.7.3

H3_DATAGRAM_ERROR = 0x33  # RFC 9297 section 5.2
H3_NO_ERROR = 0x100  # RFC 9114 section 8.1, as the rest
H3_ID_ERROR = 0x108
H3_SETTINGS_ERROR = 0x109
H3_REQUEST_CANCELLED = 0x10C
H3_REQUEST_INCOMPLETE = 0x10D
H3_MESSAGE_ERROR = 0x10E


class Malformed(ValueError):
    """What came is not what the RFC says."""


def varint(value: int, width: int | None = None) -> bytes:
    """Encodes an integer; `width` (1, 2, 4, 8 bytes) asks for a longer form than needed."""
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2) and (width is None or size == width):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(f"{value} does not fit in a variable-length integer of {width or 8} bytes")


def read_varint(data: bytes, at: int = 0) -> tuple[int, int]:
    """The integer at `at` and the offset behind it."""
    if at >= len(data):
        raise Malformed("nothing left where an integer should be")
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise Malformed("a truncated integer")
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


def capsule(kind: int, value: bytes = b"", kind_width: int | None = None, length_width: int | None = None) -> bytes:
    """One capsule."""
    return varint(kind, kind_width) + varint(len(value), length_width) + value


class CapsuleReader:
    """Cuts a byte stream into capsules."""

    def __init__(self) -> None:
        self.buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Takes bytes; returns the capsules that are now complete."""
        self.buffer += data
        found = []
        while True:
            try:
                kind, at = read_varint(self.buffer)
                length, at = read_varint(self.buffer, at)
            except Malformed:
                return found
            if len(self.buffer) < at + length:
                return found
            found.append((kind, self.buffer[at : at + length]))
            self.buffer = self.buffer[at + length :]


@dataclass(frozen=True)
class Assigned:
    """An entry of ADDRESS_ASSIGN or ADDRESS_REQUEST: both have the same four fields."""

    request: int
    address: Address
    prefix: int

    def encode(self) -> bytes:
        return varint(self.request) + bytes([self.address.version]) + self.address.packed + bytes([self.prefix])

    @property
    def refused(self) -> bool:
        """Whether this says "none for you": all-zero with the longest prefix (RFC 9484 section 4.7.2)."""
        return int(self.address) == 0 and self.prefix == self.address.max_prefixlen


def addresses(entries: list[Assigned]) -> bytes:
    """The value of an ADDRESS_ASSIGN or ADDRESS_REQUEST capsule."""
    return b"".join(entry.encode() for entry in entries)


def _address(value: bytes, at: int, version: int) -> tuple[Address, int]:
    size = {4: 4, 6: 16}.get(version)
    if size is None:
        raise Malformed(f"IP version {version}")
    if at + size > len(value):
        raise Malformed("a truncated address")
    return ip_address(value[at : at + size]), at + size


def read_addresses(value: bytes) -> list[Assigned]:
    """The entries of an ADDRESS_ASSIGN or ADDRESS_REQUEST, strictly."""
    entries, at = [], 0
    while at < len(value):
        request, at = read_varint(value, at)
        if at >= len(value):
            raise Malformed("an entry without a version")
        address, at = _address(value, at + 1, value[at])
        if at >= len(value):
            raise Malformed("an entry without a prefix length")
        prefix, at = value[at], at + 1
        host_bits = address.max_prefixlen - prefix
        if host_bits < 0:
            raise Malformed(f"prefix length {prefix} for {address}")
        if int(address) & ((1 << host_bits) - 1):
            raise Malformed(f"{address}/{prefix} has bits below its prefix")
        entries.append(Assigned(request, address, prefix))
    return entries


@dataclass(frozen=True)
class Route:
    """An IP Address Range of ROUTE_ADVERTISEMENT."""

    start: Address
    end: Address
    protocol: int = 0

    def encode(self) -> bytes:
        return bytes([self.start.version]) + self.start.packed + self.end.packed + bytes([self.protocol])


def routes(entries: list[Route]) -> bytes:
    """The value of a ROUTE_ADVERTISEMENT capsule."""
    return b"".join(entry.encode() for entry in entries)


def read_routes(value: bytes) -> list[Route]:
    """The ranges of a ROUTE_ADVERTISEMENT; their order (RFC 9484 section 4.7.3) is insisted on."""
    found, at = [], 0
    while at < len(value):
        version = value[at]
        start, at = _address(value, at + 1, version)
        end, at = _address(value, at, version)
        if at >= len(value):
            raise Malformed("a range without a protocol")
        found.append(Route(start, end, value[at]))
        at += 1
        if start > end:
            raise Malformed(f"{start} is above {end}")
    for a, b in zip(found, found[1:]):
        before, after = (a.start.version, a.protocol), (b.start.version, b.protocol)
        if before > after or (before == after and a.end >= b.start):
            raise Malformed(f"{a} must not come before {b}")
    for a in found:
        for b in found:
            same = a.start.version == b.start.version
            if a.protocol == 0 != b.protocol and same and a.start <= b.end and b.start <= a.end:
                raise Malformed(f"{a} overlaps {b}")
    return found
