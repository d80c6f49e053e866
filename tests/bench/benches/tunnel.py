"""TCP through CONNECT-IP, one flow in each direction, and what it costs both ends.

Tunnels are up for hours: each direction has carried the same for some seconds before it counts. Bauta's numbers its packets for the
first two, until a path has proven clean.
"""

import measure
import tunnels

PACKAGES = ["iperf3:iperf3"]
# 1,400-byte inner packets, crypto and I/O alone, both ends; in CPU seconds a GB.
BOUND = 2.0
WARM_UP = 3  # seconds


def run(course):
    client, gateway, internet = course.stage()
    iperf = measure.Iperf(internet)

    def one(contender):
        contender.up(client, gateway)
        total = carried = 0
        for down in (False, True):
            way = "down" if down else "up"
            iperf.run(client, down, WARM_UP)
            cost, _, (mbit, size) = measure.spent(contender.daemons, lambda: iperf.run(client, down, course.seconds))
            course.add(f"TCP {way}, 1 flow", contender.name, mbit, "Mbit/s", "higher", {"wireguard-go": "ratio >= 2"})
            course.add(f"CPU at both ends, TCP {way}", contender.name, cost / size * 1e9, "s/GB", "lower", {"wireguard-go": "ratio <= 0.5"}, BOUND)
            total, carried = total + cost, carried + size
        course.add("CPU at both ends, both ways", contender.name, total / carried * 1e9, "s/GB", "lower", {"wireguard-go": "ratio <= 0.5"}, BOUND)

    bare(course, client, internet, iperf)
    course.alternate(tunnels.best(course.folder), one, once=tunnels.others(course.folder))
    iperf.stop()


def bare(course, client, internet, iperf):
    """The same way without a tunnel: what nothing can be better than."""
    course.say(f"{course.name}: no tunnel")
    internet.ip("route", "add", "198.51.100.0/24", "via", "203.0.113.1")
    for down in (False, True):
        mbit, _ = iperf.run(client, down, 1)
        course.add(f"TCP {'down' if down else 'up'}, 1 flow", "bare", mbit, "Mbit/s", "higher", {"wireguard-go": "ratio >= 2"})
    internet.ip("route", "delete", "198.51.100.0/24")
