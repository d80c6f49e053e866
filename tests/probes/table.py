"""Every probe: how somebody looks who suspects a tunnel. All are made from tables; `TOKEN_LIKE` has the form of a genuine token."""

from __future__ import annotations

import base64
import hashlib

from probe import Datagram, Packet, Probe, Reset, Send, Step, Wait
from wire import H2_START, NAME, PREFACE, Fields, capsule, h1, h2_frame, h2_request, h2_settings, h3_control, h3_frame, h3_request, h3_settings, request, varint

UDP = b"/.well-known/masque/udp/203.0.113.9/53/"
IP = b"/.well-known/masque/ip/*/*/"
MISSING = b"/no-such-page-anywhere"
TOKEN_LIKE = base64.urlsafe_b64encode(hashlib.sha256(b"a guess").digest()).rstrip(b"=")


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def concealed(key: bytes, proof: bytes = b"\x05" * 64, scheme: bytes = b"2055", verification: bytes = b"\x07" * 16) -> bytes:
    return b"Concealed k=%s, a=%s, s=%s, v=%s, p=%s" % (b64(key), b64(key), scheme, b64(verification), b64(proof))


def credentials(known: bytes, spent: bytes) -> list[tuple[str, bytes | None]]:
    """No, bad and replayed ones of each kind. `known` is a key that has an account, `spent` a token that was revoked."""
    basic = lambda pair: b"Basic " + base64.b64encode(pair)  # noqa: E731
    genuine = concealed(known)
    return [
        ("nothing", None),
        ("bearer-guess", b"Bearer " + TOKEN_LIKE),
        ("bearer-revoked", b"Bearer " + spent),
        ("bearer-empty", b"Bearer"),
        ("bearer-long", b"Bearer " + b"a" * 5000),
        ("bearer-binary", b"Bearer \xff\xfe"),
        ("basic-guess", basic(b"alice:" + TOKEN_LIKE)),
        ("basic-revoked", basic(b"alice:" + spent)),
        ("basic-broken", b"Basic !!!"),
        ("concealed-unknown", concealed(b"\x21" * 32)),
        ("concealed-known-bad-signature", genuine),
        ("concealed-known-short", concealed(known, proof=b"\x05" * 63)),
        ("concealed-known-uncanonical", concealed(known, proof=b"\xff" * 64)),
        ("concealed-other-scheme", concealed(known, scheme=b"1027")),
        ("concealed-twice", genuine + b", k=AA"),
        ("concealed-cut", genuine[:60]),
        ("digest", b'Digest username="alice"'),
        ("private-token", b"PrivateToken token=AAAA"),
    ]


ASKS: list[tuple[str, Fields]] = [
    ("connect-udp", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"capsule-protocol", b"?1"))),
    ("connect-ip", request(b"CONNECT", IP, (b":protocol", b"connect-ip"), (b"capsule-protocol", b"?1"))),
    ("connect-udp-bad-port", request(b"CONNECT", UDP.replace(b"53", b"0"), (b":protocol", b"connect-udp"))),
    ("connect-tcp", request(b"CONNECT", None, authority=b"203.0.113.9:443", scheme=None)),
    ("websocket", request(b"CONNECT", b"/", (b":protocol", b"websocket"), (b"sec-websocket-version", b"13"))),
    ("get-masque", request(b"GET", IP)),
]
PROTOCOLS = [b"connect-udp", b"connect-ip", b"connect-tcp", b"connect-ethernet", b"connect-udp-bind", b"websocket", b"webtransport", b"webtransport-h3",
             b"cf-connect-ip", b"CONNECT-UDP", b"", b"h2c", b"x" * 300]  # fmt: skip
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"PRI", b"PROPFIND", b"BREW", b"get", b"G T", b"",
           b"CONNECT-UDP", b"X" * 200]  # fmt: skip
PATHS = [b"/", b"/.well-known/masque/", b"/.well-known/masque/udp/", b"/.well-known/masque/udp/a/b/", b"/.well-known/masque/udp/127.0.0.1/1/", b"/.well-known/masque/ip/",
         b"/.well-known/masque/ip/10.77.0.0%2F16/17/", b"/.well-known/masque/udp/%ff/1/", b"/metrics", b"/healthz", b"/sessions", b"/proxy.pac", b"/dns-query",
         b"*", b"//", b"/../etc/passwd", b"/%00", b"/?" + b"q" * 4000, b"/" + b"p" * 9000]  # fmt: skip
