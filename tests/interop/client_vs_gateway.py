"""Every check of an aioquic client against a running gateway, in order, each bounded in time.

After each check, whatever it did, a tunnel that another client opened at the start must still echo.
One line a check: `ok|FAIL name`, with the reason; then `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from checks import assignment, connect_ip, connect_udp, datagrams, stranger  # noqa: F401 (they register themselves)
from checks.lab import CHECKS, Lab, Witness
from peer.client import Proxy

BOUND = 10  # seconds; those of several abuses open a connection for each


async def run_one(check, lab: Lab, witness: Witness) -> str | None:
    """Why it failed, or None."""
    try:
        await asyncio.wait_for(check(lab), BOUND)
    except Exception as failed:  # noqa: BLE001 (any of them is a failure, and the next check goes on)
        why = f"{type(failed).__name__}: {failed}" if not isinstance(failed, AssertionError) else str(failed)
    else:
        why = None
    try:
        await witness.alive()
    except AssertionError as dead:
        why = f"{why}; {dead}" if why else str(dead)
    return why


async def main() -> int:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--host", required=True, help="address of the gateway")
    args.add_argument("--port", type=int, default=443)
    args.add_argument("--name", required=True, help="name in its certificate")
    args.add_argument("--token", required=True)
    args.add_argument("--ca", required=True)
    args.add_argument("--echo4", default="203.0.113.10")
    args.add_argument("--echo6", default="2001:db8:2::10")
    args.add_argument("--echo-port", type=int, default=7)
    args.add_argument("--narrow", default="203.0.113.12")
    args.add_argument("--own", action="append", default=[], help="an address of the gateway's")
    args.add_argument("--only", default="", help="only the checks whose name contains this")
    args.add_argument("--skip", action="append", default=[], help="leave out checks whose name contains this")
    opts = args.parse_args()

    proxy = Proxy(opts.host, opts.port, opts.name, opts.token, opts.ca)
    lab = Lab(proxy, opts.echo4, opts.echo6, opts.echo_port, opts.own, narrow=opts.narrow)
    witness = Witness(lab)
    passed = failed = 0
    for check in CHECKS:
        name = check.__name__
        if opts.only not in name or any(word in name for word in opts.skip):
            continue
        started = time.monotonic()
        why = await run_one(check, lab, witness)
        took = time.monotonic() - started
        passed, failed = passed + (why is None), failed + (why is not None)
        print(f"{'ok  ' if why is None else 'FAIL'} {name} ({took:.1f} s){'' if why is None else ': ' + why}", flush=True)
    await witness.close()
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
