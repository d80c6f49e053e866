"""HTTP/3 probes over aioquic's transport, with streams written by hand; and bare UDP."""

from __future__ import annotations

import asyncio
import socket

from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (ConnectionTerminated, DatagramFrameReceived, HandshakeCompleted, QuicEvent, StopSendingReceived, StreamDataReceived,
                                 StreamReset)
from aioquic.quic.logger import QuicLogger

from probe import Datagram, Packet, Probe, Reset, Send, Trace, Wait

SOON = 0.3  # seconds: a first look
HANDSHAKE = 10.0  # seconds; the machine may be busy
# Of each connection its own, by chance or by its ids.
CHANCE = {"stateless_reset_token", "original_destination_connection_id", "initial_source_connection_id", "retry_source_connection_id", "owner"}
TELLING = {"stream", "reset_stream", "stop_sending", "datagram", "connection_close"}


class End(QuicConnectionProtocol):
    """Collects."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self.streams: dict[int, bytearray] = {}
        self.ends: list[tuple] = []
        self.datagrams: list[bytes] = []
        self.closed: tuple | None = None
        self.shaken = asyncio.Event()
        self.news = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case HandshakeCompleted():
                self.shaken.set()
            case StreamDataReceived(data=data, end_stream=fin, stream_id=stream):
                self.streams.setdefault(stream, bytearray()).extend(data)
                if fin:
                    self.ends.append((stream, "fin"))
            case StreamReset(error_code=code, stream_id=stream):
                self.ends.append((stream, "reset", code))
            case StopSendingReceived(error_code=code, stream_id=stream):
                self.ends.append((stream, "stop", code))
            case DatagramFrameReceived(data=data):
                self.datagrams.append(data)
            case ConnectionTerminated(error_code=code, frame_type=frame, reason_phrase=reason):
                self.closed = (code, frame, reason)
                self.shaken.set()
            case _:
                return
        self.news.set()

    async def quiet(self, seconds: float) -> None:
        """Until nothing has happened for so long."""
        while self.closed is None:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), seconds)
            except TimeoutError:
                return


def transport_parameters(events: list[dict]) -> dict:
    for event in events:
        if event["name"] == "transport:parameters_set" and event["data"].get("owner") == "remote":
            return {name: value for name, value in event["data"].items() if name not in CHANCE}
    return {}


def lengths(events: list[dict]) -> tuple[int, ...]:
    """Of the packets that carry something of an answer."""
    packets = (event["data"] for event in events if event["name"] == "transport:packet_received")
    return tuple(packet["raw"]["length"] for packet in packets
                 if packet["header"]["packet_type"] == "1RTT" and any(frame["frame_type"] in TELLING for frame in packet["frames"]))  # fmt: skip


async def run(address: str, ca: str, probe: Probe, quiet: float, ticket=None) -> Trace:
    tls, logger, tickets = dict(probe.tls), QuicLogger(), []
    config = QuicConfiguration(is_client=True, alpn_protocols=[tls.get("alpn", "h3")], max_datagram_frame_size=65535, quic_logger=logger, idle_timeout=30)
    config.server_name = tls.get("sni", "site.test")
    config.load_verify_locations(ca)
    config.verify_mode = 0 if "sni" in tls else config.verify_mode
    config.session_ticket = ticket
    quic = QuicConnection(configuration=config, session_ticket_handler=tickets.append)
    loop = asyncio.get_running_loop()
    transport, end = await loop.create_datagram_endpoint(lambda: End(quic), local_addr=("127.0.0.1", 0))
    try:
        end.connect((address, 443))
        try:
            await asyncio.wait_for(end.shaken.wait(), HANDSHAKE)
        except TimeoutError:
            return Trace({"handshake": "silent"})
        # At a second look the path's MTU is known before anything is asked, so that answers are cut alike.
        await asyncio.sleep(quiet - SOON if quiet > SOON else 0)
        for step in probe.steps:
            if end.closed is not None:
                break
            match step:
                case Send(data, stream, fin):
                    quic.send_stream_data(stream, data, fin)
                case Datagram(data):
                    quic.send_datagram_frame(data)
                case Reset(stream, code, stop):
                    try:
                        quic.reset_stream(stream, code)
                        if stop:
                            quic.stop_stream(stream, code)
                    except ValueError:
                        pass  # both sides of it have ended, so that there is nothing left to reset
                case Wait():
                    end.transmit()
                    await end.quiet(quiet)
        if tls.get("again") and ticket is None and tickets:
            end.close()
            end.transmit()
            again = await run(address, ca, probe, quiet, tickets[0])
            again.content |= {"ticket": (tickets[0].max_early_data_size, len(tickets))}
            return again
        content = {"streams": {stream: bytes(data) for stream, data in sorted(end.streams.items())}, "ends": sorted(end.ends), "datagrams": end.datagrams,
                   "closed": end.closed, "resumed": quic.tls.session_resumed if end.closed is None else None}  # fmt: skip
        end.close()
        end.transmit()
        events = logger.to_dict()["traces"][0]["events"]
        content["parameters"] = transport_parameters(events)
        return Trace(content, lengths(events))
    finally:
        transport.close()


async def bare(address: str, probe: Probe, quiet: float) -> Trace:
    """UDP payloads without a connection: lengths and first bytes of what comes back, which is random beyond."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((address, 443))
    answers = []
    try:
        for step in probe.steps:
            if isinstance(step, Packet):
                await loop.sock_sendall(sock, step.data) if step.data else sock.send(b"")
                continue
            try:
                while True:
                    answer = await asyncio.wait_for(loop.sock_recv(sock, 65536), quiet)
                    # Version negotiation echoes ids behind seven arbitrary bits (RFC 9000 section 17.2.1); a stateless
                    # reset is noise but for two bits.
                    fixed = answer[0] >> 7 if answer[1:5] == bytes(4) else answer[0] >> 6
                    answers.append((len(answer), fixed, answer[1:] if answer[0] & 0x80 else b""))
            except TimeoutError:
                pass
            except OSError as error:
                answers.append((str(error),))
        return Trace({"answers": answers})
    finally:
        sock.close()
