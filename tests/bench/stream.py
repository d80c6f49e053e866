#!/usr/bin/env python3
"""A constant stream of UDP, and what becomes of it.

  stream.py receive PORT SECONDS SETTLE        waits, counts, and prints one JSON object; its percentiles of delays are those of all packets,
                                               and, as "settled", of those sent SETTLE seconds after the first or later
  stream.py send HOST PORT SIZE RATE SECONDS   RATE packets a second of SIZE bytes, IP and UDP headers (28) included

Both ends read the same clock: they are namespaces of one machine. The kernel stamps what arrives, so that a late reader adds no delay.
"""

import json
import socket
import struct
import sys
import time

HEAD = struct.Struct("!QQ")  # number, nanoseconds
HEADERS = 28
SO_TIMESTAMPNS = 35
QUIET = 2.0  # seconds without a packet after which nothing more comes


def send(host, port, size, rate, seconds):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    packet = bytearray(size - HEADERS)
    start, number = time.monotonic(), 0
    while (now := time.monotonic() - start) < seconds:
        while number < now * rate:
            HEAD.pack_into(packet, 0, number, time.time_ns())
            sock.send(packet)
            number += 1
        time.sleep(max(0.0002, min(0.001, number / rate - now)))
    print(json.dumps({"sent": number}))


def percentiles(delays):
    ordered = sorted(delays)
    at = lambda share: ordered[min(len(ordered) - 1, int(len(ordered) * share))]
    return {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999)} if ordered else {}


def receive(port, seconds, settle):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.bind(("", port))
    sock.settimeout(QUIET)
    seen, delays, stamps, doubles, disorder, size, highest = set(), [], [], 0, 0, 0, -1
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            data, extra, _, _ = sock.recvmsg(2048, 64)
        except TimeoutError:
            if seen:
                break
            continue
        number, sent = HEAD.unpack_from(data)
        if number in seen:
            doubles += 1
            continue
        seen.add(number)
        at = struct.unpack("qq", extra[0][2][:16])
        stamps.append(at[0] * 10**9 + at[1])
        delays.append((stamps[-1] - sent) / 1e6)
        disorder += number < highest
        size, highest = size + len(data) + HEADERS, max(highest, number)
    report = {"received": len(seen), "bytes": size, "doubles": doubles, "disorder": disorder}
    if stamps:
        gaps = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
        report |= {"gap_ms": max(gaps, default=0) / 1e6, "span_s": (stamps[-1] - stamps[0]) / 1e9}
        sent = [stamp - delay * 1e6 for stamp, delay in zip(stamps, delays)]
        settled = min(sent) + settle * 1e9
        report |= percentiles(delays) | {"settled": percentiles([d for d, at in zip(delays, sent) if at >= settled])}
    print(json.dumps(report))


def main():
    match sys.argv[1:]:
        case ["send", host, port, size, rate, seconds]:
            send(host, int(port), int(size), float(rate), float(seconds))
        case ["receive", port, seconds, settle]:
            receive(int(port), float(seconds), float(settle))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
