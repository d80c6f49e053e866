"""What every check is given, and how checks are gathered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from peer import wire
from peer.client import Proxy, Refused, connected, echoes, open_udp
from peer.h3 import Aborted, Stream


@dataclass
class Lab:
    """The gateway and the Internet behind it."""

    proxy: Proxy
    echo4: str  # peer/echo.py on UDP port `port`
    echo6: str
    port: int
    gateway_addresses: list[str]  # its own, which it must not reach for a client
    echo_name: str = "echo.test"  # resolves to echo4
    loop_name: str = "loop.test"  # resolves to 127.0.0.1
    inner4: str = "10.77.0.1"  # the gateway's end of the pools
    inner6: str = "fd62:6175:7461::1"
    narrow: str = ""  # an address behind a link of `narrow_mtu`
    narrow_mtu: int = 1300
    small_page: str = "/"  # a page of the site of more than 1 KiB

    def address(self, version: int) -> IPv4Address | IPv6Address:
        return IPv4Address(self.echo4) if version == 4 else IPv6Address(self.echo6)

    def connected(self, **kw):
        return connected(self.proxy, **kw)

    async def udp(self, end, host: str | None = None, port: int | str | None = None, **kw) -> Stream:
        return await open_udp(end, self.proxy, host or self.echo4, self.port if port is None else port, **kw)


Check = Callable[[Lab], Awaitable[None]]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Registers a check; its name says the rule of the conformance list and what must hold."""
    CHECKS.append(function)
    return function


def same(got, wanted, what: str = "") -> None:
    if got != wanted:
        raise AssertionError(f"{what}{': ' if what else ''}got {got!r}, wanted {wanted!r}")


async def refusal(stream: Stream) -> dict[str, str]:
    """The answer of a request that must not open a tunnel; `{":reset": code}` where it is called malformed."""
    try:
        headers = await stream.response()
    except Aborted as aborted:
        if aborted.what.startswith("the connection"):
            raise
        return {":reset": hex(aborted.code)}
    if headers[":status"].startswith("2"):
        raise AssertionError(f"a tunnel was opened: {headers}")
    return headers


def malformed(headers: dict[str, str]) -> None:
    """A malformed request: a stream error H3_MESSAGE_ERROR (RFC 9114 section 4.1.2), or an error of the client's."""
    if headers.get(":reset", hex(wire.H3_MESSAGE_ERROR)) != hex(wire.H3_MESSAGE_ERROR):
        raise AssertionError(f"reset with {headers[':reset']}, not H3_MESSAGE_ERROR")
    if ":reset" not in headers and not headers[":status"].startswith("4"):
        raise AssertionError(f"status {headers[':status']}, not 4xx")


async def aborts(stream: Stream, *codes: int) -> None:
    """The stream alone must be aborted, with one of the codes where any are given."""
    try:
        code = await stream.aborted()
    except TimeoutError:
        raise AssertionError("the stream was not aborted") from None
    if stream.end.closed_with is not None:
        raise AssertionError(f"the whole connection was closed with {stream.end.closed_with:#x} {stream.end.closed_why!r}")
    if codes and code not in codes:
        raise AssertionError(f"aborted with {code:#x}, wanted {' or '.join(map(hex, codes))}")


async def closes(end, code: int) -> None:
    """The connection must be closed with this code."""
    try:
        got = await end.closed()
    except TimeoutError:
        raise AssertionError(f"the connection was not closed with {code:#x}") from None
    same(hex(got), hex(code), f"connection closed ({end.closed_why})")


class Witness:
    """A tunnel of somebody else, which must go on through every abuse."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.context = None
        self.stream: Stream | None = None

    async def open(self) -> None:
        self.context = self.lab.connected()
        end = await self.context.__aenter__()
        self.stream = await self.lab.udp(end)
        await echoes(self.stream, b"witness")

    async def close(self) -> None:
        if self.context:
            await self.context.__aexit__(None, None, None)
        self.context = self.stream = None

    async def alive(self) -> None:
        """Raises where the tunnel does not echo; then another is opened for the next check."""
        try:
            if self.stream is None:
                await self.open()
            await echoes(self.stream, b"still there?")
        except (Exception, asyncio.CancelledError) as dead:
            await self.close()
            raise AssertionError(f"afterwards another tunnel was dead: {dead!r}") from dead


__all__ = ["CHECKS", "Lab", "Refused", "Witness", "aborts", "check", "closes", "malformed", "refusal", "same"]
