"""Throughput, CPU and added delay of a tunnel between client and gateway, the Internet one hop further."""

import measure
import tunnels
from report import Samples
from scene import net
from scene.proc import Failed

PINGS = 500
TRANSFERS = [(flows, down) for flows in (1, 8) for down in (False, True)]
BENCH = "tunnel"


def run(folder, options, say):
    """Alternates between no tunnel, Bauta and its peers. Returns the samples and what has to be said about them."""
    client, gateway, internet = net.three_hosts("bauta-bench", folder)
    samples, notes, contenders = Samples(), [], []
    for contender in tunnels.all_of(folder):
        missing = contender.missing()
        if missing:
            notes.append(f"tunnel: {contender.name} is left out: {missing}")
        else:
            contenders.append(contender)
    for number in range(options.rounds):
        bare_trips = _bare(client, internet, options, samples, say, number)
        for contender in list(contenders):
            say(f"tunnel: round {number + 1} of {options.rounds}, {contender.name}")
            try:
                contender.up(client, gateway)
                _measure(contender, client, internet, options, samples, bare_trips)
            except Failed as failure:
                notes.append(f"tunnel: {contender.name} is out from round {number + 1}: {failure}")
                contenders.remove(contender)
            finally:
                contender.down()
    return samples, notes


def _bare(client, internet, options, samples, say, number):
    """The same way without a tunnel: what nothing can be better than."""
    say(f"tunnel: round {number + 1} of {options.rounds}, no tunnel")
    internet.ip("route", "add", "198.51.100.0/24", "via", "203.0.113.1")
    try:
        for flows, down in TRANSFERS:
            mbit, _ = measure.throughput(client, internet, flows, down, options.seconds)
            samples.add(BENCH, _name(flows, down), "bare", mbit, "Mbit/s", "higher", ">= 1")
        return measure.round_trips(client, PINGS)
    finally:
        internet.ip("route", "delete", "198.51.100.0/24")


def _measure(contender, client, internet, options, samples, bare_trips):
    spent = carried = 0
    for flows, down in TRANSFERS:
        before = _cpu(contender)
        mbit, size = measure.throughput(client, internet, flows, down, options.seconds)
        each = [after - start for after, start in zip(_cpu(contender), before)]
        samples.add(BENCH, _name(flows, down), contender.name, mbit, "Mbit/s", "higher", ">= 1")
        samples.add(BENCH, f"CPU at both ends, {_name(flows, down)}", contender.name, sum(each) / measure.gigabytes(size), "s/GB", "lower", "<= 1")
        spent, carried = spent + sum(each), carried + size
    samples.add(BENCH, "CPU at both ends, all transfers", contender.name, spent / measure.gigabytes(carried), "s/GB", "lower", "<= 1")
    trips = measure.round_trips(client, PINGS)
    for share, label in ((0.5, "p50"), (0.99, "p99")):
        added = measure.percentile(trips, share) - measure.percentile(bare_trips, share)
        samples.add(BENCH, f"added round-trip time, {label}", contender.name, added, "µs", "lower", "<= 1")


def _cpu(contender):
    return [daemon.cpu_seconds() for daemon in contender.daemons]


def _name(flows, down):
    return f"TCP {'down' if down else 'up'}, {flows} flow{'s' if flows > 1 else ''}"
