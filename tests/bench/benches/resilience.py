"""Loss, bursts, dead paths and queues over emulated links: what comes through, and how late.

Each round has a seed of its own (`--seeds N` says how many; 10 for the record), so that all contenders of a round meet the same losses.
Rates are inner-IP Mbit/s, the bound what headers and loss leave of the link. Hysteria carries payload without inner headers; its rate is that of
packets of 1,400 bytes with the same payload, which can exceed the bound of packets a little. `--rows NAME,…` runs some of the rows:
bulk, single, interactive, bursts, sparse, residual, overhead, switching, queue, rival, bonding, failover, coding.
"""

import os
import statistics
import subprocess
import time

import resilient
import tunnels
from resilient import INNER, Stream, limit
from scene.proc import Failed

PACKAGES = ["iperf3:iperf3"]
LINE = "rate 100mbit delay 25ms"
BULK = ((0.01, 93), (0.05, 89), (0.10, 84), (0.15, 78))
AGAINST_PEERS = 0.05
INTERACTIVE = ((0.01, 91), (0.05, 86), (0.10, 81), (0.15, 75))
BURSTS = ((0.05, 80), (0.10, 73))
# Rate and one-way delay of each path, the goals with one flow and with sixteen, the bound.
BONDS = (
    ("45 Mbit/s 10 ms + 25 Mbit/s 30 ms", ("rate 45mbit delay 10ms", "rate 25mbit delay 30ms"), {1: 66, 16: 66}, 67.1),
    ("2 × 100 Mbit/s 25 ms", ("rate 100mbit delay 25ms",) * 2, {1: 188}, 191.8),
    ("300 Mbit/s 10 ms + 80 Mbit/s 30 ms", ("rate 300mbit delay 10ms", "rate 80mbit delay 30ms"), {1: 350, 16: 358}, 364.4),
)
FAILING = BONDS[0][1]
REGIMES = "".join(f"{2000 * n} - {loss}% -\n" for n, loss in enumerate((0.02, 15, 2, 10))) + "repeat 8000\n"


class Row:
    """One experiment: new links, a tunnel over them, a measurement, in every round."""

    def __init__(self, course, hosts):
        self.course, self.hosts = course, hosts
        self.seconds = max(course.seconds, resilient.LEAST)

    def over(self, contenders, links, measured, paths=1, trace=None):
        """`measured(contender)` is called with everything up."""
        seed = 0

        def one(contender):
            nonlocal seed
            seed += contender.name == "bauta"

            def attempt():
                self.hosts.lay(*links, seed=seed, trace=trace)
                contender.up(self.hosts.client, self.hosts.gateway, *([paths] if paths > 1 else []))
                measured(contender)

            self.hosts.undisturbed(attempt, contender.down)

        # Who fails is out of this row, not of those to come.
        broken, self.course.broken = self.course.broken, []
        self.course.alternate(contenders, one)
        self.course.broken += broken
        self.hosts.clear()

    def ours(self):
        return [resilient.Bauta(self.course.folder)]


def bulk(row):
    for loss, goal in BULK:
        def one(contender):
            rate = resilient.tcp(row.hosts, contender.target(), 8, row.seconds)
            row.course.add(f"bulk, 8 flows down, {loss:.0%} lost", contender.name, rate, "Mbit/s", "higher", f">= {goal}", limit(100, loss))

        peers = resilient.peers(row.course.folder) if loss == AGAINST_PEERS else []
        row.over(row.ours() + peers, [f"{LINE} loss {loss:.0%}"], one)