CAPSULES: list[tuple[str, bytes]] = [
    ("datagram", capsule(0, b"\0hello")),
    ("datagram-empty", capsule(0)),
    ("address-request", capsule(2, b"\x01\x04\0\0\0\0\x20")),
    ("address-assign-bad", capsule(1, b"\x01\x09")),
    ("routes-bad", capsule(3, b"\x04")),
    ("unknown", capsule(0x2A2A, b"x" * 40)),
    ("endless", varint(0) + varint(1 << 40) + b"x" * 2000),
    ("cut", varint(0) + varint(100) + b"x"),
    ("half-a-varint", b"\xc0"),
    ("noise", bytes(range(256))),
]


def with_credentials(known: bytes, spent: bytes) -> list[Probe]:
    probes = []
    for name, value in credentials(known, spent):
        for ask, fields in ASKS:
            for field in (b"authorization", b"proxy-authorization"):
                if value is None and field == b"proxy-authorization":
                    continue
                # Of the rarer pairs one is enough: the field does not matter where the kind does not.
                if field == b"proxy-authorization" and ask not in ("connect-udp", "connect-tcp"):
                    continue
                full = fields + ([(field, value)] if value is not None else [])
                label = f"{ask}/{name}/{field.decode()[:5]}"
                probes.append(Probe(f"h2/{label}", "h2", (Send(H2_START + h2_request(full, fin=False)), Wait())))
                probes.append(Probe(f"h3/{label}", "h3", (Send(h3_control(), 2), Send(h3_request(full)), Wait())))
        more = ((b"Authorization", value),) if value is not None else ()
        upgrade = ((b"Connection", b"Upgrade"), (b"Upgrade", b"connect-udp"), (b"Capsule-Protocol", b"?1"))
        probes.append(Probe(f"h1/connect-udp/{name}", "h1", (Send(h1(b"GET", UDP, *upgrade, *more)), Wait())))
        upgrade = ((b"Connection", b"Upgrade"), (b"Upgrade", b"connect-ip"), (b"Capsule-Protocol", b"?1"))
        probes.append(Probe(f"h1/connect-ip/{name}", "h1", (Send(h1(b"GET", IP, *upgrade, *more)), Wait())))
        proxied = ((b"Proxy-Authorization", value),) if value is not None else ()
        connect = h1(b"CONNECT", b"203.0.113.9:443", *proxied, host=b"203.0.113.9:443")
        probes.append(Probe(f"h1/connect-tcp/{name}", "h1", (Send(connect), Wait())))
        probes.append(Probe(f"h1/absolute/{name}", "h1", (Send(h1(b"GET", b"http://203.0.113.9/", *proxied, host=b"203.0.113.9")), Wait())))
    return probes


def both(name: str, fields: Fields, fin: bool = True) -> list[Probe]:
    """The same request over HTTP/2 and HTTP/3."""
    return [
        Probe(f"h2/{name}", "h2", (Send(H2_START + h2_request(fields, fin=fin)), Wait())),
        Probe(f"h3/{name}", "h3", (Send(h3_control(), 2), Send(h3_request(fields), fin=fin), Wait())),
    ]


def with_a_right_token(token: bytes) -> list[Probe]:
    """Not a stranger's: what shows that a difference would be seen."""
    field = (b"authorization", b"Bearer " + token)
    connect = h1(b"CONNECT", b"203.0.113.9:443", (b"Proxy-Authorization", field[1]), host=b"203.0.113.9:443")
    full = h3_request([*ASKS[1][1], field])
    tcp = h2_request([*ASKS[3][1], (b"proxy-authorization", field[1])], fin=False)
    return [
        Probe("h1/right-token", "h1", (Send(connect), Wait())),
        Probe("h2/right-token", "h2", (Send(H2_START + tcp), Wait())),
        Probe("h3/right-token", "h3", (Send(h3_control(), 2), Send(full), Wait())),
    ]


