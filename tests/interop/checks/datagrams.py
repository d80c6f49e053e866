"""HTTP Datagrams and capsules: RFC 9297, conformance rules 1 to 22, and 76 to 79."""

import asyncio

from peer import wire
from peer.client import echoes, udp_path
from peer.wire import DATAGRAM, H3_DATAGRAM_ERROR, H3_ID_ERROR, H3_MESSAGE_ERROR, H3_REQUEST_INCOMPLETE, H3_SETTINGS_ERROR

from .lab import Lab, aborts, check, closes, malformed, refusal, same


@check
async def rule_76_79_settings_offer_datagrams_and_extended_connect(lab: Lab) -> None:
    async with lab.connected() as end:
        settings = await end.settings()
        same(settings.get(0x33), 1, "H3_DATAGRAM")
        same(settings.get(0x08), 1, "ENABLE_CONNECT_PROTOCOL")
        if not (end._quic._remote_max_datagram_frame_size or 0) >= 1500:
            raise AssertionError(f"max_datagram_frame_size {end._quic._remote_max_datagram_frame_size}")


@check
async def rule_1_datagram_on_a_plain_get_aborts_the_stream(lab: Lab) -> None:
    # The client grants 1 KiB for the answer, so that the request is certainly still open.
    async with lab.connected(stalled=True) as end:
        stream = end.request(lab.proxy.get(lab.small_page))
        for _ in range(20):
            stream.send_datagram(b"what for?")
            await asyncio.sleep(0.05)
            if stream.gone.is_set():
                break
        await aborts(stream, H3_DATAGRAM_ERROR)


@check
async def rule_2_quarter_stream_id_too_large_closes_the_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        await lab.udp(end)
        end.send_datagram_frame(wire.varint(1 << 60) + b"\0x")
        await closes(end, H3_DATAGRAM_ERROR)


@check
async def rule_3_empty_datagram_closes_the_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        await lab.udp(end)
        end.send_datagram_frame(b"")
        await closes(end, H3_DATAGRAM_ERROR)


@check
async def rule_3_datagram_cut_in_its_quarter_stream_id_closes_the_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        await lab.udp(end)
        end.send_datagram_frame(b"\xc0\0\0")
        await closes(end, H3_DATAGRAM_ERROR)


@check
async def rule_5_datagram_after_the_end_of_the_stream_is_dropped(lab: Lab) -> None:
    async with lab.connected() as end:
        other, stream = await lab.udp(end), await lab.udp(end)
        stream.send_raw(fin=True)
        await asyncio.wait_for(stream.finished.wait(), 3)
        for _ in range(10):
            stream.send_datagram(b"too late")
        await echoes(other)


