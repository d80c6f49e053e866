"""CONNECT-UDP flows: Mbit/s, and packets a CPU second, one flow and sixteen, beside masque-go at both ends."""

import loads
import measure
import relays

GOAL = {"masque-go": "ratio >= 2"}
# name, flows, down, packets under way a flow
KINDS = (("1 flow up", 1, False, 64), ("1 flow down", 1, True, 64), ("16 flows up", 16, False, 32))


def run(course):
    client, gateway, internet = course.stage()
    target = loads.serve_packets(internet)

    def one(contender):
        contender.up(client, gateway, target)
        local = f"127.0.0.1:{relays.LOCAL_PORT}"
        for name, flows, down, window in KINDS:
            action = lambda: measure.packets(client, local, course.seconds, down, 1200, flows, window=window)
            cost, _, report = measure.spent(contender.daemons, action)
            course.add(f"1,200 B, {name}", contender.name, report["mbit_per_second"], "Mbit/s", "higher", GOAL)
            course.add(f"packets a CPU second of both ends, {name}", contender.name, report["total"] / cost, "1/s", "higher", GOAL)
            if report["lost"] > 0.02:
                course.note(f"{contender.name}, {name}: {report['lost']:.1%} of the packets were lost")

    course.alternate([relays.Bauta(course.folder, "udp"), *relays.peers(relays.MasqueGo(course.folder))], one)
