"""What a stranger's clock can tell: answers to a missing page, a bad bearer, an unknown key and a bad signature, over HTTP/3.

10,000 samples a class, in random order on one connection, requests of one length, client and gateway on loopback. For each pair of classes
the Kolmogorov-Smirnov test, and the gap of the medians. Halves of one class are compared as well: what noise does by itself.

And what a stranger's model can tell by the shape of a tunnel: the classifier of bench `shape`, for tunnels of the default shape.
"""

import itertools
import math
import statistics
import time

from benches import shape
from scene import product
from scene.proc import Failed

PACKAGES = shape.PACKAGES
SAMPLES = 10_000
SEED = "5a" * 32
PAGE = "missing page"  # by GET, the others by CONNECT
ALPHA, GAP = 0.01, 1.0  # of KS, in percent


def run(course):
    stage = course.stage()
    clock(course, stage[1])
    shape.judge(course, ("start",), stage)


def clock(course, gateway):
    load = product.programs() / "examples/strangers"
    if not load.exists():
        raise Failed("cargo build --release --locked -p bauta-gateway --example strangers builds what this bench asks with")
    server = product.Gateway(gateway, course.folder / "gateway")
    try:
        key = gateway.run([load, SEED]).strip()
        gateway.run([server.program, "--config", server.config, "user", "add", "known", "--key", key, "--quiet"])
        time.sleep(2)  # the gateway looks at its accounts every second
        words = [load, f"127.0.0.1:{server.port}", server.domain, server.folder / "ca.pem", SEED, SAMPLES]
        lines = gateway.run(words, timeout=230).splitlines()
    finally:
        server.stop()
    classes = {}
    for line in lines:
        name, nanoseconds = line.split()
        classes.setdefault(name.replace("-", " "), []).append(int(nanoseconds) / 1000)
    for name, times in classes.items():
        course.add(f"median, {name}", "bauta", statistics.median(times), "µs", "lower")
    smallest, widest, credentials = 1.0, 0.0, 1.0
    for (one, a), (other, b) in itertools.combinations(classes.items(), 2):
        d, p = ks(a, b)
        gap = 100 * abs(statistics.median(a) / statistics.median(b) - 1)
        smallest, widest = min(smallest, p), max(widest, gap)
        if PAGE not in (one, other):
            credentials = min(credentials, p)
        course.note(f"{one} / {other}: D = {d:.4f}, p = {p:.3f}, medians {gap:.2f} % apart, {len(a)} and {len(b)} samples")
    course.add("least p of any pair (Kolmogorov-Smirnov)", "bauta", smallest, "", "higher", f">= {ALPHA}")
    course.add("least p of two kinds of credential", "bauta", credentials, "", "higher", f">= {ALPHA}")
    course.add("widest gap of medians", "bauta", widest, "%", "lower", f"<= {GAP}")
    for name, times in classes.items():
        d, p = ks(times[::2], times[1::2])
        course.note(f"{name} against itself: D = {d:.4f}, p = {p:.3f}")


def ks(a, b):
    """The two-sided statistic of two samples, and its asymptotic p-value."""
    a, b = sorted(a), sorted(b)
    n, m, i, j, d = len(a), len(b), 0, 0, 0.0
    while i < n and j < m:
        x = min(a[i], b[j])
        while i < n and a[i] == x:
            i += 1
        while j < m and b[j] == x:
            j += 1
        d = max(d, abs(i / n - j / m))
    root = math.sqrt(n * m / (n + m))
    t = (root + 0.12 + 0.11 / root) * d
    if t < 0.3:
        return d, 1.0
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * t * t) for k in range(1, 101))
    return d, min(max(p, 0.0), 1.0)
