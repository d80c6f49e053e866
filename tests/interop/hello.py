"""What a ClientHello and the first frames of HTTP/2 say: bytes to plain values. What each connection draws anew is left out."""

import hashlib

from aioquic.buffer import Buffer

GREASE_PARAMETER = 27  # of every 31 ids
SERVER_NAME, ALPN, KEY_SHARE, COMPRESS, PARAMETERS = 0, 16, 51, 27, 57
APPLICATION_SETTINGS, TRUST_ANCHORS = 0x44CD, 0xCA34
SETTINGS, HEADERS, WINDOW_UPDATE = 4, 1, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# HPACK's static table, where it names pseudo-header fields (RFC 7541 appendix A).
PSEUDO = {1: "a", 2: "m", 3: "m", 4: "p", 5: "p", 6: "s", 7: "s"}


def list16(data):
    return [int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2)]


def steady(values):
    """Without GREASE (RFC 8701)."""
    return [v for v in values if not (v & 0x0F0F == 0x0A0A and v >> 8 == v & 0xFF)]


def take_apart(hello):
    """Cipher suites and extensions of a ClientHello's body."""
    buf = Buffer(data=hello)
    buf.pull_bytes(34)
    buf.pull_bytes(buf.pull_uint8())
    ciphers = list16(buf.pull_bytes(buf.pull_uint16()))
    buf.pull_bytes(buf.pull_uint8())
    extensions, end = {}, buf.pull_uint16() + buf.tell()
    while buf.tell() < end:
        kind = buf.pull_uint16()
        extensions[kind] = buf.pull_bytes(buf.pull_uint16())
    return ciphers, extensions


def names(data):
    """A list of protocol names."""
    found, at = [], 2
    while at < len(data):
        found.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    return found


def describe(hello, transport):
    """The fields that TLS has over both transports, `q` for QUIC and `t` for TCP as in JA4."""
    ciphers, extensions = take_apart(hello)
    shares, data = [], extensions[KEY_SHARE][2:]
    while data:
        shares.append(int.from_bytes(data[:2], "big"))
        data = data[4 + int.from_bytes(data[2:4], "big"):]
    algorithms = steady(list16(extensions[13][2:]))
    kinds, suites = sorted(steady(extensions)), sorted(steady(ciphers))
    shown = [k for k in kinds if k not in (SERVER_NAME, ALPN)]
    alpn = names(extensions[ALPN])
    digest = lambda text: hashlib.sha256(text.encode()).hexdigest()[:12]
    word = lambda values: ",".join(f"{v:04x}" for v in values)
    ja4 = (
        f"{transport}13d{len(suites):02}{len(kinds):02}{alpn[0][0]}{alpn[0][-1]}_{digest(word(suites))}_"
        f"{digest(word(shown) + '_' + word(algorithms))}"
    )
    return {
        "ja4": ja4,
        "cipher_suites": steady(ciphers),
        "extensions": kinds,
        "grease": len(kinds) != len(extensions),
        "groups": steady(list16(extensions[10][2:])),
        "key_shares": steady(shares),
        "signature_algorithms": algorithms,
        "compress_certificate": extensions.get(COMPRESS, b"").hex(),
        "alpn": alpn,
        "application_settings": names(extensions.get(APPLICATION_SETTINGS, b"")),
        "trust_anchors": extensions.get(TRUST_ANCHORS, b"\0\0")[2:].hex(),
    }


def parameters(hello):
    """Transport parameters (RFC 9000 section 18), but for GREASE and the connection id."""
    found, source = [], Buffer(data=take_apart(hello)[1][PARAMETERS])
    while not source.eof():
        ident, length = source.pull_uint_var(), source.pull_uint_var()
        value = source.pull_bytes(length)
        if ident % 31 == GREASE_PARAMETER or ident == 15:
            continue
        if ident == 17:  # version_information: chosen and offered, the offers' GREASE version left out
            versions = [value[i:i + 4] for i in range(0, len(value), 4)]
            value = b"".join(v for v in versions if any(b & 0x0F != 0x0A for b in v))
        number = length in (1, 2, 4, 8) and ident < 0x40 and ident not in (0, 2, 15, 16, 17)
        found.append({"id": ident, "value": Buffer(data=value).pull_uint_var() if number else value.hex()})
    return sorted(found, key=lambda p: p["id"])


def http2(data):
    """The client's first SETTINGS, the window it opens for the connection, and the order of pseudo-header fields of its first
    request, as letters; None while the first two have not come."""
    if not data.startswith(PREFACE):
        return None
    at, found = len(PREFACE), {}
    while at + 9 <= len(data):
        length, kind, stream = int.from_bytes(data[at:at + 3], "big"), data[at + 3], int.from_bytes(data[at + 5:at + 9], "big")
        flags, body = data[at + 4], data[at + 9:at + 9 + length]
        if len(body) < length:
            break
        at += 9 + length
        if kind == SETTINGS and "settings" not in found:
            pairs = [(int.from_bytes(body[i:i + 2], "big"), int.from_bytes(body[i + 2:i + 6], "big")) for i in range(0, length, 6)]
            found["settings"] = [list(pair) for pair in pairs]
        elif kind == WINDOW_UPDATE and stream == 0:
            found["window_update"] = int.from_bytes(body, "big")
        elif kind == HEADERS:
            skip = (1 if flags & 8 else 0) + (5 if flags & 32 else 0)
            found["pseudo_headers"] = pseudo(body[skip:])
    return found if "settings" in found and "window_update" in found else None


def pseudo(block):
    """The leading fields of a header block whose names the static table has."""
    order, at = "", 0
    while at < len(block):
        byte = block[at]
        indexed = byte & 0x80
        index = byte & (0x7F if indexed else 0x3F if byte & 0x40 else 0x0F)
        if index not in PSEUDO:
            break
        order += PSEUDO[index]
        at += 1
        if not indexed:  # a literal value; those of requests are shorter than 127 bytes
            at += 1 + (block[at] & 0x7F)
    return order
