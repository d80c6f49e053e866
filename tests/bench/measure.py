"""One measurement each: what a program says, turned into a number."""

import json
import re

from scene import net
from scene.proc import Failed, wait_until

WARM_UP = 1  # seconds of every transfer that are not counted


def throughput(client, internet, flows, down, seconds):
    """TCP CUBIC through whatever route the client has: (Mbit/s received, bytes of packets at the Internet's interface)."""
    before = _carried(internet)
    server = internet.start("iperf3", ["iperf3", "-s", "-1", "-J"])
    try:
        listening = lambda: ":5201" in internet.run(["ss", "-Hltn"])
        wait_until(listening, "iperf3 to listen", daemons=[server])
        command = ["iperf3", "-c", net.INTERNET4, "-C", "cubic", "-t", seconds, "-P", flows, "-O", WARM_UP, "-J"]
        report = json.loads(client.run([*command, *(["-R"] if down else [])], timeout=seconds + 30, check=False) or "{}")
        if "error" in report or "end" not in report:
            raise Failed(f"iperf3: {report.get('error', 'no report')}")
        received = report["end"]["sum_received"]
        return received["bits_per_second"] / 1e6, _carried(internet) - before
    finally:
        server.stop()


def _carried(internet):
    return internet.counter("eth0", "rx_bytes") + internet.counter("eth0", "tx_bytes")


def round_trips(client, count, interval=0.01):
    """Round-trip times of pings to the Internet in microseconds, sorted."""
    out = client.run(["ping", "-n", "-i", interval, "-c", count, net.INTERNET4], timeout=count * interval + 20, check=False)
    times = sorted(float(ms) * 1000 for ms in re.findall(r"time=([\d.]+) ms", out))
    if len(times) < count * 0.98:
        raise Failed(f"{count - len(times)} of {count} pings were lost")
    return times


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def gigabytes(size):
    return size / 1e9
