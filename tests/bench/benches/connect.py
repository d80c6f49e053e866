"""TCP through CONNECT over HTTP/3, one flow in each direction, beside Hysteria 2 and shadowsocks."""

import measure
import relays
from scene import net

PACKAGES = ["iperf3:iperf3"]
GOALS = {"hysteria": "ratio >= 2", "shadowsocks": "ratio >= 0.6"}


def run(course):
    client, gateway, internet = course.stage()
    iperf = measure.Iperf(internet)

    def one(contender):
        contender.up(client, gateway, f"{net.INTERNET4}:{measure.IPERF_PORT}")
        for down in (False, True):
            way = "down" if down else "up"
            action = lambda: iperf.run(client, down, course.seconds, "127.0.0.1", relays.LOCAL_PORT)
            cost, _, (mbit, size) = measure.spent(contender.daemons, action)
            course.add(f"TCP {way}, 1 flow", contender.name, mbit, "Mbit/s", "higher", GOALS)
            course.add(f"CPU at both ends, TCP {way}", contender.name, cost / size * 1e9, "s/GB", "lower")

    contenders = [relays.Bauta(course.folder, "tcp"), *relays.peers(relays.Hysteria(course.folder), relays.Shadowsocks(course.folder))]
    course.alternate(contenders, one)
    iperf.stop()
