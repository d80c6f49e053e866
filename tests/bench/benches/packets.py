"""UDP through CONNECT-IP: packets of 1,200 bytes in trains as QUIC sends them, and small ones by themselves.

As in the bench `tunnel`, each direction has carried such packets before they count.
"""

import loads
import measure
import tunnels

# name, UDP payload, by themselves, goal. A packet of 64 bytes has 36 of payload.
KINDS = (
    ("inner UDP of 1,200 B, in trains", 1200, False, "ratio >= 2"),
    ("packets of 64 B, singly", 36, True, "ratio >= 1.5"),
)
WARM_UP = 3  # seconds


def run(course):
    client, gateway, internet = course.stage()
    target = loads.serve_packets(internet)

    def one(contender):
        contender.up(client, gateway)
        for down in (False, True):
            measure.packets(client, target, WARM_UP, down)
        for name, size, single, goal in KINDS:
            for down in (False, True):
                what = f"{name}, {'down' if down else 'up'}"
                action = lambda: measure.packets(client, target, course.seconds, down, size, single=single)
                cost, _, report = measure.spent(contender.daemons, action)
                course.add(what, contender.name, report["packets_per_second"], "1/s", "higher", {"wireguard-go": goal})
                course.add(f"CPU at both ends a packet, {what}", contender.name, cost / report["total"] * 1e6, "µs", "lower")
                if report["lost"] > 0.02:
                    course.note(f"{contender.name}, {what}: {report['lost']:.1%} of the packets were lost")

    course.alternate(tunnels.best(course.folder), one)