def requests() -> list[Probe]:
    probes = []
    for method in METHODS:
        label = method.decode()[:14] or "none"
        probes += both(f"method/{label}", request(method, MISSING))
        probes.append(Probe(f"h1/method/{label}", "h1", (Send(h1(method, MISSING)), Wait())))
    for protocol in PROTOCOLS:
        label = protocol.decode()[:14] or "none"
        for path in (UDP, b"/"):
            probes += both(f"protocol/{label}{path.decode()[:5]}", request(b"CONNECT", path, (b":protocol", protocol)), fin=False)
        probes += both(f"protocol-get/{label}", request(b"GET", UDP, (b":protocol", protocol)))
        upgrade = ((b"Connection", b"Upgrade"), (b"Upgrade", protocol))
        probes.append(Probe(f"h1/upgrade/{label}", "h1", (Send(h1(b"GET", UDP, *upgrade)), Wait())))
    for path in PATHS:
        label = path.decode(errors="replace")[:40]
        probes += both(f"path{label}", request(b"GET", path))
        probes += both(f"connect-path{label}", request(b"CONNECT", path, (b":protocol", b"connect-ip")), fin=False)
        probes.append(Probe(f"h1/path{label}", "h1", (Send(h1(b"GET", path)), Wait())))
    odd: list[tuple[str, Fields]] = [
        ("no-path", request(b"CONNECT", None, (b":protocol", b"connect-udp"))),
        ("no-scheme", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), scheme=None)),
        ("no-authority", [f for f in ASKS[0][1] if f[0] != b":authority"]),
        ("empty-path", request(b"CONNECT", b"", (b":protocol", b"connect-udp"))),
        ("protocol-twice", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b":protocol", b"connect-ip"))),
        ("method-twice", request(b"CONNECT", UDP, (b":method", b"GET"), (b":protocol", b"connect-udp"))),
        ("pseudo-last", [(b"x", b"y"), *ASKS[0][1]]),
        ("unknown-pseudo", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b":other", b"x"))),
        ("upper-case", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"Authorization", b"x"))),
        ("connection", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"connection", b"upgrade"))),
        ("content-length", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"content-length", b"5"))),
        ("connect-with-path", request(b"CONNECT", b"/", authority=b"203.0.113.9:443")),
        ("connect-no-port", request(b"CONNECT", None, authority=b"203.0.113.9", scheme=None)),
        ("connect-port-0", request(b"CONNECT", None, authority=b"203.0.113.9:0", scheme=None)),
        ("connect-ipv6", request(b"CONNECT", None, authority=b"[2001:db8::9]:443", scheme=None)),
        ("connect-site", request(b"CONNECT", None, authority=NAME + b":443", scheme=None)),
        ("other-authority", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), authority=b"other.test")),
        ("http-scheme", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), scheme=b"http")),
        ("export", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"concealed-auth-export", b":AAAA:"))),
        ("many-fields", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), *[(b"x-%d" % i, b"y" * 40) for i in range(200)])),
        ("large-field", request(b"CONNECT", UDP, (b":protocol", b"connect-udp"), (b"x", b"y" * 15000))),
    ]
    for name, fields in odd:
        probes += both(f"odd/{name}", fields, fin=False)
        probes += both(f"odd-fin/{name}", fields)
    return probes


