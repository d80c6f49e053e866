"""HTTP/1.1 and HTTP/2 probes: TLS over a socket of our own, so that its records can be seen."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time

from probe import Probe, Reset, Send, Trace, Wait

HANDSHAKE = 10.0  # seconds; the machine may be busy
APPLICATION = 23  # record type


class Tls:
    """A TLS client over memory, with the lengths of the records that came after the handshake."""

    def __init__(self, address: str, ca: str, probe: Probe, session: ssl.SSLSession | None) -> None:
        tls = dict(probe.tls)
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = False
        alpn = tls.get("alpn", {"h1": "http/1.1", "h2": "h2"}[probe.carrier])
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        if session is not None:
            context = session[1]
        self.context = context
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = tls.get("sni", "site.test")
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session and session[0])
        self.socket = socket.create_connection((address, 443), timeout=HANDSHAKE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.records: list[int] = []
        self.raw = bytearray()
        self.end: str | None = None
        self.shaken = False

    def flush(self) -> None:
        if data := self.outgoing.read():
            try:
                self.socket.sendall(data)
            except OSError:
                self.end = self.end or "broken"

    def receive(self, timeout: float) -> bool:
        """Takes what comes within `timeout`; whether anything did."""
        if self.end or not select.select([self.socket], [], [], max(timeout, 0))[0]:
            return False
        try:
            data = self.socket.recv(65536)
        except OSError:
            self.end = "reset"
            return True
        if not data:
            self.end = "closed"
            self.incoming.write_eof()
            return True
        self.incoming.write(data)
        self.raw += data
        while len(self.raw) >= 5 and len(self.raw) >= 5 + (length := int.from_bytes(self.raw[3:5], "big")):
            if self.shaken and self.raw[0] == APPLICATION:
                self.records.append(length)
            del self.raw[: 5 + length]
        return True

    def handshake(self) -> str | None:
        """The error of a handshake that failed."""
        deadline = time.monotonic() + HANDSHAKE
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                self.shaken = True
                return None
            except ssl.SSLWantReadError:
                self.flush()
                if self.end or time.monotonic() > deadline:
                    return self.end or "silent"
                self.receive(deadline - time.monotonic())
            except ssl.SSLError as error:
                self.flush()
                return f"tls: {error.reason}"

    def read(self) -> bytes:
        got = bytearray()
        try:
            while data := self.tls.read(65536):
                got += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.end = f"{self.end or 'open'}, close_notify"
        except ssl.SSLError as error:
            self.end = f"tls: {error.reason}"
        return bytes(got)


def run(address: str, ca: str, probe: Probe, quiet: float, session=None) -> Trace:
    """One probe; `quiet` seconds without a byte are the end of an answer."""
    end = Tls(address, ca, probe, session)
    trace = Trace()
    try:
        if failed := end.handshake():
            trace.content = {"handshake": failed}
            return trace
        got = bytearray()
        for step in probe.steps:
            match step:
                case Send(data, _, fin):
                    at = 0
                    while at < len(data) and not end.end:
                        at += end.tls.write(data[at : at + 16384])
                        end.flush()
                    if fin:
                        end.socket.shutdown(socket.SHUT_WR)
                case Wait():
                    last = time.monotonic()
                    while not end.end and time.monotonic() < last + quiet:
                        if end.receive(last + quiet - time.monotonic()):
                            last = time.monotonic()
                            got += end.read()
                            end.flush()
                case Reset():
                    end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.socket.close()
                    return trace
        if dict(probe.tls).get("again") and session is None and end.tls.session:
            again = run(address, ca, probe, quiet, (end.tls.session, end.context))
            again.content["first"] = bytes(got)
            return again
        trace.content = {"bytes": bytes(got), "end": end.end, "alpn": end.tls.selected_alpn_protocol(), "version": end.tls.version(),
                         "cipher": end.tls.cipher(), "resumed": end.tls.session_reused}  # fmt: skip
        trace.shape = tuple(end.records)
        return trace
    finally:
        end.socket.close()
