"""One worker and two: how much more two can carry, the load's own CPU counted apart.

Two cores are not enough to give clients cores of their own. So no throughput is compared: the same paced load, which leaves cores idle,
goes through a gateway with one worker and one with two, and what counts is the CPU that each worker's thread took for it. A gateway is at
its limit when its busiest worker has a core's time for itself, so the packets carried over that worker's CPU seconds are what it can
carry a second where the clients are elsewhere. In this both ways of scaling badly show: what two workers cost each other (CPU a packet),
and what one of them has more to do than the other (share of the busiest). What the kernel does in soft interrupts is not in it.
"""

import glob
import os
from pathlib import Path

import loads
import measure
from scene import product
from scene.proc import Failed

WORKERS = (1, 2)
TUNNELS = 64
RATE, TRAIN, SIZE = 20_000, 16, 1200  # packets a second, packets a tunnel sends at once, bytes; each packet is echoed


def run(course):
    client, gateway, internet = course.stage()
    target = loads.serve_packets(internet)
    count = RATE * course.seconds
    for number in range(course.rounds):
        could = {}
        for workers in WORKERS:
            course.say(f"scaling: round {number + 1} of {course.rounds}, {_named(workers)}")
            home = course.folder / f"{workers}-{number}"
            home.mkdir()
            server = product.Gateway(gateway, home / "gateway", sessions=TUNNELS * 2, top=f"workers = {workers}\n")
            fleet = loads.Fleet(client, home / "fleet", server)
            try:
                fleet.tell("open", TUNNELS)
                fleet.tell("send", RATE, RATE, TRAIN, SIZE, target)
                before = _threads(server.daemon)
                cost, took, report = measure.spent([server.daemon], lambda: fleet.tell("send", count, RATE, TRAIN, SIZE, target))
                spent = [after - before.get(name, 0) for name, after in _threads(server.daemon).items()]
            finally:
                fleet.stop()
                server.stop()
            if len(spent) != workers:
                raise Failed(f"the gateway has {len(spent)} threads named worker-N and not {workers}")
            packets = report["sent"] + report["echoed"]
            if report["echoed"] < report["sent"] * 0.98:
                course.note(f"{_named(workers)}: {report['echoed']:,} of {report['sent']:,} packets came back")
            could[workers] = packets / max(spent)
            course.add(f"CPU a packet, {_named(workers)}", "bauta", cost / packets * 1e6, "µs", "lower")
            course.add(f"packets a second of the gateway's CPU, {_named(workers)}", "bauta", packets / cost, "1/s", "higher")
            course.add(f"cores that the gateway was busy, {_named(workers)}", "bauta", cost / took, "cores", "lower")
            course.add(f"share of the busiest worker, {_named(workers)}", "bauta", max(spent) / sum(spent), "×", "lower", bound=1 / workers)
            course.add(f"packets a second of the busiest worker's CPU, {_named(workers)}", "bauta", could[workers], "1/s", "higher")
        course.add("what two workers carry over what one carries", "bauta", could[2] / could[1], "×", "higher", bound=2.0)


def _named(workers):
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _threads(daemon):
    """CPU seconds of each worker's thread so far."""
    seconds = {}
    for task in map(Path, glob.glob(f"/proc/{daemon.pid}/task/*")):
        name = (task / "comm").read_text().strip()
        if name.startswith("worker-"):
            user, system = (task / "stat").read_text().rpartition(")")[2].split()[11:13]
            # The scheduler's account is in nanoseconds; the other in ticks.
            ticks = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
            seconds[name] = max(int((task / "schedstat").read_text().split()[0]) / 1e9, ticks)
    return seconds
