"""The gateway's CPU a packet with 1 to 10,000 tunnels, the same load over all of them: trains of 16, each from another tunnel."""

import time

import loads
import measure
from scene import product

STEPS = (1, 10, 100, 1000, 10_000)
RATE, TRAIN, SIZE = 20_000, 16, 1200  # packets a second, packets a tunnel sends at once, bytes; each packet is echoed
SETTLE = 2


def run(course):
    client, gateway, internet = course.stage()
    target = loads.serve_packets(internet)
    server = product.Gateway(gateway, course.folder / "gateway", sessions=STEPS[-1])
    fleet = loads.Fleet(client, course.folder / "fleet", server)
    costs = {}
    try:
        for tunnels in STEPS:
            course.say(f"growth: {tunnels:,} tunnels")
            fleet.tell("open", tunnels)
            time.sleep(SETTLE)
            fleet.tell("send", RATE, RATE, TRAIN, SIZE, target)
            for _ in range(course.rounds):
                count = RATE * course.seconds
                cost, _, report = measure.spent([server.daemon], lambda: fleet.tell("send", count, RATE, TRAIN, SIZE, target))
                each = cost / (report["sent"] + report["echoed"]) * 1e6
                course.add(f"CPU a packet, {tunnels:,} tunnels", "bauta", each, "µs", "lower", bound=costs.get(STEPS[0], [None])[0])
                costs.setdefault(tunnels, []).append(each)
                if report["echoed"] < report["sent"] * 0.98:
                    course.note(f"{tunnels:,} tunnels: {report['echoed']:,} of {report['sent']:,} packets came back")
    finally:
        fleet.stop()
        server.stop()
    for first, last in zip(costs[STEPS[0]], costs[STEPS[-1]]):
        course.add(f"CPU a packet at {STEPS[-1]:,} tunnels over that at 1", "bauta", last / first, "×", "lower", "<= 1.15", 1.0)
