use super::*;
use crate::packet::tests::{v4, v6};
use proptest::prelude::*;

const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

fn about(e: IcmpError, packet: &[u8]) -> Option<Vec<u8>> {
    let view = PacketView::parse(packet).unwrap();
    error(e, &view, if view.is_v4() { ROUTER4 } else { ROUTER6 })
}

fn assert_sound(packet: &[u8]) {
    let view = PacketView::parse(packet).unwrap();
    assert!(view.is_icmp());
    match (view.source(), view.destination()) {
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let sum = checksum::pseudo_v6(s, d, 58, view.upper().len());
            assert_eq!(checksum::finish(checksum::add(sum, view.upper())), 0);
        }
        _ => {
            assert_eq!(checksum::checksum(&packet[..20]), 0);
            assert_eq!(checksum::checksum(view.upper()), 0);
        }
    }
}

#[test]
fn rule_69_errors_have_the_codes_of_the_rfcs() {
    let table = [
        (IcmpError::NoRoute, (3, 0), (1, 0)),
        (IcmpError::Prohibited, (3, 13), (1, 1)),
        (IcmpError::SourcePolicy, (3, 13), (1, 5)),
        (IcmpError::AddressUnreachable, (3, 1), (1, 3)),
        (IcmpError::TooBig(1400), (3, 4), (2, 0)),
        (IcmpError::TimeExceeded, (11, 0), (3, 0)),
    ];
    for (e, four, six) in table {
        let reply = about(e, &v4("192.0.2.1", "198.51.100.2", 17, b"12345678")).unwrap();
        assert_eq!((reply[20], reply[21]), four, "{e:?}");
        assert_sound(&reply);
        let reply = about(e, &v6("2001:db8::1", "2001:db8::2", 17, b"12345678")).unwrap();
        assert_eq!((reply[40], reply[41]), six, "{e:?}");
        assert_sound(&reply);
    }
}

#[test]
fn rule_69_packet_too_big_carries_the_true_mtu() {
    let reply =
        about(IcmpError::TooBig(1279), &v4("192.0.2.1", "192.0.2.9", 6, &[0; 2000])).unwrap();
    assert_eq!(reply[24..28], 1279u32.to_be_bytes());
    let reply = about(IcmpError::TooBig(1399), &v6("::2", "::9", 6, &[0; 2000])).unwrap();
    assert_eq!(reply[44..48], 1399u32.to_be_bytes());
}

#[test]
fn the_quotation_is_bounded() {
    let big = v4("192.0.2.1", "192.0.2.9", 6, &[7; 2000]);
    let reply = about(IcmpError::NoRoute, &big).unwrap();
    assert_eq!((reply.len(), &reply[28..]), (MAX_V4, &big[..MAX_V4 - 28]));
    let big = v6("::2", "::9", 6, &[7; 2000]);
    let reply = about(IcmpError::NoRoute, &big).unwrap();
    assert_eq!((reply.len(), &reply[48..]), (MAX_V6, &big[..MAX_V6 - 48]));
    let small = v4("192.0.2.1", "192.0.2.9", 6, b"");
    assert_eq!(about(IcmpError::NoRoute, &small).unwrap().len(), 48);
}

#[test]
fn rule_69_never_about_an_icmp_error() {
    for kind in [3, 4, 5, 11, 12] {
        let p = v4("192.0.2.1", "192.0.2.9", 1, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(IcmpError::NoRoute, &p), None, "type {kind}");
    }
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        let p = v6("::2", "::9", 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(about(IcmpError::NoRoute, &p), None, "type {kind}");
    }
    assert_eq!(about(IcmpError::NoRoute, &v4("192.0.2.1", "192.0.2.9", 1, &[])), None);
    let echo = v4("192.0.2.1", "192.0.2.9", 1, &[8, 0, 0, 0, 0, 0, 0, 0]);
    assert!(about(IcmpError::NoRoute, &echo).is_some());
}

