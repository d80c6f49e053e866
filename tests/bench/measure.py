"""One measurement each: what a program says, turned into a number."""

import json
import re
import time

import loads
from scene import net
from scene.proc import Failed, wait_until

WARM_UP = 1  # seconds of every transfer that are not counted
IPERF_PORT = 5201


class Iperf:
    """iperf3's far end; it serves one measurement after another."""

    def __init__(self, internet):
        self.internet = internet
        self.daemon = internet.start("iperf3", ["iperf3", "-s"])
        wait_until(lambda: f":{IPERF_PORT}" in internet.run(["ss", "-Hltn"]), "iperf3 to listen", daemons=[self.daemon])

    def run(self, client, down, seconds, target=net.INTERNET4, port=IPERF_PORT):
        """One flow of TCP CUBIC by whatever way leads to `target`: (Mbit/s received, bytes of packets at the Internet's interface)."""
        before = _carried(self.internet)
        command = ["iperf3", "-c", target, "-p", port, "-C", "cubic", "-t", seconds, "-O", WARM_UP, "-J", *(["-R"] if down else [])]
        report = json.loads(client.run(command, timeout=seconds + 30, check=False) or "{}")
        if "error" in report or "end" not in report:
            raise Failed(f"iperf3: {report.get('error', 'no report')}")
        return report["end"]["sum_received"]["bits_per_second"] / 1e6, _carried(self.internet) - before

    def background(self, client, seconds, rate="0"):
        """A flow beside something else, of `rate` bits a second; "0" is as many as possible."""
        return client.start("bulk", ["iperf3", "-c", net.INTERNET4, "-C", "cubic", "-t", seconds, "-b", rate])

    def stop(self):
        self.daemon.stop()


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


def packets(client, target, seconds, down=False, size=1200, flows=1, single=False, window=256):
    """What `bauta-packets` brings across: its report. Half a second is added that is not counted."""
    words = ["--direction", "down" if down else "up", "--size", size, "--window", window, "--seconds", seconds + 0.5, "--flows", flows]
    out = client.run([loads.program("bauta-packets"), "run", target, *words, *(["--single"] if single else [])], timeout=seconds + 30)
    report = json.loads(out)
    if not report["packets"]:
        raise Failed(f"bauta-packets: not one packet of {size} bytes arrived")
    return report


def spent(daemons, action):
    """(CPU seconds of the daemons while it ran, seconds, what `action` returned)"""
    before, start = [daemon.cpu_seconds() for daemon in daemons], time.monotonic()
    result = action()
    took = time.monotonic() - start
    return sum(daemon.cpu_seconds() for daemon in daemons) - sum(before), took, result
