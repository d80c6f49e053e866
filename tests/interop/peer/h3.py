"""HTTP/3 with HTTP Datagrams over aioquic, for both ends: streams that can be scripted, and bytes that can be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.h3.connection import FrameType, H3Connection, Setting, encode_frame
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamReset

from . import wire

PACKET = 1452  # bytes of a UDP payload: fits IPv6 over Ethernet
Headers = list[tuple[bytes, bytes]]


class Http(H3Connection):
    """aioquic's HTTP/3, saying H3_DATAGRAM without WebTransport (RFC 9297 section 2.1.1)."""

    datagram_setting: int | None = 1

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        if self.datagram_setting is not None:
            settings[Setting.H3_DATAGRAM] = self.datagram_setting
        return settings

    def _init_connection(self) -> None:
        self.datagram_setting = getattr(self._quic, "datagram_setting", 1)
        super()._init_connection()

    def _validate_settings(self, settings: dict[int, int]) -> None:
        # aioquic refuses H3_DATAGRAM of a peer when *it* has not offered datagrams; that is legal in the RFC.
        if self._quic.configuration.max_datagram_frame_size:
            super()._validate_settings(settings)


class Aborted(Exception):
    """The stream or the connection ended by an error code."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} with {code:#x}")
        self.what, self.code = what, code


class Stream:
    """A request: what came on it, and ways to send rightly and wrongly."""

    def __init__(self, end: End, stream_id: int) -> None:
        self.end, self.id = end, stream_id
        self.headers: dict[str, str] = {}
        self.head: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.body = bytearray()
        self.capsules: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.datagrams: asyncio.Queue[bytes] = asyncio.Queue()
        self.reader = wire.CapsuleReader()
        self.arrived = asyncio.Event()  # content, an end or an abort came; for whoever clears it
        self.finished = asyncio.Event()
        self.reset: int | None = None
        self.stopped: int | None = None
        self.gone = asyncio.Event()  # reset, stopped, or the connection is closed

    # Sending

    def send_headers(self, headers: Headers, fin: bool = False) -> None:
        self.end.http.send_headers(self.id, headers, fin)
        self.end.transmit()

    def send_raw(self, data: bytes = b"", fin: bool = False) -> None:
        """Bytes of the request's content: capsules, or what pretends to be."""
        self.end.http.send_data(self.id, data, fin)
        self.end.transmit()

    def send_capsule(self, kind: int, value: bytes = b"", fin: bool = False) -> None:
        self.send_raw(wire.capsule(kind, value), fin)

    def send_datagram(self, payload: bytes, context: bytes = b"\0") -> bool:
        """An HTTP Datagram with a context id; False where QUIC could not carry it."""
        return self.end.send_datagram_frame(wire.varint(self.id // 4) + context + payload)

    def send_either(self, payload: bytes) -> None:
        """As a datagram where it fits, else as a capsule."""
        if not self.send_datagram(payload):
            self.send_capsule(wire.DATAGRAM, b"\0" + payload)

    def relay(self, payload: bytes) -> None:
        """What a proxy does: a datagram where the peer takes any, dropped where this one is too large (RFC 9297 section 3.5)."""
        if (self.end.http.received_settings or {}).get(Setting.H3_DATAGRAM) == 1:
            self.send_datagram(payload)
        else:
            self.send_capsule(wire.DATAGRAM, b"\0" + payload)

    def abort(self, code: int = wire.H3_REQUEST_CANCELLED) -> None:
        self.end._quic.reset_stream(self.id, code)
        self.end.transmit()

    # Receiving

    async def response(self, timeout: float = 4) -> dict[str, str]:
        """The header fields of the answer; raises `Aborted` where none comes."""
        gone = asyncio.ensure_future(self.gone.wait())
        await asyncio.wait({self.head, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if self.head.done():
            return self.head.result()
        self.raise_if_gone()
        raise TimeoutError("no answer")

    async def content(self, timeout: float = 4) -> bytes:
        """The whole content of the answer."""
        await asyncio.wait_for(self.finished.wait(), timeout)
        return bytes(self.body)

    async def capsule(self, timeout: float = 3) -> tuple[int, bytes]:
        return await asyncio.wait_for(self.capsules.get(), timeout)

    async def datagram(self, timeout: float = 3) -> bytes:
        """The next payload under context 0, by datagram or by capsule (RFC 9298 section 5, RFC 9484 section 6)."""
        while True:
            data = await asyncio.wait_for(self.datagrams.get(), timeout)
            context, at = wire.read_varint(data)
            if context == 0:
                return data[at:]

    async def aborted(self, timeout: float = 3) -> int:
        """Waits for the peer to abort this stream (or the connection); the code."""
        await asyncio.wait_for(self.gone.wait(), timeout)
        return next(code for code in (self.reset, self.stopped, self.end.closed_with) if code is not None)

    def raise_if_gone(self) -> None:
        if self.reset is not None:
            raise Aborted("the stream was reset", self.reset)
        if self.end.closed_with is not None:
            raise Aborted("the connection was closed", self.end.closed_with)
        if self.stopped is not None:
            raise Aborted("the stream was stopped", self.stopped)


class End(QuicConnectionProtocol):
    """One end of a connection."""

    def __init__(self, quic: QuicConnection, stream_handler=None, *, on_request: Callable[[Stream], None] | None = None) -> None:
        super().__init__(quic, stream_handler)
        self.http = Http(quic)
        self.streams: dict[int, Stream] = {}
        self.closed_with: int | None = None
        self.closed_why = ""
        self.on_request = on_request

    def stream(self, stream_id: int) -> Stream:
        if stream_id not in self.streams:
            self.streams[stream_id] = Stream(self, stream_id)
        return self.streams[stream_id]

    def open(self) -> Stream:
        """A new request stream; nothing is sent yet."""
        stream = self.stream(self._quic.get_next_available_stream_id())
        self._quic.send_stream_data(stream.id, b"")  # takes the id
        return stream

    def request(self, headers: Headers, fin: bool = False) -> Stream:
        stream = self.open()
        stream.send_headers(headers, fin)
        return stream

    def raw_headers(self, stream: Stream, headers: Headers, fin: bool = False) -> None:
        """A HEADERS frame past aioquic's own state."""
        block = self.http._encode_headers(stream.id, headers)
        self._quic.send_stream_data(stream.id, encode_frame(FrameType.HEADERS, block), fin)
        self.transmit()

    @property
    def datagram_room(self) -> int:
        """The longest DATAGRAM frame payload that one packet carries; aioquic would queue a longer one for ever."""
        packet = self._quic._max_datagram_size - 1 - len(self._quic._peer_cid.cid) - 2 - 16 - 3
        return min(packet, (self._quic._remote_max_datagram_frame_size or 0) - 3)

    def send_datagram_frame(self, data: bytes) -> bool:
        """Raw content of a QUIC DATAGRAM frame (RFC 9221); False where it is too long."""
        if len(data) > self.datagram_room:
            return False
        self._quic.send_datagram_frame(data)
        self.transmit()
        return True

    async def settings(self, timeout: float = 3) -> dict[int, int]:
        """The peer's SETTINGS."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self.http.received_settings is None:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError("no SETTINGS")
            await asyncio.sleep(0.01)
        return self.http.received_settings

    async def closed(self, timeout: float = 3) -> int:
        """Waits for the peer to close the connection; the code."""
        await asyncio.wait_for(self.wait_closed(), timeout)
        return -1 if self.closed_with is None else self.closed_with

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.closed_with, self.closed_why = event.error_code, event.reason_phrase
            for stream in self.streams.values():
                stream.gone.set()
        elif isinstance(event, StreamReset):
            stream = self.stream(event.stream_id)
            stream.reset = event.error_code
            stream.gone.set()
        elif isinstance(event, StopSendingReceived) and event.stream_id in self.streams:
            stream = self.stream(event.stream_id)
            stream.stopped = event.error_code
            # "stop sending, I need no more" after a full answer is no abort (RFC 9114 section 4.1)
            if event.error_code != wire.H3_NO_ERROR:
                stream.gone.set()
        if stream_of := self.streams.get(getattr(event, "stream_id", -1)):
            stream_of.arrived.set()
        for http in self.http.handle_event(event):
            if isinstance(http, HeadersReceived):
                self._headers(self.stream(http.stream_id), http)
            elif isinstance(http, DataReceived):
                stream = self.stream(http.stream_id)
                stream.body += http.data
                for kind, value in stream.reader.feed(http.data):
                    (stream.datagrams if kind == wire.DATAGRAM else stream.capsules).put_nowait(
                        value if kind == wire.DATAGRAM else (kind, value)
                    )
                if http.stream_ended:
                    stream.finished.set()
            elif isinstance(http, DatagramReceived) and http.stream_id in self.streams:
                self.stream(http.stream_id).datagrams.put_nowait(http.data)

    def _headers(self, stream: Stream, event: HeadersReceived) -> None:
        if event.stream_ended:
            stream.finished.set()
        if stream.head.done():
            return  # trailers
        stream.headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        if stream.headers.get(":status", "").startswith("1"):
            return
        stream.head.set_result(stream.headers)
        if self.on_request:
            self.on_request(stream)


def configuration(is_client: bool, datagrams: int | None = 65535) -> QuicConfiguration:
    """The QUIC settings of both ends; `datagrams` is max_datagram_frame_size (RFC 9221 section 3)."""
    return QuicConfiguration(
        is_client=is_client,
        alpn_protocols=["h3"],
        max_datagram_frame_size=datagrams,
        max_datagram_size=PACKET,
        idle_timeout=20,
    )