@check
async def rule_6_datagram_of_an_unknown_stream_is_dropped(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for quarter in range(5, 30):
            end.send_datagram_frame(wire.varint(quarter) + b"\0early")
        await echoes(stream)


@check
async def rule_7_datagram_beyond_the_stream_limit_is_an_id_error(lab: Lab) -> None:
    async with lab.connected() as end:
        await lab.udp(end)
        end.send_datagram_frame(wire.varint(1 << 40) + b"\0x")
        await closes(end, H3_ID_ERROR)


@check
async def rule_8_setting_of_two_is_a_settings_error(lab: Lab) -> None:
    async with lab.connected(setting=2) as end:
        await closes(end, H3_SETTINGS_ERROR)


@check
async def rule_9_a_client_without_datagrams_is_served_by_capsules(lab: Lab) -> None:
    async with lab.connected(datagrams=None, setting=None) as end:
        stream = await lab.udp(end)
        stream.send_capsule(DATAGRAM, b"\0over the stream")
        same(await stream.datagram(), b"over the stream")


@check
async def rule_12_unknown_capsule_is_skipped(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for kind in (0x04, 0x1234, 0x3FFF_FFFF_FFFF_FFFF):
            stream.send_capsule(kind, b"?" * 700)
        stream.send_capsule(0x1234)
        await echoes(stream)


@check
async def rule_13_grease_capsule_is_skipped(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for n in (0, 1, 1000, 1 << 40):
            stream.send_capsule(0x29 * n + 0x17, bytes(n % 97))
        await echoes(stream)


@check
async def rule_14_content_length_on_a_capsule_stream_is_malformed(lab: Lab) -> None:
    async with lab.connected() as end:
        path = udp_path(lab.echo4, lab.port)
        malformed(await refusal(end.request(lab.proxy.connect("connect-udp", path, extra=[(b"content-length", b"5")]))))


@check
async def rule_15_capsule_in_single_bytes_is_understood(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        for byte in wire.capsule(0x1234, b"slow") + wire.capsule(DATAGRAM, b"\0in bytes"):
            stream.send_raw(bytes([byte]))
            await asyncio.sleep(0.002)
        same(await stream.datagram(), b"in bytes")


@check
async def rule_15_unknown_capsule_of_three_megabytes_needs_no_memory(lab: Lab) -> None:
    await three_megabytes(lab, 0x1234, b"")


@check
async def rule_17_truncated_capsule_at_the_end_aborts_the_stream(lab: Lab) -> None:
    for cut in (b"\x80", wire.varint(0x1234), wire.capsule(0x1234, b"abc")[:-1], wire.capsule(DATAGRAM, b"\0abc")[:-1]):
        async with lab.connected() as end:
            stream = await lab.udp(end)
            stream.send_raw(cut, fin=True)
            await aborts(stream, H3_MESSAGE_ERROR, H3_REQUEST_INCOMPLETE)


@check
async def rule_18_capsule_protocol_is_sent_and_not_required(lab: Lab) -> None:
    for value in (None, b"1", b"?0", b'"yes"', b"?1;and=more", b"garbage("):
        async with lab.connected() as end:
            headers = [h for h in lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port)) if h[0] != b"capsule-protocol"]
            stream = end.request(headers + ([] if value is None else [(b"capsule-protocol", value)]))
            head = await stream.response()
            same(head[":status"][0], "2", f"status with capsule-protocol {value!r}")
            same(head.get("capsule-protocol"), "?1", f"capsule-protocol of the answer to {value!r}")
            await echoes(stream)


@check
async def rule_19_datagram_capsule_is_accepted_on_h3(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        stream.send_capsule(DATAGRAM, b"\0by capsule")
        same(await stream.datagram(), b"by capsule")


@check
async def rule_20_oversize_datagram_capsule_is_discarded_without_buffering(lab: Lab) -> None:
    # Under a context that nobody knows, so that the 65,527 bytes of RFC 9298 section 5 are not what is tested.
    await three_megabytes(lab, DATAGRAM, b"\x3e")


@check
async def rule_22_integers_longer_than_needed_are_accepted(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        stream.send_raw(wire.capsule(0x1234, b"x", 8, 8))
        stream.send_raw(wire.capsule(DATAGRAM, wire.varint(0, 4) + b"long capsule", 8, 4))
        same(await stream.datagram(), b"long capsule")
        end.send_datagram_frame(wire.varint(stream.id // 4, 8) + wire.varint(0, 8) + b"long datagram")
        same(await stream.datagram(), b"long datagram")


@check
async def rule_36_datagram_without_a_context_id_does_not_end_the_connection(lab: Lab) -> None:
    async with lab.connected() as end:
        other, stream = await lab.udp(end), await lab.udp(end)
        end.send_datagram_frame(wire.varint(stream.id // 4))
        end.send_datagram_frame(wire.varint(stream.id // 4) + b"\xc0\0")
        await echoes(other)


@check
async def rule_78_fin_is_answered_by_fin(lab: Lab) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        await echoes(stream)
        stream.send_raw(fin=True)
        await asyncio.wait_for(stream.finished.wait(), 3)
        same(stream.reset, None, "reset")


@check
async def rule_78_reset_by_the_client_ends_that_tunnel_alone(lab: Lab) -> None:
    async with lab.connected() as end:
        other, stream = await lab.udp(end), await lab.udp(end)
        stream.abort()
        await echoes(other)


@check
async def rule_81_a_thousand_requests_reset_at_once_harm_nobody_else(lab: Lab) -> None:
    async with lab.connected() as end:
        for _ in range(1000):
            if end.closed_with is not None:
                break  # bounded by closing the connection: right (EXCESSIVE_LOAD)
            end.request(lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port))).abort()
            await asyncio.sleep(0)
    async with lab.connected() as end:
        await echoes(await lab.udp(end))


async def three_megabytes(lab: Lab, kind: int, start: bytes) -> None:
    async with lab.connected() as end:
        stream = await lab.udp(end)
        length = 3 << 20
        stream.send_raw(wire.varint(kind) + wire.varint(length) + start)
        left = length - len(start)
        while left:
            piece = min(left, 1 << 16)
            stream.send_raw(bytes(piece))
            left -= piece
            await asyncio.sleep(0)
        stream.send_capsule(DATAGRAM, b"\0behind it")
        same(await stream.datagram(4), b"behind it")
