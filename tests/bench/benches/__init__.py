"""The benches by name: a file here, a line below. Their order is the order in which they run.

A bench is a module with a docstring, whose first line says what it measures, and `run(course)`; see `course.py`.
`PACKAGES` lists what Debian has to bring, as PROGRAM:PACKAGE.
"""

import importlib

NAMES = (
    "tunnel",
    "packets",
    "delay",
    "connect",
    "connect_udp",
    "site",
    "memory",
    "handshakes",
    "growth",
    "scaling",
    "stages",
    "receive",
    "ingress",
    "strangers",
    "flood",
    "resilience",
    "lossy",
    "pairs",
    "labels",
    "shape",
)


def load(name):
    return importlib.import_module(f"benches.{name}")
