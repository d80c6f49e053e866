"""Tells flows apart by sizes, times and directions alone: features, a small model, the area under its curve.

A flow is a list of (seconds since its first packet, bytes of UDP payload, up?). Pure: no files, no clock; the seed is an argument.
"""

import math
import random
import statistics
import struct

BINS = (100, 300, 600, 1000, 1220, 1300)  # bytes; the first packet's size upwards
HEAD = 20  # packets whose size and direction are features each
FOLDS = 4


def flow(pcap, gateway, port, window):
    """The UDP packets of a capture (classic format, Ethernet, IPv4) with the gateway's port, of the first `window` seconds."""
    order = "<" if pcap[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    at, packets, start = 24, [], None
    while at + 16 <= len(pcap):
        seconds, micros, size, _ = struct.unpack(order + "IIII", pcap[at : at + 16])
        frame, at = pcap[at + 16 : at + 16 + size], at + 16 + size
        if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        udp = 14 + 4 * (frame[14] & 15)
        source, target, length = struct.unpack(">HHH", frame[udp : udp + 6])
        if port not in (source, target):
            continue
        now = seconds + micros / 1e6
        start = now if start is None else start
        if now - start > window:
            break
        packets.append((now - start, length - 8, frame[26:30] != gateway))
    return packets


def features(packets):
    """Numbers that say how a flow looks."""
    out = []
    for up in (True, False):
        ours = [(time, size) for time, size, way in packets if way is up]
        sizes = [size for _, size in ours] or [0]
        gaps = [b[0] - a[0] for a, b in zip(ours, ours[1:])] or [0]
        out += [math.log1p(len(ours)), math.log1p(sum(sizes)), statistics.fmean(sizes), statistics.pstdev(sizes)]
        out += [statistics.median(sizes), math.log(statistics.fmean(gaps) + 1e-6), math.log(statistics.median(gaps) + 1e-6), math.log(max(gaps) + 1e-6)]
        edges = (0, *BINS, 1 << 16)
        out += [sum(low <= size < high for size in sizes) / len(sizes) for low, high in zip(edges, edges[1:])]
    head = [size if up else -size for _, size, up in packets[:HEAD]]
    out += head + [0] * (HEAD - len(head))
    out += [len({int(time * 10) for time, _, _ in packets}), packets[-1][0] if packets else 0]
    return out


def head(packets):
    """The same of its first packets alone: their sizes and directions, in order, and how often each size occurs."""
    first = [size if up else -size for _, size, up in packets[:HEAD]]
    out = first + [0] * (HEAD - len(first))
    for up in (True, False):
        sizes = [abs(size) for size in first if (size > 0) is up]
        edges = (0, *BINS, 1 << 16)
        out += [sum(low <= size < high for size in sizes) for low, high in zip(edges, edges[1:])]
    return out


def auc(negative, positive, seed=1):
    """Area under the curve of a logistic regression that never saw the runs it judges (cross-validation by run); 0.5 is guessing."""
    rows = [(x, 0) for x in negative] + [(x, 1) for x in positive]
    random.Random(seed).shuffle(rows)
    scores = []
    for fold in range(FOLDS):
        # Folds are dealt out label by label, so that each has its share of both.
        held = {i for label in (0, 1) for i in [i for i, row in enumerate(rows) if row[1] == label][fold::FOLDS]}
        train = [row for i, row in enumerate(rows) if i not in held]
        model = fit(train)
        scores += [(model(rows[i][0]), rows[i][1]) for i in held]
    pairs = [(p > n) + (p == n) / 2 for p, a in scores if a for n, b in scores if not b]
    return statistics.fmean(pairs)


def fit(rows, steps=300, rate=0.3, decay=0.01):
    """Logistic regression on standardised features by gradient descent, with a little weight decay."""
    columns = list(zip(*(x for x, _ in rows)))
    means, deviations = [statistics.fmean(c) for c in columns], [statistics.pstdev(c) or 1 for c in columns]
    scale = lambda x: [(v - m) / d for v, m, d in zip(x, means, deviations)]
    scaled, weights, bias = [(scale(x), y) for x, y in rows], [0.0] * len(means), 0.0
    value = lambda x: bias + sum(w * v for w, v in zip(weights, x))
    for _ in range(steps):
        errors = [1 / (1 + math.exp(-max(-30, min(30, value(x))))) - y for x, y in scaled]
        for j in range(len(weights)):
            slope = sum(e * x[j] for e, (x, _) in zip(errors, scaled)) / len(scaled)
            weights[j] -= rate * (slope + decay * weights[j])
        bias -= rate * sum(errors) / len(errors)
    return lambda x: value(scale(x))
