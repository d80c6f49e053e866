#!/usr/bin/env python3
"""What a client's first flight shows, over QUIC and over TCP: captured from real programs, compared, or written down.

  fingerprint.py compare [COMMAND…]  runs Chromium and COMMAND against a UDP port that is silent and a TCP port of the same number that
                                     speaks TLS, and compares ClientHello, transport parameters, datagrams and HTTP/2's first frames.
                                     {port} and {pin} in COMMAND's words are replaced; without it, it is `bauta check` of target/debug
                                     (BAUTA names another). Exit 1 if they differ.
  fingerprint.py recapture           writes Chromium's to masque/io/fingerprint/chromium.json, which the client is built with.

Needs chromium and aioquic (tests/interop/setup). Everything stays on loopback. What each connection draws anew, GREASE, the
order of extensions and parameters, is left out of the comparison.
"""
import base64
import hashlib
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion, pull_quic_header

import hello

NAME = "site.test"
ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "masque/io/fingerprint/chromium.json"
PATIENCE = 60  # seconds for a first flight; browsers start slowly on a busy machine
LATER = 3  # seconds for HTTP/2's first request, which not every client makes
# What stands in the way of these is in masque/io/fingerprint/README.md.
KNOWN = {"quic.source_cid", "quic.destination_cid", "tcp.http2.pseudo_headers"}


class Flight:
    """The Initials of one connection, until its ClientHello is whole."""

    def __init__(self, dcid, scid):
        self.dcid, self.scid, self.sizes, self.crypto = dcid, scid, [], {}
        self.keys = CryptoPair()
        self.keys.setup_initial(cid=dcid, is_client=False, version=QuicProtocolVersion.VERSION_1)

    def take(self, datagram, header_end, packet_end):
        self.sizes.append(len(datagram))
        plain = self.keys.decrypt_packet(datagram[:packet_end], header_end, 0)[1]
        buf = Buffer(data=plain)
        while not buf.eof():
            kind = buf.pull_uint_var()
            if kind in (0, 1):
                continue
            if kind != 6:
                raise ValueError(f"frame {kind} in an Initial")
            offset, length = buf.pull_uint_var(), buf.pull_uint_var()
            self.crypto[offset] = buf.pull_bytes(length)

    def hello(self):
        """The ClientHello's body, or None while pieces are missing."""
        whole = bytearray()
        for offset in sorted(self.crypto):
            if offset > len(whole):
                return None
            piece = self.crypto[offset]
            whole[offset:offset + len(piece)] = piece
        length = int.from_bytes(whole[1:4], "big")
        return bytes(whole[4:4 + length]) if len(whole) >= 4 and len(whole) >= 4 + length else None


def over_quic(sock, deadline):
    """Waits for a whole ClientHello on a port that never answers."""
    flights = {}
    while time.monotonic() < deadline:
        sock.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            datagram = sock.recv(65535)
        except TimeoutError:
            break
        buf = Buffer(data=datagram)
        header = pull_quic_header(buf, host_cid_length=8)
        if header.version != 1:
            continue
        key = header.destination_cid
        flight = flights.setdefault(key, Flight(key, header.source_cid))
        flight.take(datagram, buf.tell(), header.packet_length)
        if said := flight.hello():
            return {
                **hello.describe(said, "q"),
                "transport_parameters": hello.parameters(said),
                "datagram": max(flight.sizes),
                "datagrams": len(flight.sizes),
                "destination_cid": len(flight.dcid),
                "source_cid": len(flight.scid),
            }
    raise SystemExit("fingerprint: no ClientHello came over QUIC")


def over_tcp(listener, context, deadline):
    """Completes handshakes until one has begun HTTP/2."""
    while time.monotonic() < deadline:
        listener.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            stream, _ = listener.accept()
        except TimeoutError:
            break
        with stream:
            stream.settimeout(10)
            try:
                raw, plain = converse(stream, context)
            except (ssl.SSLError, TimeoutError, ConnectionError, EOFError) as failed:
                print(f"a connection over TCP came to nothing: {failed}", file=sys.stderr)
                continue
        # A record's header, then that of the handshake message.
        said = raw[9:9 + int.from_bytes(raw[6:9], "big")]
        return {**hello.describe(said, "t"), "http2": hello.http2(plain)}
    raise SystemExit("fingerprint: no handshake over TCP came to its end")


