"""What an idle tunnel costs the server in memory: growth of its resident memory over N clients, each a program in a namespace of its own."""

import time

import tunnels
from report import Samples
from scene import net
from scene.proc import Failed

CLIENTS = 16
SETTLE_SECONDS = 2


def run(folder, options, say):
    samples, notes, contenders = Samples(), [], []
    gateway = net.Host("bauta-bench-many", folder)
    clients = []
    for number in range(CLIENTS):
        host = net.Host(f"bauta-bench-c{number}", folder)
        net.cable(host, "eth0", [f"10.9.{number}.2/24"], gateway, f"lan{number}", [f"10.9.{number}.1/24"])
        host.ip("route", "add", "default", "via", f"10.9.{number}.1")
        clients.append(host)
    for contender in tunnels.all_of(folder):
        missing = contender.missing()
        if missing:
            notes.append(f"idle: {contender.name} is left out: {missing}")
        else:
            contenders.append(contender)
    for number in range(options.rounds):
        for contender in list(contenders):
            say(f"idle: round {number + 1} of {options.rounds}, {contender.name}, {CLIENTS} clients")
            joined = []
            try:
                contender.serve(gateway)
                # The first one pays for what all share.
                joined.append(contender.join(clients[0], 0, "10.9.0.1"))
                time.sleep(SETTLE_SECONDS)
                before = contender.server.resident()
                joined += [contender.join(host, n, f"10.9.{n}.1") for n, host in enumerate(clients) if n]
                time.sleep(SETTLE_SECONDS)
                growth = (contender.server.resident() - before) / (CLIENTS - 1) / 1024
                samples.add("idle", "memory of the server a tunnel", contender.name, growth, "KiB", "lower", "<= 1")
            except Failed as failure:
                notes.append(f"idle: {contender.name} is out from round {number + 1}: {failure}")
                contenders.remove(contender)
            finally:
                for client in joined:
                    client.stop()
                contender.down()
    return samples, notes
