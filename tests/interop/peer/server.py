"""A MASQUE proxy over HTTP/3, small and to the letter, to test clients against.

CONNECT-UDP relays from a connected socket. CONNECT-IP assigns one address of each family, advertises every route and
answers ICMP echo and UDP port 7 by itself, so that it needs neither privileges nor a TUN. Classic CONNECT relays TCP.
Anybody without the token gets a plain 404. What it sees it prints, one line of JSON an event.

    python -m peer.server --listen 127.0.0.1:8443 --cert cert.pem --key key.pem --token T
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
from functools import partial
from ipaddress import ip_address
from urllib.parse import unquote

from aioquic.asyncio import serve

from . import packet, wire
from .h3 import End, Stream, configuration

V4, V6 = ip_address("10.99.0.2"), ip_address("fd99::2")
NONE = {4: wire.Assigned(0, ip_address("0.0.0.0"), 32), 6: wire.Assigned(0, ip_address("::"), 128)}


def say(event: str, **facts) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Relay(asyncio.DatagramProtocol):
    """One connected UDP socket of one CONNECT-UDP request (RFC 9298 section 3.1)."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def datagram_received(self, data: bytes, addr) -> None:
        self.stream.relay(data)

    def error_received(self, exc: OSError) -> None:
        self.stream.abort(wire.H3_REQUEST_CANCELLED)


