"""Memory of the gateway for each of 5,000 idle authorised tunnels."""

import time

import loads
from scene import product

TUNNELS, FIRST = 5000, 200  # the first pay for what all share
SETTLE = 3


def run(course):
    client, gateway, _ = course.stage()
    wanted = FIRST + TUNNELS // (20 if course.seconds == 1 else 1)
    for number in range(min(course.rounds, 2)):
        course.say(f"memory: round {number + 1} of {min(course.rounds, 2)}, {wanted} tunnels")
        server = product.Gateway(gateway, course.folder / f"gateway{number}", sessions=wanted)
        fleet = loads.Fleet(client, course.folder / f"fleet{number}", server)
        try:
            fleet.tell("open", FIRST)
            time.sleep(SETTLE)
            before = server.daemon.resident()
            fleet.tell("open", wanted)
            time.sleep(SETTLE)
            growth = (server.daemon.resident() - before) / (wanted - FIRST) / 1024
            course.add(f"an idle tunnel, over {wanted - FIRST:,}", "bauta", growth, "KiB", "lower", "<= 40")
        finally:
            fleet.stop()
            server.stop()
