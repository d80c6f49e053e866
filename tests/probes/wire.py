"""What probes are written with: HTTP/1.1, 2 and 3 by hand, so that it can be wrong."""

from __future__ import annotations

NAME = b"site.test"
Fields = list[tuple[bytes, bytes]]


def varint(value: int) -> bytes:
    """RFC 9000 section 16."""
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def prefixed(value: int, bits: int, first: int) -> bytes:
    """An integer with a prefix of so many bits (RFC 7541 section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def hpack(fields: Fields) -> bytes:
    """Literals without names of the table, Huffman or indexing."""
    return b"".join(b"\0" + prefixed(len(n), 7, 0) + n + prefixed(len(v), 7, 0) + v for n, v in fields)


def qpack(fields: Fields) -> bytes:
    """The same for HTTP/3."""
    return b"\0\0" + b"".join(prefixed(len(n), 3, 0x20) + n + prefixed(len(v), 7, 0) + v for n, v in fields)


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_settings(*pairs: tuple[int, int]) -> bytes:
    return h2_frame(4, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs))


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2_START = PREFACE + h2_settings()


def h2_request(fields: Fields, stream: int = 1, fin: bool = True) -> bytes:
    return h2_frame(1, 4 | int(fin), stream, hpack(fields))


def h3_frame(kind: int, payload: bytes = b"") -> bytes:
    return varint(kind) + varint(len(payload)) + payload


def h3_settings(*pairs: tuple[int, int]) -> bytes:
    return h3_frame(4, b"".join(varint(k) + varint(v) for k, v in pairs))


def h3_control(*pairs: tuple[int, int]) -> bytes:
    """A control stream and its SETTINGS."""
    return b"\0" + h3_settings(*pairs)


def h3_request(fields: Fields) -> bytes:
    return h3_frame(1, qpack(fields))


def capsule(kind: int, value: bytes = b"") -> bytes:
    return varint(kind) + varint(len(value)) + value


def request(method: bytes, path: bytes | None, *extra: tuple[bytes, bytes], authority: bytes = NAME, scheme: bytes | None = b"https") -> Fields:
    """Pseudo-header fields as they belong, and more."""
    fields = [(b":method", method), (b":authority", authority)]
    if scheme is not None:
        fields.append((b":scheme", scheme))
    if path is not None:
        fields.append((b":path", path))
    return fields + [(n, v) for n, v in extra if n.startswith(b":")] + [(n, v) for n, v in extra if not n.startswith(b":")]


def h1(method: bytes, target: bytes, *fields: tuple[bytes, bytes], host: bytes | None = NAME, version: bytes = b"HTTP/1.1", body: bytes = b"") -> bytes:
    lines = [method + b" " + target + b" " + version]
    if host is not None:
        lines.append(b"Host: " + host)
    lines += [n + b": " + v for n, v in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