def tunnels_forced() -> list[Probe]:
    """Capsules and datagrams on what never became a tunnel."""
    probes = []
    start, udp, ip, get = Send(h3_control(), 2), ASKS[0][1], ASKS[1][1], request(b"GET", MISSING)
    for name, data in CAPSULES:
        for ask, fields in (("udp", udp), ("ip", ip)):
            probes.append(Probe(f"h3/capsule/{ask}/{name}", "h3", (start, Send(h3_request(fields) + h3_frame(0, data)), Wait())))
            probes.append(Probe(f"h2/capsule/{ask}/{name}", "h2", (Send(H2_START + h2_request(fields, fin=False) + h2_frame(0, 0, 1, data)), Wait())))
        upgrade = h1(b"GET", UDP, (b"Connection", b"Upgrade"), (b"Upgrade", b"connect-udp"), body=data)
        probes.append(Probe(f"h1/capsule/{name}", "h1", (Send(upgrade), Wait())))
    datagram_setting = Send(h3_control((0x33, 1), (8, 1)), 2)
    shapes = [("context-0", b"\0\0hello"), ("context-2", b"\0\2hello"), ("empty", b""), ("stream-only", b"\0"), ("cut", b"\xc0"),
              ("next-stream", b"\1\0x"), ("far-stream", varint(1 << 30) + b"\0"), ("too-far", varint((1 << 61) + 1)), ("large", b"\0\0" + b"x" * 1000)]  # fmt: skip
    for name, data in shapes:
        for ask, fields in (("udp", udp), ("ip", ip), ("get", get)):
            probes.append(Probe(f"h3/datagram/{ask}/{name}", "h3", (datagram_setting, Send(h3_request(fields)), Datagram(data), Wait())))
        probes.append(Probe(f"h3/datagram/before/{name}", "h3", (datagram_setting, Datagram(data), Wait(), Send(h3_request(udp)), Wait())))
        probes.append(Probe(f"h3/datagram/after/{name}", "h3", (datagram_setting, Send(h3_request(udp)), Wait(), Datagram(data), Wait())))
        probes.append(Probe(f"h3/datagram/no-setting/{name}", "h3", (start, Datagram(data), Wait())))
    return probes


