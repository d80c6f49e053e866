"""CONNECT-IP's control capsules: RFC 9484 sections 3, 4.6 and 4.7, conformance rules 48 to 61."""

import asyncio
from ipaddress import ip_address, ip_network

from peer import wire
from peer.client import ip_path, opened
from peer.h3 import Aborted
from peer.wire import ADDRESS_ASSIGN, ADDRESS_REQUEST, H3_MESSAGE_ERROR, ROUTE_ADVERTISEMENT, Assigned, Route

from .lab import Lab, aborts, check, malformed, refusal, same
from .tunnel import Tunnel

V4, V6 = bytes([4]), bytes([6])
HOST = ip_address("192.168.50.1")


@check
async def rule_54_addresses_are_assigned_unasked_with_id_zero(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, addresses=False)
        while not tunnel.assigned:
            await tunnel.capsule()
        same({entry.request for entry in tunnel.assigned}, {0})
        await tunnel.ping(lab.address(4))
        await tunnel.ping(lab.address(6))


@check
async def rule_54_56_request_is_answered_under_its_id(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, addresses=False)
        got = await tunnel.request([Assigned(1000, ip_address("0.0.0.0"), 32), Assigned(7, ip_address("::"), 128)])
        same((got[1000].address.version, got[7].address.version), (4, 6))
        await tunnel.ping(lab.address(4))
        await tunnel.ping(lab.address(6))


