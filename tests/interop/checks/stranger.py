"""What somebody without credentials meets: the website, whatever they ask (conformance rules 77, 82, 83)."""

from peer.client import ip_path, udp_path
from peer.h3 import Headers

from .lab import Lab, check, malformed, refusal, same

UNKNOWN = "/no-such-page-anywhere"


async def page(lab: Lab, headers: Headers, fin: bool) -> tuple[list[tuple[str, str]], bytes]:
    """Header fields (but Date) and content of an answer."""
    async with lab.connected() as end:
        stream = end.request(headers, fin)
        head = await stream.response()
        body = await stream.content()
        return [(k, v) for k, v in head.items() if k != "date"], body


async def answers_like_an_unknown_path(lab: Lab, headers: Headers) -> None:
    wanted = await page(lab, lab.proxy.get(UNKNOWN), True)
    same(wanted[0][0], (":status", "404"), "the site's own answer")
    got = await page(lab, headers, False)
    same(got[0], wanted[0], "header fields")
    if got[1] != wanted[1]:
        raise AssertionError(f"content differs: {len(got[1])} bytes {got[1][:60]!r}, wanted {len(wanted[1])} bytes")


@check
async def stranger_connect_udp_with_a_wrong_token_is_the_sites_404(lab: Lab) -> None:
    await answers_like_an_unknown_path(lab, lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port), token="wrong"))


@check
async def stranger_connect_udp_without_a_token_is_the_sites_404(lab: Lab) -> None:
    await answers_like_an_unknown_path(lab, lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port), token=None))


@check
async def stranger_connect_ip_with_a_wrong_token_is_the_sites_404(lab: Lab) -> None:
    await answers_like_an_unknown_path(lab, lab.proxy.connect("connect-ip", ip_path(), token="wrong"))


@check
async def stranger_connect_ip_without_a_token_is_the_sites_404(lab: Lab) -> None:
    await answers_like_an_unknown_path(lab, lab.proxy.connect("connect-ip", ip_path(), token=None))


@check
async def rule_77_stranger_with_an_unknown_protocol_meets_the_sites_404(lab: Lab) -> None:
    await answers_like_an_unknown_path(lab, lab.proxy.connect("no-such-protocol", UNKNOWN, token=None))


@check
async def stranger_with_a_malformed_target_learns_no_more(lab: Lab) -> None:
    """Credentials are looked at before the target is."""
    await answers_like_an_unknown_path(lab, lab.proxy.connect("connect-udp", udp_path("127.0.0.1", 70000), token=None))


@check
async def stranger_with_every_kind_of_bad_credential_meets_the_sites_404(lab: Lab) -> None:
    for value in (b"", b"Bearer", b"Bearer ", b"Basic !!!", b"Basic Zm9vOmJhcg==", b"bearer \xff\xfe", b"Concealed k=x", b"Bearer " + b"a" * 5000):
        headers = lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port), token=None)
        await answers_like_an_unknown_path(lab, headers + [(b"authorization", value.strip())])


@check
async def stranger_get_of_a_masque_path_is_the_sites_404(lab: Lab) -> None:
    wanted = await page(lab, lab.proxy.get(UNKNOWN), True)
    same(await page(lab, lab.proxy.get(ip_path()), True), wanted)


@check
async def rule_77_unknown_protocol_with_a_token_is_501(lab: Lab) -> None:
    async with lab.connected() as end:
        head = await refusal(end.request(lab.proxy.connect("no-such-protocol", udp_path(lab.echo4, lab.port))))
        same(head.get(":status"), "501")


@check
async def rule_83_the_website_carries_no_proxy_status(lab: Lab) -> None:
    for path in ("/", UNKNOWN):
        head, _ = await page(lab, lab.proxy.get(path), True)
        names = {name for name, _ in head}
        bad = names & {"proxy-status", "capsule-protocol", "via", "proxy-authenticate", "www-authenticate"}
        same(bad, set())


@check
async def rule_34_connect_without_path_is_malformed(lab: Lab) -> None:
    await without(lab, b":path")


@check
async def rule_34_connect_without_scheme_is_malformed(lab: Lab) -> None:
    await without(lab, b":scheme")


@check
async def rule_34_connect_without_authority_is_malformed(lab: Lab) -> None:
    await without(lab, b":authority")


@check
async def rule_34_connect_with_an_empty_path_is_malformed(lab: Lab) -> None:
    async with lab.connected() as end:
        headers = [(k, b"" if k == b":path" else v) for k, v in lab.proxy.connect("connect-udp", "/")]
        malformed(await refusal(end.request(headers)))


async def without(lab: Lab, name: bytes) -> None:
    async with lab.connected() as end:
        headers = lab.proxy.connect("connect-udp", udp_path(lab.echo4, lab.port))
        malformed(await refusal(end.request([(k, v) for k, v in headers if k != name])))
