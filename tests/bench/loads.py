"""Our own load: `bauta-packets` and `bauta-load` (tests/bench/load)."""

import json
import subprocess

from scene import net, product
from scene.proc import Failed, wait_until

PACKETS_PORT = 5300


def program(name):
    return product.programs() / name


def require(*names):
    for name in names:
        if not program(name).exists():
            profile = " --release" if "release" in str(product.programs()) else ""
            package = "bauta-lab" if name == "bauta-link" else "bauta-bench"
            raise Failed(f"{name} is missing: cargo build{profile} --locked -p {package} builds it")


def serve_packets(internet):
    """The far end of `bauta-packets`; returns the target to name."""
    require("bauta-packets")
    daemon = internet.start("packets", [program("bauta-packets"), "serve", f"0.0.0.0:{PACKETS_PORT}"])
    wait_until(lambda: f":{PACKETS_PORT} " in internet.run(["ss", "-Hlun"]), "bauta-packets to listen", daemons=[daemon])
    return f"{net.INTERNET4}:{PACKETS_PORT}"


class Fleet:
    """`bauta-load tunnels`: thousands of tunnels in one process, told what to do line by line."""

    def __init__(self, host, folder, gateway):
        require("bauta-load")
        client = product.Client(host, folder, gateway)
        self.log = host.logs / "fleet.log"
        command = host.inside([program("bauta-load"), "tunnels", "--config", client.config])
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def tell(self, *words):
        """One command; its answer."""
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # What it has to say about that is in its log.
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            why = next((line for line in self.log.read_text(errors="replace").splitlines() if line.startswith("Error")), "no message")
            raise Failed(f"bauta-load ended at `{' '.join(map(str, words))}`: {why}")
        return json.loads(answer)

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