def converse(stream, context):
    """What the client sends first: before decryption, and after it."""
    incoming, outgoing, raw, plain = ssl.MemoryBIO(), ssl.MemoryBIO(), b"", b""
    tls, done, until = context.wrap_bio(incoming, outgoing, server_side=True), False, None
    while True:
        try:
            if not done:
                tls.do_handshake()
                done = True
            while piece := tls.read(65536):
                plain += piece
        except ssl.SSLWantReadError:
            pass
        finally:
            if outgoing.pending:
                stream.sendall(outgoing.read())
        frames = hello.http2(plain)
        until = until or (frames and time.monotonic() + LATER)
        if frames and ("pseudo_headers" in frames or time.monotonic() >= until):
            return raw, plain
        if frames:
            stream.settimeout(max(0.05, until - time.monotonic()))
        try:
            piece = stream.recv(65536)
        except TimeoutError:
            if frames:
                continue
            raise
        if not piece:
            if frames:
                return raw, plain
            raise EOFError("it ended before HTTP/2 began")
        raw += piece
        incoming.write(piece)


class Site:
    """A port of loopback, silent on UDP and with TLS on TCP, and how to trust it."""

    def __init__(self, folder):
        key, cert = f"{folder}/key.pem", f"{folder}/cert.pem"
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert]
        subprocess.run([*words, "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"], check=True, capture_output=True)
        pem = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-pubkey"], check=True, capture_output=True).stdout
        der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=pem, check=True, capture_output=True).stdout
        self.spki = hashlib.sha256(der).digest()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.context.set_alpn_protocols(["h2"])
        # Where a connection comes to nothing, the next is to begin as freshly as the first.
        self.context.num_tickets = 0

    def watch(self, command, ways):
        """The first flights of a command, which is ended then."""
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", port))
        pin = base64.urlsafe_b64encode(self.spki).decode().rstrip("=")
        words = [word.replace("{port}", str(port)).replace("{pin}", pin) for word in command]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline, seen = time.monotonic() + PATIENCE, {}
        try:
            if "quic" in ways:
                seen["quic"] = over_quic(silent, deadline)
            if "tcp" in ways:
                seen["tcp"] = over_tcp(listener, self.context, deadline)
            return seen
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            listener.close()
            silent.close()

    def chromium(self):
        seen = {}
        for way, flags in (("quic", ["--enable-quic", f"--origin-to-force-quic-on={NAME}:{{port}}"]), ("tcp", ["--disable-quic"])):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                seen |= self.watch([
                    "chromium", "--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", f"--user-data-dir={profile}",
                    "--disable-background-networking", "--disable-component-update", *flags,
                    f"--ignore-certificate-errors-spki-list={base64.b64encode(self.spki).decode()}",
                    f"--host-resolver-rules=MAP {NAME} 127.0.0.1", f"https://{NAME}:{{port}}/",
                ], [way])
        return seen


def bauta():
    program = os.environ.get("BAUTA") or str(ROOT / "target/debug/bauta")
    return ["env", f"BAUTA_LINK=bauta://{'A' * 43}@{NAME}:{{port}}?addr=127.0.0.1&pin={{pin}}", program, "--config", "/dev/null", "check"]


def version():
    return subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def flat(value, name=""):
    """Nested objects as one, names joined by dots."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}.{key}" if name else key).items()}


def compare(theirs, ours):
    captured = json.loads(FILE.read_text())["browser"]
    if version() != captured:
        # What a newer Chromium says differently is for a recapture, and no fault of the client's.
        print(f"SKIPPED against {version()}: the client is built as {captured}; compared with its capture (recapture mends it)")
        theirs = {way: said for way, said in json.loads(FILE.read_text()).items() if way != "browser"}
    passed = failed = 0
    ours = flat(ours)
    for field, value in flat(theirs).items():
        mine = ours.get(field)
        if mine == value:
            passed += 1
            print(f"ok   fingerprint_{field}")
        elif field in KNOWN:
            print(f"known: {field}: Chromium {value}, ours {mine}")
        else:
            failed += 1
            print(f"FAIL fingerprint_{field}: Chromium {value}, ours {mine}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder)
        if sys.argv[1:] == ["recapture"]:
            captured = {"browser": version(), **site.chromium()}
            FILE.write_text(json.dumps(captured, indent=1) + "\n")
            print(f"{FILE}: {captured['quic']['ja4']}, {captured['tcp']['ja4']}")
            return 0
        if sys.argv[1:2] != ["compare"]:
            sys.exit(__doc__)
        return compare(site.chromium(), site.watch(sys.argv[2:] or bauta(), ["quic", "tcp"]))


if __name__ == "__main__":
    sys.exit(main())
