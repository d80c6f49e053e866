"""A probe: what is sent, step by step, and what came back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Send:
    """Bytes of the TLS stream (HTTP/1.1 and 2), or of a QUIC stream."""

    data: bytes
    stream: int = 0
    fin: bool = False


@dataclass(frozen=True)
class Datagram:
    """A QUIC DATAGRAM frame."""

    data: bytes


@dataclass(frozen=True)
class Reset:
    """RESET_STREAM and, with `stop`, STOP_SENDING; over TCP an RST."""

    stream: int = 0
    code: int = 0x10C
    stop: bool = False


@dataclass(frozen=True)
class Wait:
    """Waits until the other end has been quiet for a while."""


@dataclass(frozen=True)
class Packet:
    """A UDP payload without a connection."""

    data: bytes


Step = Send | Datagram | Reset | Wait | Packet


@dataclass(frozen=True)
class Probe:
    """`carrier` is h1, h2, h3 or udp; `tls` changes the handshake: alpn, sni, again (a resumed one)."""

    name: str
    carrier: str
    steps: tuple[Step, ...]
    tls: tuple[tuple[str, object], ...] = ()


@dataclass
class Trace:
    """What came back. `shape` is what hangs on timing too: lengths of packets and records."""

    content: dict[str, object] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