def single(row):
    """One flow, from the first of a new tunnel on; at the loss that peers meet over other round trips too."""
    cells = [(LINE, 50, loss, goal) for loss, goal in BULK]
    cells += [(f"rate 100mbit delay {rtt // 2}ms", rtt, loss, goal) for rtt in (20, 100, 200) for loss, goal in BULK if loss == AGAINST_PEERS]
    for line, rtt, loss, goal in cells:
        def one(contender):
            rate = resilient.tcp(row.hosts, contender.target(), 1, row.seconds)
            row.course.add(f"one flow down, RTT {rtt} ms, {loss:.0%} lost", contender.name, rate, "Mbit/s", "higher", f">= {goal}", limit(100, loss))

        row.over(row.ours(), [f"{line} loss {loss:.0%}"], one)


def stream(row, what, loss, goal, burst=""):
    def one(contender):
        sent = Stream(row.hosts, INNER, goal * 1e6 / 8 / INNER, row.seconds + resilient.SETTLE).finish()
        row.course.add(f"{what}, {loss:.0%} lost", contender.name, sent["mbit"], "Mbit/s", "higher", f">= {goal * 0.995:.2f}", limit(100, loss))
        row.course.add(f"{what}, {loss:.0%} lost: added p99", contender.name, sent["settled"]["p99"] - 25, "ms", "lower", "<= 30")
        row.course.add(f"{what}, {loss:.0%} lost: added p99 from a new tunnel's first packet on", contender.name, sent["p99"] - 25, "ms", "lower")

    row.over(row.ours(), [f"{LINE} loss {loss:.0%}{burst}"], one)


def interactive(row):
    for loss, goal in INTERACTIVE:
        stream(row, f"stream of {goal} Mbit/s in order", loss, goal)


def bursts(row):
    for loss, goal in BURSTS:
        stream(row, f"stream of {goal} Mbit/s, bursts of 5", loss, goal, " burst 5")


def sparse(row):
    def one(contender):
        with resilient.background(row.hosts, row.seconds + 15):
            time.sleep(2)
            sent = Stream(row.hosts, 200, 100, row.seconds + 7).finish()
        row.course.add("100 packets/s beside bulk, 10% lost: added p99.9", contender.name, sent["p999"] - 50, "ms", "lower", "<= 10", 0)
        row.course.add("100 packets/s beside bulk, 10% lost: lost", contender.name, sent["lost"], "packets", "lower", "<= 0", 0)

    row.over(row.ours(), ["rate 100mbit delay 50ms loss 10%"], one)


def residual(row):
    def one(contender):
        sent = Stream(row.hosts, INNER, 5000, row.seconds * 4).finish()
        row.course.add("lost of 1,000,000 packets, 5% lost on the link", contender.name, sent["lost"] / sent["sent"] * 1e6, "packets", "lower", "<= 1", 0)

    row.over(row.ours(), [f"{LINE} loss 5%"], one)


def overhead(row):
    for loss in (0, 0.05, 0.15):
        def one(contender):
            Stream(row.hosts, INNER, 5000, row.seconds + 4).finish()
            repair = contender.status()["repair"]
            extra = repair["sent"] + repair["retransmitted"] + repair["copies"]
            if loss:
                times = extra / max(repair["numbered"], 1) / (loss / (1 - loss))
                row.course.add(f"repair and retransmission, × p/(1−p), {loss:.0%} lost", contender.name, times, "×", "lower", "<= 1.6", 1)
            else:
                row.course.add("repair on a clean link", contender.name, extra, "packets", "lower", "<= 0", 0)

        row.over(row.ours(), [LINE + (f" loss {loss:.0%}" if loss else "")], one)


def switching(row):
    offered = 80

    def one(contender):
        sent = Stream(row.hosts, INNER, offered * 1e6 / 8 / INNER, 16).finish()
        row.course.add("0.02–15% in turn, 2 s each: share of the bound of 80 Mbit/s", contender.name, sent["mbit"] / offered * 100, "%", "higher", ">= 95", 96.2)
        row.course.add("0.02–15% in turn, 2 s each: added p99", contender.name, sent["p99"] - 25, "ms", "lower", "<= 60", 43)

    row.over(row.ours(), [LINE], one, trace=REGIMES)