@check
async def rule_56_an_address_that_cannot_be_had_is_refused_or_replaced(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        got = (await tunnel.request([Assigned(4242, ip_address("8.8.8.8"), 32)]))[4242]
        if not got.refused and got.address not in ip_network("10.77.0.0/16"):
            raise AssertionError(f"assigned {got}")
        await tunnel.ping(lab.address(4))
        again = (await tunnel.request([Assigned(4243, ip_address("0.0.0.0"), 32)]))[4243]
        if got.refused and any(entry.request == 4242 for entry in tunnel.assigned):
            raise AssertionError("the refusal was repeated later")
        same(again.address.version, 4)


@check
async def rule_56_many_requests_in_one_capsule_are_all_answered(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, addresses=False)
        await tunnel.request([Assigned(i, ip_address("0.0.0.0" if i % 2 else "::"), 32 if i % 2 else 128) for i in range(1, 41)])
        await tunnel.ping(lab.address(4))


@check
async def rule_53_assignment_is_the_full_list(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, addresses=False)
        await tunnel.ask(4)
        await tunnel.ask(6)
        await tunnel.ping(tunnel.address(4) and lab.address(4))
        await tunnel.ping(tunnel.address(6) and lab.address(6))


@check
async def rule_55_empty_request_aborts_the_stream(lab: Lab) -> None:
    await abuse(lab, ADDRESS_REQUEST, b"")


@check
async def rule_55_request_id_zero_aborts_the_stream(lab: Lab) -> None:
    await abuse(lab, ADDRESS_REQUEST, Assigned(0, ip_address("0.0.0.0"), 32).encode())


@check
async def rule_55_request_id_used_twice_aborts_the_stream(lab: Lab) -> None:
    entry = Assigned(3, ip_address("0.0.0.0"), 32).encode()
    await abuse(lab, ADDRESS_REQUEST, entry + entry)


@check
async def rule_16_53_malformed_requests_abort_the_stream(lab: Lab) -> None:
    good = Assigned(3, HOST, 32).encode()
    for wrong in (
        b"\x03" + bytes([5]) + HOST.packed + bytes([32]),  # no such IP version
        b"\x03" + V4 + HOST.packed + bytes([33]),  # prefix too long
        b"\x03" + V4 + HOST.packed + bytes([24]),  # bits below the prefix
        b"\x03" + V6 + bytes(16) + bytes([129]),
        good[:-1],  # cut
        good + b"\x04",  # something left
        good + b"\xc0",
    ):
        await abuse(lab, ADDRESS_REQUEST, wrong, H3_MESSAGE_ERROR, witness=False)


@check
async def rule_16_53_malformed_assignments_abort_the_stream(lab: Lab) -> None:
    for wrong in (
        b"\0" + bytes([0]) + HOST.packed + bytes([32]),
        b"\0" + V4 + HOST.packed + bytes([33]),
        b"\0" + V4 + HOST.packed + bytes([24]),
        b"\0" + V4 + HOST.packed,
        b"\0" + V6 + HOST.packed + bytes([32]),
        b"\x40",
    ):
        await abuse(lab, ADDRESS_ASSIGN, wrong, H3_MESSAGE_ERROR, witness=False)


@check
async def rule_58_client_may_assign_to_the_proxy(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        tunnel.stream.send_capsule(ADDRESS_ASSIGN, Assigned(0, ip_address("192.168.50.0"), 24).encode())
        tunnel.stream.send_capsule(ROUTE_ADVERTISEMENT, Route(ip_address("192.168.50.0"), ip_address("192.168.50.255")).encode())
        tunnel.stream.send_capsule(ADDRESS_ASSIGN)
        tunnel.stream.send_capsule(ROUTE_ADVERTISEMENT)
        await tunnel.ping(lab.address(4))


@check
async def rule_59_60_61_advertised_routes_are_ordered_and_reach_the_internet(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        while not tunnel.routes:
            await tunnel.capsule()
        for version in (4, 6):
            target = lab.address(version)
            if not any(route.start.version == version and route.start <= target <= route.end for route in tunnel.routes):
                raise AssertionError(f"{target} is in none of {tunnel.routes}")


@check
async def rule_59_60_malformed_routes_abort_the_stream(lab: Lab) -> None:
    a, b, c, d = (ip_address(f"192.168.50.{n}") for n in (1, 2, 3, 4))
    for wrong in (
        Route(b, a).encode(),  # start above end
        Route(c, d).encode() + Route(a, b).encode(),  # not ascending
        Route(a, c).encode() + Route(b, d).encode(),  # overlapping
        Route(a, b).encode() + Route(b, c).encode(),  # touching
        Route(a, b, 17).encode() + Route(c, d, 6).encode(),  # protocols descending
        Route(ip_address("::1"), ip_address("::2")).encode() + Route(a, b).encode(),  # versions descending
        Route(a, b).encode()[:-1],
        bytes([7]) + Route(a, b).encode()[1:],
    ):
        await abuse(lab, ROUTE_ADVERTISEMENT, wrong, witness=False)


@check
async def rule_48_template_variables_may_be_escaped_wildcards(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = Tunnel(await opened(end.request(lab.proxy.connect("connect-ip", "/.well-known/masque/ip/%2A/%2A/"))))
        await tunnel.ask(4)
        await tunnel.ping(lab.address(4))


@check
async def rule_48_49_bad_scopes_are_malformed(lab: Lab) -> None:
    async with lab.connected() as end:
        for path in (
            ip_path("", "*"), ip_path("*", ""), ip_path("*", "256"), ip_path("*", "-1"), ip_path("*", "udp"),
            ip_path("203.0.113.1/24", "*"), ip_path("203.0.113.0/33", "*"), ip_path("2001:db8::1/64", "*"),
            ip_path("203.0.113.0/", "*"), ip_path("a b", "*"), "/.well-known/masque/ip/203.0.113.0/24/*/",
        ):  # fmt: skip
            try:
                malformed(await refusal(end.request(lab.proxy.connect("connect-ip", path))))
            except AssertionError as failed:
                raise AssertionError(f"{path}: {failed}") from failed


@check
async def rule_49_scope_of_a_prefix_and_protocol_is_what_is_advertised(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, f"{lab.echo4}/32", "17")
        while not tunnel.routes:
            await tunnel.capsule()
        target = lab.address(4)
        same(tunnel.routes, [Route(target, target, 17)])


@check
async def rule_50_scope_of_a_name_advertises_its_addresses(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, lab.echo_name)
        while not tunnel.routes:
            await tunnel.capsule()
        starts = {route.start for route in tunnel.routes}
        same({lab.address(4), lab.address(6)} <= starts, True, f"routes {tunnel.routes}: both addresses are there")
        await tunnel.ping(lab.address(4))


@check
async def rule_44_scope_of_a_forbidden_target_is_refused(lab: Lab) -> None:
    async with lab.connected() as end:
        for target in ("127.0.0.1", "169.254.169.254", "::1", lab.loop_name):
            await refusal(end.request(lab.proxy.connect("connect-ip", ip_path(target))))


@check
async def rule_52_addresses_are_free_again_when_the_stream_ends(lab: Lab) -> None:
    async with lab.connected() as end:
        first = await Tunnel.open(lab, end)
        mine = first.address(4)
        first.stream.send_raw(fin=True)
        await asyncio.wait_for(first.stream.finished.wait(), 3)
        second = await Tunnel.open(lab, end)
        same(second.address(4), mine, "the address of the same account")


async def abuse(lab: Lab, kind: int, value: bytes, *codes: int, witness: bool = True) -> None:
    """A capsule that must abort its stream, and nothing but its stream."""
    async with lab.connected() as end:
        other = await Tunnel.open(lab, end) if witness else None
        tunnel = await Tunnel.open(lab, end, addresses=False)
        tunnel.stream.send_capsule(kind, value)
        try:
            await aborts(tunnel.stream, *codes)
        except (AssertionError, Aborted) as failed:
            raise AssertionError(f"after {value.hex() or 'an empty capsule'}: {failed}") from failed
        if other:
            await other.ping(lab.address(4))
