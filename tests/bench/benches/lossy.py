"""Bauta and its peers over lossy links, cell by cell: goodput, added delay, overhead, CPU.

A cell is a kind of loss (`iid`, or `burst` with a mean of five), its share in per cent and a round-trip time in ms: `iid-5-50`. All links
carry 100 Mbit/s. In each, eight CUBIC flows down (BBR where the name says so) give goodput and CPU; a stream of 20 Mbit/s up, the links'
only load, gives the delay it adds to the link's own and how many more bytes are on the link than in the packets. Hysteria relays TCP here
and has no stream. `--rows iid-5,burst` takes the cells whose names begin so; all forty take two hours a round.
"""

import measure
import resilient
from links import Hosts
from scene.proc import Failed

PACKAGES = ["iperf3:iperf3"]
RATE = 100  # Mbit/s of a link
LOSSES, TRIPS = (0, 1, 5, 10, 15), (20, 50, 100, 200)
CELLS = [(kind, loss, rtt) for kind in ("iid", "burst") for loss in LOSSES for rtt in TRIPS if loss or kind == "iid"]
STREAM, SECONDS = 20e6, 4  # bits a second, seconds
GOODPUT, P50, P99, MORE, CPU = ("goodput", "Mbit/s"), ("added p50", "ms"), ("added p99", "ms"), ("overhead", "%"), ("CPU", "s/GB")
METRICS = (GOODPUT, P50, P99, MORE, CPU)


def name_of(kind, loss, rtt):
    return f"{kind}-{loss}-{rtt}"


def run(course):
    wanted = [cell for cell in CELLS if not course.rows or any(f"{name_of(*cell)}-".startswith(f"{row}-") for row in course.rows)]
    if not wanted:
        raise Failed(f"lossy has no cell {', '.join(course.rows)}; there are {name_of(*CELLS[0])} to {name_of(*CELLS[-1])}")
    hosts = Hosts(course)
    try:
        for number, cell in enumerate(wanted):
            course.say(f"lossy: cell {number + 1} of {len(wanted)}, {name_of(*cell)}")
            measured(course, hosts, *cell)
    finally:
        hosts.clear()


def measured(course, hosts, kind, loss, rtt):
    words = f"rate {RATE}mbit delay {rtt / 2}ms" + (f" loss {loss}%" if loss else "") + (" burst 5" if kind == "burst" else "")
    bound = resilient.limit(RATE, loss / 100)
    turns = {}

    def add(who, metric, value):
        better = "higher" if metric is GOODPUT else "lower"
        course.add(f"{name_of(kind, loss, rtt)}: {metric[0]}", who, value, metric[1], better, bound=bound if metric is GOODPUT else None)

    def one(contender):
        turns[contender.name] = turns.get(contender.name, 0) + 1
        hosts.undisturbed(lambda: attempt(contender), contender.down)

    def attempt(contender):
        hosts.lay(words, seed=turns[contender.name])
        contender.up(hosts.client, hosts.gateway)
        control = getattr(contender, "control", "cubic")
        seconds = max(course.seconds, resilient.LEAST)
        bulk = lambda: resilient.tcp(hosts, contender.target(), 8, seconds, control=control)
        cost, _, rate = measure.spent(contender.daemons, bulk)
        add(contender.name, GOODPUT, rate)
        # What was carried before the count began cost as much a byte.
        add(contender.name, CPU, cost / (rate * 1e6 / 8 * (seconds + resilient.SETTLE) / 1e9))
        if isinstance(contender, resilient.Relay):
            return
        hosts.links[0].tell("reset")
        sent = resilient.Stream(hosts, resilient.INNER, STREAM / 8 / resilient.INNER, SECONDS).finish()
        add(contender.name, P50, sent["p50"] - rtt / 2)
        add(contender.name, P99, sent["p99"] - rtt / 2)
        add(contender.name, MORE, (hosts.links[0].stats("up")["bytes_in"] / (sent["sent"] * resilient.INNER) - 1) * 100)

    broken, course.broken = course.broken, []
    course.alternate([resilient.Bauta(course.folder)] + resilient.rivals(course.folder), one)
    course.broken += broken
    hosts.clear()


def compact(rows):
    """For people: a line a cell and metric, a column a contender."""
    cells, names = {}, ["bauta"]
    for row in rows:
        line = cells.setdefault(row["metric"], {"unit": row["unit"], "bound": row["bound"]})
        if row["bauta"] is not None:
            line["bauta"] = row["bauta"]
        if row["peer"] and row["peer_value"] is not None:
            line[row["peer"]] = row["peer_value"]
            names += [row["peer"]] if row["peer"] not in names else []
    value = lambda line, key: "–" if line.get(key) is None else f"{line[key]:.3g}"
    head = ["cell", "unit", *names, "bound"]
    table = [head, ["---"] * len(head)]
    table += [[metric, line["unit"], *(value(line, name) for name in names), value(line, "bound")] for metric, line in cells.items() if line["unit"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)
