"""What receiving a datagram costs the application, alone: an AF_XDP ring beside `recvmmsg` with and without GRO, over veth.

`xdp/examples/receive_cost` measures, and says how; cargo builds it first. "take" looks at the headers only, "take and read" reads every
byte as decryption does, "whole" adds the sender and the soft interrupts, which on veth are most of it and say nothing of a network card.
"""

import json
import os
import subprocess

from scene.proc import Failed
from tunnels import ROOT

COMMAND = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "bauta-xdp", "--example", "receive_cost", "--", "--json", "--turns", "1"]
NAMES = {"ring, native": "bauta", "recvmmsg, GRO (sender: GSO)": "GRO, sender with GSO", "ring, native (sender: GSO)": "ring, sender with GSO"}
GOALS = {"recvmmsg": "ratio <= 0.25", "GRO, sender with GSO": "ratio <= 0.5"}
KINDS = {"take": "take", "read": "take and read", "whole": "whole, sender and soft interrupts included,"}


def run(course):
    for number in range(course.rounds):
        course.say(f"receive: round {number + 1} of {course.rounds}")
        done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "CARGO_NET_OFFLINE": "true"})
        if done.returncode:
            raise Failed(f"{' '.join(COMMAND)}: {done.stderr.strip()[-500:]}")
        for found in map(json.loads, done.stdout.splitlines()):
            who = NAMES.get(found["way"], found["way"])
            for kind, words in KINDS.items():
                goals = GOALS if kind == "take" else None
                course.add(f"{words} a datagram, {found['burst']} waiting", who, found[kind], "ns", "lower", goals)
            if found["lost"]:
                course.note(f"{found['way']}, {found['burst']} waiting: {found['lost']} datagrams were lost")
