"""A tunnel beside 50,000 Initials a second: what is left of its throughput, and what the flood costs the gateway.

Half the Initials are genuine first flights, half garbage; they come from 200 addresses of a host of its own. On a machine of few cores the
flood's own program takes some of them away, so the same flood is aimed first at a port that nobody reads from: the goal speaks of the ratio
to that. What the gateway did to the Initials is read from its metrics, and its memory from the kernel.
"""

import os
import re
import time
from pathlib import Path

import measure
import tunnels
from scene import net, product
from scene.proc import Failed

PACKAGES = ["iperf3:iperf3", "taskset:util-linux"]
RATE, NETWORK, TARGET, NOBODY = 50_000, "10.66.9.0", "10.66.10.1", 4433


def run(course):
    client, gateway, internet = course.stage()
    load = product.programs() / "examples/flood"
    if not load.exists():
        raise Failed("cargo build --release --locked -p bauta-gateway --example flood builds the flood")
    # Not the tunnel's client: what it sends beside the tunnel is dropped, as it should be.
    crowd = net.Host(f"bb-{course.name}-crowd", course.folder)
    net.cable(crowd, "eth0", ["10.66.10.2/24"], gateway, "crowd", [f"{TARGET}/24"])
    crowd.run(["ip", "route", "add", "local", f"{NETWORK}/24", "dev", "lo"])
    gateway.run(["ip", "route", "add", f"{NETWORK}/24", "via", "10.66.10.2"])
    nobody = gateway.start("nobody", ["python3", "-c", f"import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',{NOBODY})); time.sleep(9999)"])
    iperf = measure.Iperf(internet)
    core = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    tunnel = tunnels.Bauta(course.folder)
    tunnel.up(client, gateway)
    try:
        def one(port):
            """(Mbit/s down, CPU seconds of the gateway a second) beside a flood at a port, or without one."""
            before = door(gateway)
            daemon = crowd.start("flood", [*core, load, f"{TARGET}:{port}", RATE, course.seconds + 6, NETWORK]) if port else None
            try:
                cost, took, (rate, _) = measure.spent([tunnel.daemons[1]], lambda: iperf.run(client, True, course.seconds))
            finally:
                if daemon:
                    daemon.stop()
            time.sleep(1.5)  # the counters are a second behind at most
            met = {fate: n - before[fate] for fate, n in door(gateway).items()}
            course.note(f"{met}, the gateway holds {memory(tunnel.daemons[1])} MiB")
            if port == product.PORT and sum(met.values()) < RATE:
                raise Failed(f"the flood did not reach the gateway: {met}")
            return rate, cost / took

        for _ in range(course.rounds):
            for name, port in (("no flood", None), ("flood at another port", NOBODY), ("flood at the gateway", product.PORT)):
                rate, cpu = one(port)
                who = "bauta" if port == product.PORT else name
                goal = {"flood at another port": "ratio >= 0.9"}
                course.add("throughput of a tunnel beside 50,000 Initials/s", who, rate, "Mbit/s", "higher", goal)
                course.add("CPU of the gateway meanwhile", who, cpu, "s/s", "lower")
    finally:
        tunnel.down()
        iperf.stop()
        nobody.stop()


def door(gateway):
    """What became of first Initials since the gateway began, by the gateway's own count."""
    text = gateway.run(["curl", "-sf", "-m", 5, f"http://{product.ADMIN}/metrics"])
    return {fate: int(n) for fate, n in re.findall(r'bauta_door_total{fate="(\w+)"} (\d+)', text)}


def memory(daemon):
    """Resident memory of a daemon at its highest, in MiB."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024
