"""Round-trip time that a tunnel adds: idle, beside a bulk flow at full speed, and beside one of 500 Mbit/s."""

import time

import measure
import tunnels
from links import undisturbed

PACKAGES = ["iperf3:iperf3"]
PINGS = 1000  # of which ten are above the 99th percentile
BULK = (("beside a bulk flow", "0"), ("beside 500 Mbit/s", "500M"))
SETTLE = 1  # seconds until a bulk flow has found its speed


def run(course):
    client, gateway, internet = course.stage()
    iperf = measure.Iperf(internet)
    internet.ip("route", "add", "198.51.100.0/24", "via", "203.0.113.1")
    course.say("delay: no tunnel")
    bare = measure.round_trips(client, PINGS)
    internet.ip("route", "delete", "198.51.100.0/24")

    def note(what, contender, trips, goals):
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            added = measure.percentile(trips, share) - measure.percentile(bare, share)
            course.add(f"added round-trip time, {what}, {label}", contender.name, added, "µs", "lower", goals.get(label))

    def beside(rate):
        bulk = iperf.background(client, PINGS // 100 + SETTLE + 2, rate)
        time.sleep(SETTLE)
        trips = measure.round_trips(client, PINGS)
        bulk.process.wait(PINGS // 100 + 20)
        return trips

    def one(contender):
        contender.up(client, gateway)
        measure.round_trips(client, 20)
        idle = undisturbed(course, lambda: measure.round_trips(client, PINGS))
        note("idle", contender, idle, {label: {"wireguard-go": "ratio <= 1"} for label in ("p50", "p99")})
        for what, rate in BULK:
            trips = undisturbed(course, lambda: beside(rate))
            note(what, contender, trips, {"p99": {"wireguard-go": "<= 2000"}})

    course.alternate(tunnels.best(course.folder), one)
    iperf.stop()