def settings_and_streams() -> list[Probe]:
    probes = []
    udp = ASKS[0][1]
    pairs3 = [("none", ()), ("datagram", ((0x33, 1),)), ("datagram-2", ((0x33, 2),)), ("connect", ((8, 1),)), ("connect-2", ((8, 2),)), ("twice", ((0x33, 1), (0x33, 1))),
              ("h2-setting", ((2, 1),)), ("h2-setting-3", ((3, 1),)), ("unknown", ((0x1F21, 9),)), ("legacy-datagram", ((0x276, 1),)), ("webtransport", ((0x2B603742, 1),)),
              ("qpack", ((1, 4096), (7, 100))), ("huge", ((6, 1 << 61),))]  # fmt: skip
    for name, pairs in pairs3:
        probes.append(Probe(f"h3/settings/{name}", "h3", (Send(h3_control(*pairs), 2), Wait(), Send(h3_request(udp)), Wait())))
    pairs2 = [("none", ()), ("connect", ((8, 1),)), ("connect-2", ((8, 2),)), ("window", ((4, 1 << 30),)), ("window-too-large", ((4, 1 << 31),)), ("frame-small", ((5, 1),)),
              ("push-2", ((2, 2),)), ("unknown", ((0x99, 7),)), ("no-streams", ((3, 0),)), ("table-0", ((1, 0),))]  # fmt: skip
    for name, pairs in pairs2:
        probes.append(Probe(f"h2/settings/{name}", "h2", (Send(PREFACE + h2_settings(*pairs) + h2_request(udp, fin=False)), Wait())))
    start = Send(h3_control(), 2)
    whole = h3_request(udp)
    h3: list[tuple[str, tuple[Step, ...]]] = [
        ("half-a-request", (start, Send(whole[:20]), Wait())),
        ("half-a-request-fin", (start, Send(whole[:20], fin=True), Wait())),
        ("half-a-request-reset", (start, Send(whole[:20]), Reset(), Wait())),
        ("reset-at-once", (start, Send(whole), Reset(stop=True), Wait())),
        ("reset-later", (start, Send(whole), Wait(), Reset(stop=True), Wait())),
        ("stop-only", (start, Send(whole), Reset(stop=True, code=0x100), Wait())),
        ("no-control", (Send(whole), Wait())),
        ("control-late", (Send(whole), Wait(), start, Wait())),
        ("two-controls", (start, Send(h3_control(), 6), Wait())),
        ("control-closed", (Send(h3_control(), 2, fin=True), Wait())),
        ("control-without-settings", (Send(b"\0" + h3_frame(0x21, b""), 2), Wait())),
        ("settings-twice", (Send(h3_control() + h3_settings(), 2), Wait())),
        ("data-first", (start, Send(h3_frame(0, b"x")), Wait())),
        ("settings-on-request", (start, Send(h3_settings()), Wait())),
        ("headers-twice", (start, Send(whole + whole), Wait())),
        ("reserved-frame", (start, Send(h3_frame(0x21, b"grease") + whole), Wait())),
        ("h2-frame", (start, Send(h3_frame(2, b"x" * 5)), Wait())),
        ("push-stream", (start, Send(b"\1\0", 6), Wait())),
        ("unknown-stream", (start, Send(varint(0x54) + b"x", 6), Wait())),
        ("qpack-nonsense", (start, Send(h3_frame(1, b"\xff\xff\xff")), Wait())),
        ("qpack-dynamic", (start, Send(h3_frame(1, b"\2\0\x80")), Wait())),
        ("empty-stream", (start, Send(b"", fin=True), Wait())),
        ("empty-headers", (start, Send(h3_frame(1)), Wait())),
        ("max-push-id-down", (Send(h3_control() + h3_frame(13, b"\5") + h3_frame(13, b"\1"), 2), Wait())),
        ("goaway", (Send(h3_control() + h3_frame(7, b"\0"), 2), Send(whole), Wait())),
        ("goaway-bad", (Send(h3_control() + h3_frame(7, b"\1"), 2), Send(whole), Wait())),
        ("five-at-once", (start, *[Send(h3_request(fields), 4 * n) for n, (_, fields) in enumerate(ASKS[:5])], Wait())),
        ("twenty-resets", (start, *[step for n in range(20) for step in (Send(whole, 4 * n), Reset(4 * n, stop=True))], Wait())),
    ]  # fmt: skip
    probes += [Probe(f"h3/stream/{name}", "h3", steps) for name, steps in h3]
    whole2 = h2_request(udp, fin=False)
    h2: list[tuple[str, bytes]] = [
        ("half-a-request", whole2[:20]),
        ("headers-unfinished", h2_frame(1, 0, 1, whole2[9:])),
        ("continuation-flood", h2_frame(1, 0, 1, whole2[9:]) + h2_frame(9, 0, 1) * 20),
        ("reset-at-once", whole2 + h2_frame(3, 0, 1, (8).to_bytes(4, "big"))),
        ("twenty-resets", b"".join(h2_request(udp, 2 * n + 1, False) + h2_frame(3, 0, 2 * n + 1, (8).to_bytes(4, "big")) for n in range(20))),
        ("two-hundred-resets", b"".join(h2_request(udp, 2 * n + 1, False) + h2_frame(3, 0, 2 * n + 1, (8).to_bytes(4, "big")) for n in range(200))),
        ("even-stream", h2_request(udp, 2)),
        ("stream-0", h2_request(udp, 0)),
        ("data-first", h2_frame(0, 1, 1, b"x")),
        ("unknown-frame", h2_frame(0x99, 0, 1, b"x") + whole2),
        ("push-promise", h2_frame(5, 4, 1, b"\0\0\0\2")),
        ("ping", h2_frame(6, 0, 0, b"12345678")),
        ("ping-short", h2_frame(6, 0, 0, b"1234")),
        ("window-0", h2_frame(8, 0, 0, b"\0\0\0\0")),
        ("window-overflow", h2_frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2),
        ("goaway", h2_frame(7, 0, 0, b"\0" * 8) + whole2),
        ("hpack-nonsense", h2_frame(1, 5, 1, b"\xff\xff\xff\xff\xff")),
        ("settings-ack", h2_frame(4, 1, 0, b"x")),
        ("large-frame", h2_frame(0, 0, 1, b"x" * 20000)),
        ("priority", h2_frame(2, 0, 1, b"\0\0\0\0\x10") + whole2),
        ("self-priority", h2_frame(2, 0, 1, b"\0\0\0\1\x10")),
        ("five-at-once", b"".join(h2_request(fields, 2 * n + 1, False) for n, (_, fields) in enumerate(ASKS[:5]))),
        ("no-preface", b""),
    ]
    probes += [Probe(f"h2/stream/{name}", "h2", (Send((H2_START if name != "no-preface" else whole2) + data), Wait())) for name, data in h2]
    return probes