class Server:
    def __init__(self, token: str, grease: bool) -> None:
        self.token, self.grease = token, grease
        self.tasks: set[asyncio.Task] = set()

    def accept(self, stream: Stream) -> None:
        task = asyncio.ensure_future(self.serve(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, stream: Stream) -> None:
        try:
            await self.route(stream)
        except (wire.Malformed, ValueError, IndexError) as wrong:
            say("malformed", why=str(wrong))
            stream.abort(wire.H3_MESSAGE_ERROR)

    async def route(self, stream: Stream) -> None:
        head = stream.headers
        protocol, path = head.get(":protocol"), head.get(":path", "")
        known = f"Bearer {self.token}" in (head.get("authorization"), head.get("proxy-authorization"))
        parts = path.split("/")
        say("request", method=head.get(":method"), protocol=protocol, path=path, authority=head.get(":authority"), known=known,
            capsule_protocol=head.get("capsule-protocol"))
        if known and head.get(":method") == "CONNECT" and parts[:3] == ["", ".well-known", "masque"] and len(parts) == 7:
            if protocol == "connect-udp" and parts[3] == "udp":
                return await self.udp(stream, unquote(parts[4]), int(parts[5]))
            if protocol == "connect-ip" and parts[3] == "ip":
                return await self.ip(stream)
        if known and head.get(":method") == "CONNECT" and protocol is None:
            return await self.tcp(stream, *head.get(":authority", "").rsplit(":", 1))
        stream.send_headers([(b":status", b"404"), (b"content-type", b"text/plain")])
        stream.send_raw(b"not here\n", fin=True)

    def accepted(self, stream: Stream) -> None:
        stream.send_headers([(b":status", b"200"), (b"capsule-protocol", b"?1")])
        if self.grease:
            stream.send_capsule(0x29 * 7 + 0x17, b"to be skipped")

    async def udp(self, stream: Stream, host: str, port: int) -> None:
        if not host or "%" in host or not 1 <= port <= 65535:
            raise wire.Malformed(f"target {host!r} port {port}")
        loop = asyncio.get_running_loop()
        try:
            socket, _ = await loop.create_datagram_endpoint(lambda: Relay(stream), remote_addr=(host, port))
        except OSError as failed:
            stream.send_headers([(b":status", b"502"), (b"proxy-status", b"peer; error=dns_error")], fin=True)
            return say("unreachable", why=str(failed))
        self.accepted(stream)
        end = asyncio.ensure_future(self.ended(stream))
        try:
            while not end.done():
                try:
                    socket.sendto(await stream.datagram(0.5))
                except TimeoutError:
                    pass
        finally:
            socket.close()
        say("udp closed", path=stream.headers[":path"])

    async def tcp(self, stream: Stream, host: str, port: str) -> None:
        """Classic CONNECT (RFC 9114 section 4.4): bytes both ways."""
        try:
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as failed:
            stream.send_headers([(b":status", b"502")], fin=True)
            return say("unreachable", why=str(failed))
        stream.send_headers([(b":status", b"200")])

        async def down() -> None:
            while data := await reader.read(65536):
                stream.send_raw(data)
            stream.send_raw(fin=True)

        back = asyncio.ensure_future(down())
        self.tasks.add(back)
        back.add_done_callback(self.tasks.discard)
        while not stream.finished.is_set() and not stream.gone.is_set():
            if stream.body:
                data, stream.body = bytes(stream.body), bytearray()
                writer.write(data)
            stream.arrived.clear()
            await stream.arrived.wait()
        writer.write(bytes(stream.body))
        writer.close()

    @staticmethod
    async def ended(stream: Stream) -> None:
        """FIN is answered by FIN, unless it cut a capsule (RFC 9297 section 3.3); a reset has said everything."""
        finished, gone = asyncio.ensure_future(stream.finished.wait()), asyncio.ensure_future(stream.gone.wait())
        await asyncio.wait({finished, gone}, return_when=asyncio.FIRST_COMPLETED)
        if stream.reader.buffer:
            say("malformed", why="a truncated capsule")
            stream.abort(wire.H3_MESSAGE_ERROR)
        elif not gone.done():
            stream.send_raw(fin=True)
        finished.cancel(), gone.cancel()

    async def ip(self, stream: Stream) -> None:
        self.accepted(stream)
        stream.send_capsule(wire.ROUTE_ADVERTISEMENT, wire.routes([
            wire.Route(ip_address("0.0.0.0"), ip_address("255.255.255.255")),
            wire.Route(ip_address("::"), ip_address("f" + "fff:f" * 7 + "fff")),
        ]))
        control = asyncio.ensure_future(self.control(stream))
        end = asyncio.ensure_future(self.ended(stream))
        while not end.done() and not (control.done() and control.exception()):
            try:
                self.answer(stream, await stream.datagram(0.5))
            except TimeoutError:
                pass
        end.cancel(), control.cancel()
        if control.done() and not control.cancelled() and control.exception():
            raise control.exception()
        say("ip closed")

    async def control(self, stream: Stream) -> None:
        held: dict[int, wire.Assigned] = {}
        seen: set[int] = set()
        while True:
            kind, value = await stream.capsule(1e6)
            if kind == wire.ADDRESS_REQUEST:
                wanted = wire.read_addresses(value)
                say("address request", entries=[(w.request, f"{w.address}/{w.prefix}") for w in wanted])
                fresh = {w.request for w in wanted} - seen - {0}
                if not wanted or len(fresh) != len(wanted):
                    raise wire.Malformed("an ADDRESS_REQUEST that is empty, or with id 0, or with an id used before")
                seen |= fresh
                refused = []
                for entry in wanted:
                    version = entry.address.version
                    if version in held:
                        none = NONE[version]
                        refused.append(wire.Assigned(entry.request, none.address, none.prefix))
                    else:
                        mine = V4 if version == 4 else V6
                        held[version] = wire.Assigned(entry.request, mine, mine.max_prefixlen)
                stream.send_capsule(wire.ADDRESS_ASSIGN, wire.addresses([*held.values(), *refused]))
            elif kind == wire.ADDRESS_ASSIGN:
                say("address assign", entries=[str(a.address) for a in wire.read_addresses(value)])
            elif kind == wire.ROUTE_ADVERTISEMENT:
                say("route advertisement", count=len(wire.read_routes(value)))
            else:
                say("unknown capsule", type=kind, bytes=len(value))

    def answer(self, stream: Stream, data: bytes) -> None:
        """Is the whole Internet: answers ping, and UDP to port 7."""
        try:
            got = packet.Packet.read(data)
        except wire.Malformed as wrong:
            return say("bad packet", why=str(wrong))
        if got.source not in (V4, V6):
            return say("foreign source", source=str(got.source), target=str(got.target))
        if got.icmp in ((8, 0), (128, 0)):
            ident, seq = struct.unpack_from(">HH", got.payload, 4)
            say("ping", source=str(got.source), target=str(got.target), ttl=got.ttl)
            stream.relay(packet.echo(got.target, got.source, ident, seq, got.payload[8:], reply=True))
        elif got.protocol == packet.UDP and len(got.payload) >= 8:
            sport, dport = struct.unpack_from(">HH", got.payload)
            if dport == 7:
                say("udp", source=str(got.source), target=str(got.target))
                stream.relay(packet.udp(got.target, got.source, dport, sport, got.payload[8:]))


async def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--listen", required=True)
    args.add_argument("--cert", required=True)
    args.add_argument("--key", required=True)
    args.add_argument("--token", required=True)
    args.add_argument("--grease", action="store_true", help="send an unknown capsule first (RFC 9297 section 3.2)")
    opts = args.parse_args()
    host, _, port = opts.listen.rpartition(":")
    config = configuration(False)
    config.load_cert_chain(opts.cert, opts.key)
    server = Server(opts.token, opts.grease)
    await serve(host.strip("[]"), int(port), configuration=config, create_protocol=partial(End, on_request=server.accept))
    say("listening", on=opts.listen)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
