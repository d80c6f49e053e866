"""A MASQUE client over HTTP/3: CONNECT-UDP (RFC 9298) and CONNECT-IP (RFC 9484)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from aioquic.quic.connection import QuicConnection

from . import wire
from .h3 import End, Headers, Stream, configuration


@dataclass
class Proxy:
    """Where the gateway is and how to be let in."""

    host: str
    port: int
    name: str
    token: str | None
    ca: str
    extra: Headers = field(default_factory=list)

    def authority(self) -> bytes:
        return (self.name if self.port == 443 else f"{self.name}:{self.port}").encode()

    def connect(self, protocol: str, path: str, token: str | None = "", extra: Headers | None = None) -> Headers:
        """An extended CONNECT (RFC 9220). `token`: "" is the right one, None is none."""
        headers = [
            (b":method", b"CONNECT"),
            (b":protocol", protocol.encode()),
            (b":scheme", b"https"),
            (b":authority", self.authority()),
            (b":path", path.encode()),
            (b"capsule-protocol", b"?1"),
        ]
        token = self.token if token == "" else token
        if token is not None:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        return headers + self.extra + (extra or [])

    def get(self, path: str, method: str = "GET") -> Headers:
        return [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", self.authority()),
            (b":path", path.encode()),
        ]


def udp_path(host: str, port: int | str) -> str:
    """The default template of CONNECT-UDP, expanded (RFC 9298 section 2): a colon becomes %3A."""
    return f"/.well-known/masque/udp/{quote(host, safe='')}/{port}/"


def ip_path(target: str = "*", ipproto: str = "*") -> str:
    """The default template of CONNECT-IP, expanded (RFC 9484 section 3): a slash becomes %2F."""
    return f"/.well-known/masque/ip/{quote(target, safe='*')}/{quote(ipproto, safe='*')}/"


@asynccontextmanager
async def connected(proxy: Proxy, *, datagrams: int | None = 65535, setting: int | None = 1, stalled: bool = False):
    """A QUIC connection to the proxy. `setting` is what H3_DATAGRAM says; `stalled` never grants more stream data."""
    config = configuration(True, datagrams)
    config.server_name = proxy.name
    config.load_verify_locations(proxy.ca)
    if stalled:
        config.max_stream_data = 1024
    quic = QuicConnection(configuration=config)
    quic.datagram_setting = setting
    if stalled:
        quic._write_stream_limits = lambda builder, space, stream: None
    loop = asyncio.get_running_loop()
    info = (await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_DGRAM))[0]
    sock = socket.socket(info[0], socket.SOCK_DGRAM)
    sock.bind(("", 0) if info[0] == socket.AF_INET else ("::", 0))
    transport, end = await loop.create_datagram_endpoint(lambda: End(quic), sock=sock)
    try:
        end.connect(info[4])
        await asyncio.wait_for(end.wait_connected(), 4)
        yield end
    finally:
        end.close(wire.H3_NO_ERROR)
        try:
            await asyncio.wait_for(end.wait_closed(), 1)
        except TimeoutError:
            pass
        transport.close()


class Refused(Exception):
    """The proxy did not open the tunnel."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(f"status {headers.get(':status')}, proxy-status {headers.get('proxy-status', '-')}")
        self.headers = headers
        self.status = headers.get(":status", "")


async def open_udp(end: End, proxy: Proxy, host: str, port: int | str, **kw) -> Stream:
    """A CONNECT-UDP tunnel."""
    return await opened(end.request(proxy.connect("connect-udp", udp_path(host, port), **kw)))


async def opened(stream: Stream) -> Stream:
    """Waits for a 2xx; anything else is `Refused`."""
    headers = await stream.response()
    if not headers[":status"].startswith("2"):
        raise Refused(headers)
    return stream


async def echoes(stream: Stream, payload: bytes = b"are you there?", tries: int = 3) -> None:
    """Whether the echo server at the other end answers; UDP may lose one."""
    for attempt in range(tries):
        wanted = payload + b"#%d" % attempt
        stream.send_either(wanted)
        try:
            while await stream.datagram(1) != wanted:
                pass
            return
        except TimeoutError:
            stream.raise_if_gone()
    raise AssertionError("no echo came back")
