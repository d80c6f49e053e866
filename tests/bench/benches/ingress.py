"""The gateway's CPU a packet by each way in: AF_XDP rings beside the socket, UDP GRO, and `recvmmsg` alone; the whole machine's beside it.

The programs' CPU is the scheduler's account, exact to the nanosecond. That of soft interrupts and of the machine is not to be had from
/proc/stat where the kernel accounts by ticks (`CONFIG_TICK_CPU_ACCOUNTING`, as on Debian): it then charges a whole tick to whatever runs
when the tick comes, and a load that is paced by timers runs in step with ticks. So perf samples all cores by a timer of its own, at a rate
that shares no factor with a tick's, and counts how many samples fall into soft interrupts and how many into no idle task. Both contain
what else the machine does meanwhile: those two rows need one that does nothing else.
"""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import measure
from scene import net, product
from scene.proc import Failed

PACKAGES = ["ethtool:ethtool", "iperf3:iperf3", "perf:linux-perf"]
SAMPLES = 1999  # a second and core
SIZE, RATE = 1200, "300M"  # bytes of UDP inside the tunnel, bits a second: every way carries that
RINGS = '[xdp]\nmode = "{}"\ninterfaces = ["lan"]\n'
ROWS = ("the gateway's CPU", "soft interrupts", "the whole machine's CPU, client and load included")
CARRIED, FRAMES = 'bauta_up_packets_total{kind="connect-ip"}', 'bauta_xdp_frames_total{fate="received"}'


class Way:
    """A gateway that receives in one way, from a client whose kernel sends trains whole or cuts them."""

    def __init__(self, folder, name, mode, whole):
        self.home, self.name, self.mode, self.whole = folder, name, mode, whole
        self.ends = []

    def missing(self):
        return product.missing()

    def up(self, client, gateway):
        # Trains that reach the gateway's veth whole are what GRO makes of them on a network card, without its cost.
        client.run(["ethtool", "-K", "eth0", "tx-udp-segmentation", "on" if self.whole else "off"])
        folder = Path(tempfile.mkdtemp(dir=self.home))
        self.server = product.Gateway(gateway, folder / "gateway", extra=RINGS.format(self.mode) if self.mode else "")
        self.ends = [self.server]
        self.ends.append(product.Client(client, folder / "client", self.server).start())
        self.daemons = [self.server.daemon]

    def counted(self, name):
        """One of the gateway's counters; that of frames is up to a second old."""
        text = self.server.host.run(["curl", "-sf", f"http://{product.ADMIN}/metrics"])
        return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith(name))

    def down(self):
        for end in reversed(self.ends):
            end.stop()
        self.ends = []


def run(course):
    client, gateway, internet = course.stage()
    far = measure.Iperf(internet)
    ways = [
        Way(course.folder, "bauta", "native", True),
        Way(course.folder, "rings, SKB mode", "skb", False),
        Way(course.folder, "socket, GRO", None, True),
        Way(course.folder, "socket, recvmmsg", None, False),
    ]

    def one(way):
        way.up(client, gateway)
        load = ["iperf3", "-u", "-c", net.INTERNET4, "-b", RATE, "-l", SIZE, "-t", course.seconds]
        first, machine = way.counted(CARRIED), Machine(course.folder / "perf.data")
        cost, _, _ = measure.spent(way.daemons, lambda: client.run(load, timeout=course.seconds + 30))
        soft, whole = machine.spent()
        packets = way.counted(CARRIED) - first
        for (name, seconds) in zip(ROWS, (cost, soft, whole)):
            course.add(f"{name}, a packet up", way.name, seconds / packets * 1e6, "µs", "lower")
        if way.mode and way.counted(FRAMES) < packets / 2:
            course.note(f"{way.name}: of {packets:,} packets only {way.counted(FRAMES):,} came by a ring")

    course.note("bauta is the gateway with rings in native mode; its peers here are its other ways in")
    course.alternate(ways, one)
    far.stop()


class Machine:
    """All cores, sampled from now on."""

    def __init__(self, file):
        self.file, self.start = file, time.monotonic()
        command = ["perf", "record", "-q", "-a", "-g", "-F", str(SAMPLES), "-e", "cpu-clock", "-o", str(file)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def spent(self):
        """CPU seconds of all cores since: in soft interrupts, and of any kind but idle."""
        took = time.monotonic() - self.start
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        command = ["perf", "script", "-i", str(self.file), "-F", "comm,ip,sym"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=120, errors="replace").stdout
        stacks = [stack for stack in said.split("\n\n") if stack.strip()]
        if len(stacks) < SAMPLES * took / 4:
            raise Failed(f"perf took {len(stacks)} samples in {took:.1f} s; it may not be allowed to sample the kernel")
        soft = ["softirq" in stack for stack in stacks]
        idle = sum(stack.lstrip().startswith("swapper") and not within for stack, within in zip(stacks, soft))
        each = took * os.cpu_count() / len(stacks)
        return sum(soft) * each, (len(stacks) - idle) * each
