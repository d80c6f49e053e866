"""CONNECT-UDP: RFC 9298, conformance rules 23 to 44, and Proxy-Status, rules 82 to 86."""

import asyncio

from peer import wire
from peer.client import echoes, opened, udp_path
from peer.wire import DATAGRAM

from .lab import Lab, aborts, check, malformed, refusal, same


@check
async def connect_udp_echoes_over_ipv4(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for size in (0, 1, 500, 1200):
            await echoes(stream, b"e" * size)


@check
async def rule_25_ipv6_literal_with_escaped_colons_is_reached(lab: Lab) -> None:
    async with lab.connected() as end:
        same("%3A" in udp_path(lab.echo6, 7), True, "escaping")
        await echoes(await lab.udp(end, lab.echo6))


@check
async def rule_27_name_is_resolved_by_the_gateway(lab: Lab) -> None:
    async with lab.connected() as end:
        await echoes(await lab.udp(end, lab.echo_name))


@check
async def rule_27_85_unknown_name_is_refused_with_dns_error(lab: Lab) -> None:
    async with lab.connected() as end:
        head = await refusal(end.request(lab.proxy.connect("connect-udp", udp_path("nowhere.test", 7))))
        same(head.get(":status"), "502")
        contains(head, "dns_error")


@check
async def connect_udp_fifty_tunnels_on_one_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        streams = await asyncio.gather(*(lab.udp(end) for _ in range(50)))
        await asyncio.gather(*(echoes(stream, b"%d" % i) for i, stream in enumerate(streams)))


@check
async def rule_25_port_zero_is_malformed(lab: Lab) -> None:
    await bad_path(lab, udp_path(lab.echo4, 0))


@check
async def rule_25_port_70000_is_malformed(lab: Lab) -> None:
    await bad_path(lab, udp_path(lab.echo4, 70000))


@check
async def rule_25_port_that_is_no_number_is_malformed(lab: Lab) -> None:
    for port in ("", "seven", "-7", "+7", "7%00", "0x7"):
        await bad_path(lab, udp_path(lab.echo4, port))


@check
async def rule_25_empty_host_is_malformed(lab: Lab) -> None:
    await bad_path(lab, "/.well-known/masque/udp//7/")


@check
async def rule_25_zone_id_is_refused(lab: Lab) -> None:
    await bad_path(lab, "/.well-known/masque/udp/fe80%3A%3A1%25eth0/7/")


@check
async def rule_26_percent_encoding_is_undone_exactly_once(lab: Lab) -> None:
    async with lab.connected() as end:
        once = lab.echo4.replace(".", "%2E")
        stream = end.request(lab.proxy.connect("connect-udp", f"/.well-known/masque/udp/{once}/{lab.port}/"))
        await echoes(await opened(stream))
        twice = lab.echo4.replace(".", "%252E")
        await refusal(end.request(lab.proxy.connect("connect-udp", f"/.well-known/masque/udp/{twice}/{lab.port}/")))


@check
async def rule_30_unreachable_port_closes_the_stream(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end, port=9)
        for _ in range(3):
            stream.send_datagram(b"nobody there")
            await asyncio.sleep(0.1)
        await ended(stream)
        await echoes(await lab.udp(end))


@check
async def rule_37_unknown_context_is_dropped(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for context in (2, 3, 4000):
            stream.send_datagram(b"unknown", wire.varint(context))
            stream.send_capsule(DATAGRAM, wire.varint(context) + b"unknown")
        stream.send_datagram(b"known")
        same(await stream.datagram(), b"known")


@check
async def rule_38_payload_above_65527_aborts_the_stream(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        stream.send_capsule(DATAGRAM, b"\0" + bytes(65528))
        await aborts(stream)
        await echoes(await lab.udp(end))


@check
async def rule_38_payload_of_65527_does_not_abort_the_stream(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        stream.send_capsule(DATAGRAM, b"\0" + bytes(65527))
        await echoes(stream)


@check
async def rule_39_datagrams_before_the_answer_do_no_harm(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = end.request(lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port)))
        for _ in range(200):
            stream.send_datagram(b"early" * 100)
        await echoes(await opened(stream))


@check
async def rule_42_too_large_an_answer_leaves_the_tunnel_open(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        stream.send_datagram(b"FORCE 1472")
        await asyncio.sleep(0.3)
        while not stream.datagrams.empty():
            got = stream.datagrams.get_nowait()
            if len(got) != 1473:
                raise AssertionError(f"a piece of {len(got)} bytes came instead of all or nothing")
        await echoes(stream)


@check
async def rule_44_forbidden_targets_are_refused(lab: Lab) -> None:
    targets = [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "169.254.1.1", "224.0.0.1", "239.1.1.1", "255.255.255.255",
        "::1", "::", "fe80::1", "ff02::1", "ff05::2", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        lab.loop_name, lab.inner4, lab.inner6, *lab.gateway_addresses,
    ]  # fmt: skip
    wrong = []
    async with lab.connected() as end:
        for target in targets:
            try:
                head = await refusal(end.request(lab.proxy.connect("connect-udp", udp_path(target, lab.port))))
                contains(head, "destination_ip_prohibited")
            except AssertionError as failed:
                wrong.append(f"{target}: {failed}")
    same(wrong, [])


@check
async def rule_82_proxy_status_names_the_deployment(lab: Lab) -> None:
    async with lab.connected() as end:
        head = await refusal(end.request(lab.proxy.connect("connect-udp", udp_path("127.0.0.1", 7))))
        status = head.get("proxy-status", "")
        if "bauta" in status.lower() or not status:
            raise AssertionError(f"proxy-status: {status!r}")


@check
async def rule_86_next_hop_is_told_on_success(lab: Lab) -> None:
    async with lab.connected() as end:
        head = (await lab.udp(end)).headers
        contains(head, "next-hop")
        contains(head, lab.echo4)


@check
async def connect_udp_a_hundred_kilobytes_in_small_datagrams(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        got = 0
        for i in range(100):
            stream.send_datagram(b"%04d" % i + bytes(996))
            try:
                await stream.datagram(1)
                got += 1
            except TimeoutError:
                pass
        if got < 95:
            raise AssertionError(f"{got} of 100 came back on an idle network")


@check
async def classic_connect_reaches_a_tcp_target(lab: Lab) -> None:
    async with lab.connected() as end:
        headers = [
            (b":method", b"CONNECT"),
            (b":authority", f"{lab.echo4}:80".encode()),
            (b"proxy-authorization", f"Bearer {lab.proxy.token}".encode()),
        ]
        stream = end.request(headers)
        head = await stream.response()
        same(head[":status"], "200")
        stream.send_raw(b"GET /who HTTP/1.0\r\nHost: echo.test\r\n\r\n")
        for _ in range(60):
            if stream.body.startswith(b"HTTP/1."):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"no HTTP answer: {bytes(stream.body)[:80]!r}")


@check
async def rule_44_classic_connect_to_loopback_is_refused(lab: Lab) -> None:
    async with lab.connected() as end:
        headers = [
            (b":method", b"CONNECT"),
            (b":authority", b"127.0.0.1:80"),
            (b"proxy-authorization", f"Bearer {lab.proxy.token}".encode()),
        ]
        contains(await refusal(end.request(headers)), "destination_ip_prohibited")


async def bad_path(lab: Lab, path: str) -> None:
    async with lab.connected() as end:
        malformed(await refusal(end.request(lab.proxy.connect("connect-udp", path))))


async def ended(stream) -> None:
    """Closed by FIN or by an abort."""
    done = {asyncio.ensure_future(stream.finished.wait()), asyncio.ensure_future(stream.gone.wait())}
    ready, pending = await asyncio.wait(done, timeout=3, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if not ready:
        raise AssertionError("the stream stayed open")


def contains(head: dict[str, str], word: str) -> None:
    if word not in head.get("proxy-status", ""):
        raise AssertionError(f"no {word} in proxy-status: status {head.get(':status', head)}, proxy-status {head.get('proxy-status')!r}")
