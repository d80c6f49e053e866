"""A tunnel beside 50,000 Initials a second: what is left of its throughput, and what the flood costs the gateway.

Half the Initials are genuine first flights, half garbage; they come from 200 addresses. On a machine of few cores the flood's own program
takes some of them away, so the same flood is aimed first at a port that nobody reads from: the goal speaks of the ratio to that.
"""

import os
import re

import measure
import tunnels
from scene import net, product
from scene.proc import Failed

PACKAGES = ["iperf3:iperf3", "taskset:util-linux"]
RATE, NETWORK, NOBODY = 50_000, "10.66.9.0", 4433


def run(course):
    client, gateway, internet = course.stage()
    load = product.programs() / "examples/flood"
    if not load.exists():
        raise Failed("cargo build --release --locked -p bauta-gateway --example flood builds the flood")
    client.run(["ip", "route", "add", "local", f"{NETWORK}/24", "dev", "lo"])
    gateway.run(["ip", "route", "add", f"{NETWORK}/24", "via", net.CLIENT4])
    nobody = gateway.start("nobody", ["python3", "-c", f"import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('',{NOBODY})); time.sleep(9999)"])
    iperf = measure.Iperf(internet)
    core = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    tunnel = tunnels.Bauta(course.folder)
    tunnel.up(client, gateway)
    try:
        def one(port):
            """(Mbit/s down, CPU seconds of the gateway a second) beside a flood at a port, or without one."""
            daemon = client.start("flood", [*core, load, f"{net.GATEWAY4}:{port}", RATE, course.seconds + 6, NETWORK]) if port else None
            try:
                cost, took, (rate, _) = measure.spent([tunnel.daemons[1]], lambda: iperf.run(client, True, course.seconds))
            finally:
                if daemon:
                    daemon.stop()
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
