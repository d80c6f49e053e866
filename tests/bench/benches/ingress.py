"""The gateway's CPU a packet by each way in: AF_XDP rings beside the socket, UDP GRO, and `recvmmsg` alone; the whole machine's beside it."""

import tempfile
from pathlib import Path

import measure
from scene import net, product

PACKAGES = ["ethtool:ethtool", "iperf3:iperf3"]
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
        before, first = machine(), way.counted(CARRIED)
        cost, _, _ = measure.spent(way.daemons, lambda: client.run(load, timeout=course.seconds + 30))
        soft, whole = (after - start for after, start in zip(machine(), before))
        packets = way.counted(CARRIED) - first
        for (name, seconds) in zip(ROWS, (cost, soft, whole)):
            course.add(f"{name}, a packet up", way.name, seconds / packets * 1e6, "µs", "lower")
        if way.mode and way.counted(FRAMES) < packets / 2:
            course.note(f"{way.name}: of {packets:,} packets only {way.counted(FRAMES):,} came by a ring")

    course.note("bauta is the gateway with rings in native mode; its peers here are its other ways in")
    course.alternate(ways, one)
    far.stop()


def machine():
    """CPU seconds so far of all cores: in soft interrupts, and of any kind but idle and waiting."""
    fields = [int(word) / 100 for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, hard, soft = fields[:7]
    return soft, user + nice + system + hard + soft
