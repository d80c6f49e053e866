"""A packet's way, stage by stage: nanoseconds each, and beside it what the stage cannot be cheaper than.

Everything runs in one thread of one process (`masque/io/benches/stages`), which cargo builds first.
"""

import os
import subprocess

from scene.proc import Failed
from tunnels import ROOT

# With the same packages as the programs are built with, so that QUIC is not built again with other features.
COMMAND = ["cargo", "bench", "--quiet", "--locked", "-p", "bauta-masque-io", "-p", "bauta-gateway", "-p", "bauta", "--bench", "stages"]


def run(course):
    for number in range(course.rounds):
        course.say(f"stages: round {number + 1} of {course.rounds}")
        done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CARGO_NET_OFFLINE": "true"})
        rows = [line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 3]
        if done.returncode or not rows:
            raise Failed(f"{' '.join(COMMAND)}: {done.stderr.strip()[-500:]}")
        for stage, cost, bound, what in rows:
            if not cost.isdigit():
                course.note(f"{stage}: {cost}")
                continue
            metric = stage if what == "–" else f"{stage} (bound: {what})"
            course.add(metric, "bauta", int(cost), "ns a packet", "lower", bound=int(bound) if bound.isdigit() else None)