def queue(row):
    for name, words in (("one BDP", "1bdp"), ("5 ms", "5ms")):
        def one(contender):
            resilient.tcp(row.hosts, contender.target(), 1, row.seconds)
            waited = row.hosts.links[0].stats("down")["queue_mean"] * 8 / 100e3
            row.course.add(f"mean wait on a link with a queue of {name}", contender.name, waited, "ms", "lower", "<= 5", 0)

        row.over(row.ours(), [f"{LINE} queue {words}"], one)


def rival(row):
    tunnel = resilient.Bauta(row.course.folder, f'exclude = ["{resilient.RIVAL}/32"]\n')
    contenders = [tunnel] + ([] if tunnels.ALONE else [resilient.Bare(row.hosts.internet)])
    for name, words in (("one BDP", "1bdp"), ("5 ms", "5ms")):
        def one(contender):
            own, other = resilient.beside(row.hosts, contender, row.seconds * 3)
            row.course.add(f"what a CUBIC rival keeps, queue of {name}", contender.name, other, "Mbit/s", "higher", ">= 40", 50)
            row.course.add(f"what the flow beside it gets, queue of {name}", contender.name, own, "Mbit/s", "higher", bound=50)

        row.over(contenders, [f"{LINE} queue {words}"], one)


def bonding(row):
    for name, links, goals, bound in BONDS:
        for flows, goal in goals.items():
            def one(contender):
                rate = resilient.tcp(row.hosts, contender.target(), flows, row.seconds + 2)
                row.course.add(f"{name}, TCP down, flows: {flows}", contender.name, rate, "Mbit/s", "higher", f">= {goal}", bound)

            row.over(row.ours(), links, one, paths=2)


def failover(row):
    for dead, goal, bound in ((0, 55, 40), (1, 40, 20)):
        which = "the faster" if dead == 0 else "the slower"

        def one(contender):
            kills = row.course.samples.values.get(f"{which} path dies: lost", {}).get("bauta", [])
            going = Stream(row.hosts, 1228, 2000, 6)
            # Not at the same phase of anything in every round.
            time.sleep(3 + 0.037 * len(kills))
            row.hosts.links[dead].tell("blackhole on")
            sent = going.finish()
            row.course.add(f"{which} path dies: lost", contender.name, sent["lost"], "packets", "lower", "<= 0", 0)
            row.course.add(f"{which} path dies: longest silence", contender.name, sent["gap_ms"], "ms", "lower", f"<= {goal}", bound)

        row.over(row.ours(), FAILING, one, paths=2)


def coding(row):
    """Pure computation, no link: `fec/examples/coding.rs`, the window's codec."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "bauta-fec", "--example", "coding"]
    for _ in range(row.course.rounds):
        done = subprocess.run(command, cwd=tunnels.ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "CARGO_NET_OFFLINE": "true"})
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("Slc")]
        if done.returncode or not lines:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        for _, loss, _, _, encoder, decoder, *_ in lines:
            goal = "<= 0.1" if float(loss) == 5 else None
            for end, cost in (("encoder", encoder), ("decoder", decoder)):
                row.course.add(f"CPU of coding, {end}, {float(loss):.0f}% lost", "bauta", float(cost), "core·s/Gbit", "lower", goal)


ROWS = {f.__name__: f for f in (bulk, single, interactive, bursts, sparse, residual, overhead, switching, queue, rival, bonding, failover, coding)}


def run(course):
    with resilient.rows(course, "resilience", ROWS) as (wanted, hosts):
        for name in wanted:
            ROWS[name](Row(course, hosts))
    spread(course)


def spread(course):
    """Medians stand in the table; how far the rounds lay apart is said beside it."""
    for metric, who in course.samples.values.items():
        values = sorted(who.get("bauta", []))
        if len(values) > 1:
            course.note(f"{metric}: {values[0]:.4g} to {values[-1]:.4g}, median {statistics.median(values):.4g}, {len(values)} seeds")
