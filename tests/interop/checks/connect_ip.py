"""CONNECT-IP's packets: RFC 9484 sections 4.8, 7 and 11, conformance rules 62 to 74."""

import asyncio
import struct
from ipaddress import ip_address

from peer import packet, wire
from peer.client import echoes

from .lab import Lab, check, same
from .tunnel import Tunnel


@check
async def connect_ip_pings_the_internet_over_ipv4(lab: Lab) -> None:
    async with lab.connected() as end:
        await (await Tunnel.open(lab, end)).ping(lab.address(4))


@check
async def connect_ip_pings_the_internet_over_ipv6(lab: Lab) -> None:
    async with lab.connected() as end:
        await (await Tunnel.open(lab, end)).ping(lab.address(6))


@check
async def connect_ip_carries_udp_both_ways(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        for version in (4, 6):
            same((await ask_echo(lab, tunnel, version, b"hello"))[:5], b"hello", f"IPv{version}")


@check
async def connect_ip_pings_the_gateways_inner_address(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        await tunnel.ping(ip_address(lab.inner4))
        await tunnel.ping(ip_address(lab.inner6))


@check
async def rule_19_packet_in_a_datagram_capsule_is_forwarded(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        ping = packet.echo(tunnel.address(4), lab.address(4), 5, 5)
        tunnel.stream.send_capsule(wire.DATAGRAM, b"\0" + ping)
        if not await tunnel.receive(lambda got: got.answers(5, 5)):
            raise AssertionError("no reply")


@check
async def rule_36_64_unknown_context_is_dropped(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        ping = packet.echo(tunnel.address(4), lab.address(4), 6, 6)
        for context in (2, 3, 999):
            tunnel.stream.send_datagram(ping, wire.varint(context))
        same(await tunnel.receive(lambda got: got.answers(6, 6), 0.5), None)
        await tunnel.ping(lab.address(4))


@check
async def rule_62_icmp_is_allowed_in_a_tunnel_for_udp_alone(lab: Lab) -> None:
    async with lab.connected() as end:
        await (await Tunnel.open(lab, end, ipproto="17")).ping(lab.address(4))


@check
async def rule_65_packet_outside_the_scope_is_a_forwarding_error(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end, target=lab.echo4)
        outside = ip_address(lab.echo4) + 1
        tunnel.send(packet.echo(tunnel.address(4), outside, 8, 8))
        same(await tunnel.receive(lambda got: got.answers(8, 8), 0.5), None)
        await tunnel.ping(lab.address(4))


@check
async def rule_65_packets_that_are_no_packets_are_dropped(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        good = packet.echo(tunnel.address(4), lab.address(4), 9, 9)
        wrong = [
            b"", b"\x45", b"\0" * 60, b"\x51" + good[1:], good[:19], good[:27], b"\x41" + good[1:], b"\x4f" + good[1:],
            good[:2] + struct.pack(">H", 4000) + good[4:], good[:2] + struct.pack(">H", 10) + good[4:],
            b"\x60" + bytes(20), packet.echo(tunnel.address(6), lab.address(6), 1, 1)[:41],
        ]  # fmt: skip
        for data in wrong:
            tunnel.send(data)
        await tunnel.ping(lab.address(4))
        await tunnel.ping(lab.address(6))


@check
async def rule_66_ttl_of_one_is_time_exceeded(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        ping = packet.echo(tunnel.address(4), lab.address(4), 10, 10, ttl=1)
        await tunnel.error_for(ping, lambda got: got.icmp == (11, 0))


@check
async def rule_66_hop_limit_of_one_is_time_exceeded(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        ping = packet.echo(tunnel.address(6), lab.address(6), 10, 10, ttl=1)
        await tunnel.error_for(ping, lambda got: got.icmp == (3, 0))


@check
async def rule_67_link_local_source_is_not_forwarded(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        tunnel.send(packet.echo(ip_address("fe80::1234"), lab.address(6), 11, 11))
        same(await tunnel.receive(lambda got: got.answers(11, 11), 0.5), None)
        await tunnel.ping(lab.address(6))


@check
async def rule_69_unreachable_port_is_told(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        for version, wanted in ((4, (3, 3)), (6, (1, 4))):
            data = packet.udp(tunnel.address(version), lab.address(version), 5000, 9, b"x")
            await tunnel.error_for(data, lambda got: got.icmp == wanted)


@check
async def rule_69_70_packet_too_big_for_the_next_link_brings_its_mtu(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        ping = packet.echo(tunnel.address(4), ip_address(lab.narrow), 12, 12, bytes(lab.narrow_mtu + 20))
        same((await tunnel.error_for(ping, lambda got: got.icmp == (3, 4))).mtu, lab.narrow_mtu)


@check
async def rule_70_packet_too_big_for_the_tunnel_tells_its_sender_ipv4(lab: Lab) -> None:
    await too_big_down(lab, 4)


@check
async def rule_70_packet_too_big_for_the_tunnel_tells_its_sender_ipv6(lab: Lab) -> None:
    await too_big_down(lab, 6)


@check
async def rule_68_ipv6_has_its_1280_bytes(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        await tunnel.ping(lab.address(6), size=1232)


@check
async def rule_73_spoofed_source_is_not_forwarded(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        own4, own6 = tunnel.address(4), tunnel.address(6)
        for source in (own4 + 1, ip_address(lab.inner4), ip_address("203.0.113.77"), lab.address(4), ip_address("127.0.0.1")):
            tunnel.send(packet.echo(source, lab.address(4), 13, 13))
        for source in (own6 + 1, lab.address(6), ip_address("2001:db8:99::1")):
            tunnel.send(packet.echo(source, lab.address(6), 13, 13))
        same(await tunnel.receive(lambda got: got.answers(13, 13), 0.7), None)
        await tunnel.ping(lab.address(4))
        await tunnel.ping(lab.address(6))


@check
async def rule_44_65_forbidden_destinations_are_not_reached(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel = await Tunnel.open(lab, end)
        wrong = ["127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.0", "10.77.255.255"]
        for target in [*wrong, "::1", "fe80::1", "::", *lab.gateway_addresses]:
            target = ip_address(target)
            tunnel.send(packet.echo(tunnel.address(target.version), target, 14, 14))
        reached = await tunnel.receive(lambda got: got.answers(14, 14), 0.7)
        same(reached, None)
        await tunnel.ping(lab.address(4))


@check
async def rule_73_one_client_does_not_reach_another(lab: Lab) -> None:
    """`client_to_client` is off unless it is asked for."""
    async with lab.connected() as one, lab.connected() as two:
        a, b = await Tunnel.open(lab, one), await Tunnel.open(lab, two)
        if a.address(4) == b.address(4):
            raise AssertionError(f"both sessions were given {a.address(4)}")
        a.send(packet.echo(a.address(4), b.address(4), 15, 15))
        same(await b.receive(lambda got: got.icmp == (8, 0), 0.5), None)
        await b.ping(lab.address(4))


@check
async def connect_ip_flood_of_one_does_not_stop_the_other(lab: Lab) -> None:
    async with lab.connected() as one, lab.connected() as two:
        a, b = await Tunnel.open(lab, one), await Tunnel.open(lab, two)
        flood = packet.udp(a.address(4), lab.address(4), 5001, 9, bytes(1000))
        for _ in range(10):
            for _ in range(50):
                a.send(flood)
            await b.ping(lab.address(4))


@check
async def connect_ip_and_connect_udp_share_a_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        tunnel, flow = await Tunnel.open(lab, end), await lab.udp(end)
        await asyncio.gather(tunnel.ping(lab.address(4)), echoes(flow), tunnel.ask(4))


async def ask_echo(lab: Lab, tunnel: Tunnel, version: int, data: bytes) -> bytes:
    """One question to the echo server through the tunnel."""
    for attempt in range(3):
        port = 40000 + attempt
        tunnel.send(packet.udp(tunnel.address(version), lab.address(version), port, lab.port, data))
        got = await tunnel.receive(
            lambda got: got.protocol == packet.UDP and struct.unpack_from(">HH", got.payload) == (lab.port, port)
        )
        if got:
            return got.payload[8:]
    raise AssertionError(f"the echo server did not answer over IPv{version}")


async def too_big_down(lab: Lab, version: int) -> None:
    """A client that takes datagrams of at most 1,330 bytes: what is larger must tell its sender the true MTU."""
    async with lab.connected(datagrams=1330) as end:
        tunnel = await Tunnel.open(lab, end)
        overhead = 28 if version == 4 else 48
        source, target = tunnel.address(version), lab.address(version)
        data = packet.udp(source, target, 41000, lab.port, b"SIZE %d" % (1420 - overhead))
        for _ in range(4):
            tunnel.send(data)
            got = await tunnel.receive(lambda got: got.protocol == packet.UDP, 0.5)
            if got and got.payload[8:].startswith(b"EMSGSIZE"):
                mtu = int(got.payload[8:].split()[1])
                if not 1300 <= mtu <= 1330:
                    raise AssertionError(f"the sender was told an MTU of {mtu}")
                break
            if got:
                raise AssertionError(f"a packet of {len(got.payload) + overhead - 8} bytes came through")
        else:
            raise AssertionError("the sender was told nothing")
        # What the gateway told must be true: a packet of just that size comes through.
        tunnel.send(packet.udp(source, target, 41001, lab.port, b"SIZE %d" % (mtu - overhead)))
        got = await tunnel.receive(lambda got: got.protocol == packet.UDP)
        same(got and len(got.payload) - 8, mtu - overhead, "the largest packet that was promised")