#[test]
fn never_about_a_later_fragment_or_to_or_from_many() {
    let mut p = v4("192.0.2.1", "192.0.2.9", 17, b"12345678");
    p[7] = 1;
    assert_eq!(about(IcmpError::NoRoute, &p), None);
    for (s, d) in [
        ("192.0.2.1", "224.0.0.5"),
        ("192.0.2.1", "255.255.255.255"),
        ("0.0.0.0", "192.0.2.9"),
        ("224.0.0.5", "192.0.2.9"),
        ("127.0.0.1", "192.0.2.9"),
    ] {
        assert_eq!(about(IcmpError::NoRoute, &v4(s, d, 17, b"")), None, "{s} {d}");
    }
    for (s, d) in [("::2", "ff02::5"), ("::", "::9"), ("ff02::1", "::9"), ("::1", "::9")] {
        assert_eq!(about(IcmpError::NoRoute, &v6(s, d, 17, b"")), None, "{s} {d}");
    }
    assert!(about(IcmpError::TooBig(1280), &v6("::2", "ff0e::5", 17, b"")).is_some());
}

#[test]
fn rule_67_an_echo_to_all_nodes_is_answered() {
    let own: Ipv6Addr = "fd00::1".parse().unwrap();
    let probe = mtu_probe("fd00::2".parse().unwrap(), ALL_NODES, 7, 9);
    assert_eq!(probe.len(), 1280);
    assert_sound(&probe);
    let view = PacketView::parse(&probe).unwrap();
    let reply = echo_reply(&view, own.into()).unwrap();
    assert_sound(&reply);
    let reply = PacketView::parse(&reply).unwrap();
    assert_eq!((reply.source(), reply.destination()), (own.into(), view.source()));
    assert_eq!(reply.upper()[0], 129);
    assert_eq!(reply.upper()[4..], view.upper()[4..]);
    assert_eq!(echo_reply(&reply, own.into()), None);
}

#[test]
fn an_echo_request_over_ipv4_is_answered() {
    let p = v4("192.0.2.1", "10.0.0.1", 1, &[8, 0, 1, 2, 3, 4, 5, 6, 7]);
    let reply = echo_reply(&PacketView::parse(&p).unwrap(), ROUTER4).unwrap();
    assert_sound(&reply);
    assert_eq!(reply[24..], [3, 4, 5, 6, 7]);
}

#[test]
fn rule_74_the_quotation_of_an_error_is_read() {
    let inner = v4("192.0.2.1", "198.51.100.2", 17, b"12345678");
    let outer = about(IcmpError::NoRoute, &inner).unwrap();
    let quote = quoted(&PacketView::parse(&outer).unwrap()).unwrap();
    assert_eq!(quote.source.to_string(), "192.0.2.1");
    assert_eq!((quote.destination.to_string().as_str(), quote.protocol), ("198.51.100.2", 17));

    let inner = v6("2001:db8::1", "2001:db8::2", 0, &[6, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    let outer = about(IcmpError::NoRoute, &inner).unwrap();
    let quote = quoted(&PacketView::parse(&outer).unwrap()).unwrap();
    assert_eq!((quote.source.to_string().as_str(), quote.protocol), ("2001:db8::1", 6));
}

proptest! {
    #[test]
    fn any_quotation_never_panics(body in prop::collection::vec(any::<u8>(), 0..120)) {
        let p = v4("192.0.2.1", "192.0.2.9", 1, &body);
        let view = PacketView::parse(&p).unwrap();
        let _ = (quoted(&view), is_error(&view), echo_reply(&view, ROUTER4));
        let p = v6("::2", "::9", 58, &body);
        let view = PacketView::parse(&p).unwrap();
        let _ = (quoted(&view), is_error(&view), echo_reply(&view, ROUTER6));
    }

    #[test]
    fn every_error_is_a_sound_packet(bytes: Vec<u8>, mtu: u32) {
        if let Ok(view) = PacketView::parse(&bytes) {
            let router = if view.is_v4() { ROUTER4 } else { ROUTER6 };
            if let Some(reply) = error(IcmpError::TooBig(mtu), &view, router) { assert_sound(&reply) }
        }
    }
}