def malformed_h1() -> list[Probe]:
    tail = b"Host: site.test\r\n\r\n"
    table: list[tuple[str, bytes]] = [
        ("nothing", b""),
        ("new-lines", b"\r\n\r\n"),
        ("noise", bytes(range(256))),
        ("one-word", b"GET\r\n\r\n"),
        ("http-0.9", b"GET /\r\n"),
        ("http-1.0", b"GET / HTTP/1.0\r\n\r\n"),
        ("http-1.2", b"GET / HTTP/1.2\r\n" + tail),
        ("http-2.0", b"GET / HTTP/2.0\r\n" + tail),
        ("bare-lf", b"GET / HTTP/1.1\nHost: site.test\n\n"),
        ("bare-cr", b"GET / HTTP/1.1\rHost: site.test\r\r"),
        ("no-host", b"GET / HTTP/1.1\r\n\r\n"),
        ("two-hosts", b"GET / HTTP/1.1\r\nHost: a\r\n" + tail),
        ("space-before-colon", b"GET / HTTP/1.1\r\nX : y\r\n" + tail),
        ("folded", b"GET / HTTP/1.1\r\nX: y\r\n z\r\n" + tail),
        ("nul", b"GET / HTTP/1.1\r\nX: \0\r\n" + tail),
        ("no-colon", b"GET / HTTP/1.1\r\nnonsense\r\n" + tail),
        ("two-lengths", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + tail + b"xx"),
        ("length-and-chunked", b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" + tail + b"0\r\n\r\n"),
        ("bad-length", b"POST / HTTP/1.1\r\nContent-Length: x\r\n" + tail),
        ("huge-length", b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n" + tail),
        ("bad-chunk", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + tail + b"zz\r\n"),
        ("unknown-coding", b"POST / HTTP/1.1\r\nTransfer-Encoding: magic\r\n" + tail),
        ("expect", b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n" + tail),
        ("expect-other", b"POST / HTTP/1.1\r\nExpect: 42\r\n" + tail),
        ("half-a-line", b"GET / HT"),
        ("half-a-head", b"GET / HTTP/1.1\r\nHost: si"),
        ("long-line", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + tail),
        ("many-fields", b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + tail),
        ("large-field", b"GET / HTTP/1.1\r\nX: " + b"y" * 70000 + b"\r\n" + tail),
        ("pipelined", h1(b"GET", MISSING) + h1(b"CONNECT", b"203.0.113.9:443", host=b"203.0.113.9:443") + h1(b"GET", b"/")),
        ("connect-origin-form", h1(b"CONNECT", b"/")),
        ("connect-no-port", h1(b"CONNECT", b"203.0.113.9")),
        ("connect-port-0", h1(b"CONNECT", b"203.0.113.9:0")),
        ("connect-1.0", h1(b"CONNECT", b"203.0.113.9:443", version=b"HTTP/1.0")),
        ("connect-with-length", h1(b"CONNECT", b"203.0.113.9:443", (b"Content-Length", b"5"), body=b"hello")),
        ("connect-then-noise", h1(b"CONNECT", b"203.0.113.9:443", body=b"\x16\x03\x01\x02\x00")),
        ("connect-chunked", h1(b"CONNECT", b"203.0.113.9:443", (b"Transfer-Encoding", b"chunked"), body=b"0\r\n\r\n")),
        ("asterisk", h1(b"OPTIONS", b"*")),
        ("authority-form-get", h1(b"GET", b"203.0.113.9:443")),
        ("absolute-https", h1(b"GET", b"https://203.0.113.9/")),
        ("absolute-site", h1(b"GET", b"https://site.test/.well-known/masque/ip/*/*/")),
        ("upgrade-post", h1(b"POST", UDP, (b"Connection", b"Upgrade"), (b"Upgrade", b"connect-udp"))),
        ("upgrade-no-connection", h1(b"GET", UDP, (b"Upgrade", b"connect-udp"))),
        ("upgrade-two", h1(b"GET", UDP, (b"Connection", b"Upgrade"), (b"Upgrade", b"connect-udp, connect-ip"))),
        ("upgrade-h2c", h1(b"GET", b"/", (b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMAAABkAAQAAP__"))),
        ("upgrade-websocket", h1(b"GET", b"/", (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="), (b"Sec-WebSocket-Version", b"13"))),
        ("upgrade-tls", h1(b"OPTIONS", b"*", (b"Connection", b"Upgrade"), (b"Upgrade", b"TLS/1.0"))),
        ("h2-preface", H2_START),
        ("socks5", b"\5\1\0"),
        ("socks4", b"\4\1\1\xbb\xcb\0q\t\0"),
        ("tls-in-tls", b"\x16\x03\x01\x00\x05hello"),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("proxy-protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n" + h1(b"GET", b"/")),
    ]  # fmt: skip
    probes = [Probe(f"h1/malformed/{name}", "h1", (Send(data), Wait())) for name, data in table]
    probes.append(Probe("h1/reset", "h1", (Send(h1(b"CONNECT", b"203.0.113.9:443")), Reset())))
    probes.append(Probe("h1/closed-half", "h1", (Send(h1(b"GET", MISSING), fin=True), Wait())))
    return probes


def handshakes() -> list[Probe]:
    """TLS, QUIC and what comes before them."""
    get1, probes = Send(h1(b"GET", MISSING)), []
    get3 = (Send(h3_control(), 2), Send(h3_request(request(b"GET", MISSING)), fin=True), Wait())
    for name, tls in [("no-alpn", (("alpn", None),)), ("odd-alpn", (("alpn", "masque"),)), ("acme-alpn", (("alpn", "acme-tls/1"),)), ("no-sni", (("sni", None),)),
                      ("other-sni", (("sni", "other.test"),)), ("resumed", (("again", True),))]:  # fmt: skip
        probes.append(Probe(f"h1/tls/{name}", "h1", (get1, Wait()), tls))
    for name, tls in [("odd-alpn", (("alpn", "masque"),)), ("hq-alpn", (("alpn", "hq-interop"),)), ("other-sni", (("sni", "other.test"),)), ("resumed", (("again", True),))]:
        probes.append(Probe(f"h3/tls/{name}", "h3", get3, tls))
    cids = b"\x08ABCDEFGH\x08abcdefgh"
    pad = lambda data: data + b"\0" * (1200 - len(data))  # noqa: E731
    raw: list[tuple[str, bytes]] = [
        ("empty", b""),
        ("one-byte", b"\x40"),
        ("short-header", b"\x40" + b"A" * 60),
        ("short-header-small", b"\x40" + b"A" * 20),
        ("initial-garbage", pad(b"\xc3\0\0\0\1" + cids + b"\0\x44\x9e")),
        ("initial-small", b"\xc3\0\0\0\1" + cids + b"\0\x40\x20" + b"x" * 32),
        ("initial-token", pad(b"\xc3\0\0\0\1" + cids + b"\x20" + b"T" * 32 + b"\x44\x7e")),
        ("version-0", pad(b"\xc3\0\0\0\0" + cids + b"\x1a\x1a\x1a\x1a")),
        ("version-2", pad(b"\xc3\x6b\x33\x43\xcf" + cids)),
        ("version-grease", pad(b"\xc3\x1a\x2a\x3a\x4a" + cids)),
        ("version-grease-small", b"\xc3\x1a\x2a\x3a\x4a" + cids + b"x" * 60),
        ("0-rtt", pad(b"\xd3\0\0\0\1" + cids + b"\x44\x9e")),
        ("handshake", pad(b"\xe3\0\0\0\1" + cids + b"\x44\x9e")),
        ("retry", pad(b"\xf3\0\0\0\1" + cids)),
        ("long-cid", pad(b"\xc3\0\0\0\1\x15" + b"A" * 21 + b"\0\0\x44\x9e")),
        ("wireguard", b"\1\0\0\0" + b"w" * 144),
        ("dns", bytes.fromhex("123401000001000000000000046e616d65047465737400000100 01".replace(" ", ""))),
        ("dtls", b"\x16\xfe\xfd" + b"\0" * 60),
        ("stun", bytes.fromhex("000100002112a442") + b"s" * 12),
        ("openvpn", b"\x38" + b"o" * 40),
    ]
    probes += [Probe(f"udp/{name}", "udp", (Packet(data), Wait())) for name, data in raw]
    return probes


def all_probes(known: bytes, spent: bytes) -> list[Probe]:
    probes = with_credentials(known, spent) + requests() + tunnels_forced() + settings_and_streams() + malformed_h1() + handshakes()
    names = [probe.name for probe in probes]
    if len(names) != len(set(names)):
        raise ValueError(f"names come twice: {sorted({n for n in names if names.count(n) > 1})}")
    return probes
