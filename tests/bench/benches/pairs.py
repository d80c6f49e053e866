"""Sixteen pairs of unlike paths: TCP over both, beside the better of the two alone in the same round.

The pairs are those of the mqvpn project's benchmark; the second figure after a delay is normally distributed jitter, and order is kept.
Each round has a seed of its own. `--rows NAME,…` runs some of the pairs.
"""

import resilient
from scene.proc import Failed

PACKAGES = ["iperf3:iperf3"]
FLOWS = (1, 16)
GOAL = "ratio >= 0.98"
PAIRS = {
    "baseline": ("delay 20ms rate 50mbit", "delay 20ms rate 50mbit"),
    "rtt_40": ("delay 20ms rate 50mbit", "delay 40ms rate 50mbit"),
    "rtt_70": ("delay 20ms rate 50mbit", "delay 70ms rate 50mbit"),
    "rtt_120": ("delay 20ms rate 50mbit", "delay 120ms rate 50mbit"),
    "rtt_320": ("delay 20ms rate 50mbit", "delay 320ms rate 50mbit"),
    "jit_5": ("delay 20ms 5ms normal rate 50mbit", "delay 20ms 5ms normal rate 50mbit"),
    "jit_20": ("delay 20ms 20ms normal rate 50mbit", "delay 20ms 20ms normal rate 50mbit"),
    "loss_05": ("delay 20ms loss 0.5% rate 50mbit", "delay 20ms loss 0.5% rate 50mbit"),
    "loss_2": ("delay 20ms loss 2% rate 50mbit", "delay 20ms loss 2% rate 50mbit"),
    "bw_4to1": ("delay 20ms rate 50mbit", "delay 20ms rate 12mbit"),
    "bw_10to1": ("delay 20ms rate 100mbit", "delay 20ms rate 10mbit"),
    "dual_lte": ("delay 30ms 5ms normal loss 0.5% rate 40mbit", "delay 45ms 8ms normal loss 0.5% rate 25mbit"),
    "fiber_lte": ("delay 8ms rate 300mbit", "delay 40ms 8ms normal loss 0.5% rate 30mbit"),
    "lte_starlink": ("delay 35ms 8ms normal rate 40mbit", "delay 50ms 25ms normal loss 1% rate 100mbit"),
    "lte_geo": ("delay 35ms rate 40mbit", "delay 320ms 20ms normal loss 0.5% rate 20mbit"),
    "congested": ("delay 50ms 20ms normal loss 2% rate 20mbit", "delay 60ms 25ms normal loss 2% rate 15mbit"),
}


def run(course):
    with resilient.rows(course, "pairs", PAIRS) as (wanted, hosts):
        for number in range(course.rounds):
            for name in wanted:
                course.say(f"pairs: round {number + 1} of {course.rounds}, {name}")
                pair(course, hosts, name, number + 1)


def pair(course, hosts, name, seed):
    """Each path alone and both together, with one flow and with many. Seeds go by path, so a path meets the same losses alone."""
    first, second = PAIRS[name]
    try:
        alone = [hosts.undisturbed(lambda: rates(course, hosts, [words], seed)) for words in (first, second)]
        bonded = hosts.undisturbed(lambda: rates(course, hosts, [first, second], seed))
    except Failed as failure:
        course.note(f"{name} FAILED with seed {seed}: {failure}")
        course.broken.append(name)
        return
    for flows in FLOWS:
        metric = f"{name}, TCP down, flows: {flows}"
        course.add(metric, "bauta", bonded[flows], "Mbit/s", "higher", GOAL)
        course.add(metric, "the better path alone", max(rate[flows] for rate in alone), "Mbit/s", "higher", GOAL)


def rates(course, hosts, links, seed):
    """Inner-IP Mbit/s by the number of flows."""
    tunnel = resilient.Bauta(course.folder)
    try:
        hosts.lay(*links, seed=seed)
        tunnel.up(hosts.client, hosts.gateway, *([2] if len(links) > 1 else []))
        return {flows: resilient.tcp(hosts, tunnel.target(), flows, course.seconds) for flows in FLOWS}
    finally:
        tunnel.down()
