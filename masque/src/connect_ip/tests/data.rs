use super::*;
use crate::checksum;
use crate::fragment::fragment_v4;
use crate::icmp::{IcmpError, error};
use crate::packet::PacketView;
use proptest::prelude::*;

#[test]
fn packets_go_up_and_down_unchanged_but_for_the_hop() {
    let (mut proxy, mut client) = tunnel();
    for (up, down) in [
        (v4(CLIENT4, WEB4, 17, b"12345678"), v4(WEB4, CLIENT4, 17, b"12345678")),
        (v6(CLIENT6, WEB6, 6, b"tcp"), v6(WEB6, CLIENT6, 6, b"tcp")),
    ] {
        // The client's own packet keeps its hops (rule 66), and so does what arrives.
        let sent = outward(&mut client, &up).unwrap();
        assert_eq!(sent, up);
        assert_eq!(inward(&mut proxy, &sent), Ok(up));
        let sent = outward(&mut proxy, &down).unwrap();
        assert_eq!(PacketView::parse(&sent).unwrap().ttl(), 63);
        assert_eq!(inward(&mut client, &sent), Ok(sent));
    }
}

#[test]
fn rule_64_context_zero_is_a_packet_and_others_are_dropped() {
    let (mut proxy, _) = tunnel();
    let packet = v4(CLIENT4, WEB4, 17, b"");
    let mut judge =
        |p: &[u8]| reason(short(proxy.handle_datagram(start(), &mut p.to_vec(), &policy())));
    assert_eq!(judge(&payload(&packet)), None);
    assert_eq!(judge(&[&[0x40, 0], &packet[..]].concat()), None);
    assert_eq!(judge(&[&[2], &packet[..]].concat()), Some(DropReason::UnknownContext));
    assert_eq!(judge(&[]), Some(DropReason::NoContext));
    assert_eq!(judge(&[0xc0]), Some(DropReason::NoContext));
    assert_eq!(judge(&[0]), Some(DropReason::Malformed));
    assert_eq!(judge(&[0, 0x45, 0]), Some(DropReason::Malformed));
}

#[test]
fn rule_73_only_assigned_sources_pass_the_proxy() {
    let (mut proxy, _) = tunnel();
    let spoofed = v6("2a00:7::3", WEB6, 17, b"12345678");
    assert_eq!(told(inward(&mut proxy, &spoofed)), Some((DropReason::SpoofedSource, 1, 5)));
    let spoofed = v4("10.7.0.3", WEB4, 17, b"12345678");
    assert_eq!(told(inward(&mut proxy, &spoofed)), Some((DropReason::SpoofedSource, 3, 13)));
    let mut nobody = ConnectIp::new(proxy_config());
    nobody.advertise(&[IpRange::ALL_V4]).unwrap();
    let early = v4(CLIENT4, WEB4, 17, b"");
    assert_eq!(reason(inward(&mut nobody, &early)), Some(DropReason::SpoofedSource));
}

#[test]
fn rule_65_a_refused_packet_is_no_error_of_the_session() {
    let (mut proxy, _) = tunnel();
    for _ in 0..1000 {
        let _ = inward(&mut proxy, &v4("1.2.3.4", WEB4, 17, b""));
    }
    assert!(inward(&mut proxy, &v4(CLIENT4, WEB4, 17, b"")).is_ok());
    assert_eq!((proxy.handle_stream(start(), &[]), proxy.handle_fin()), (Ok(()), Ok(())));
}

#[test]
fn policy_and_routes_refuse_destinations() {
    let (mut proxy, mut client) = tunnel();
    for to in ["10.7.0.9", "192.168.1.1", "127.0.0.1", "169.254.169.254"] {
        let verdict = inward(&mut proxy, &v4(CLIENT4, to, 17, b"12345678"));
        let reason = reason(verdict.clone());
        match to {
            "169.254.169.254" => assert_eq!(reason, Some(DropReason::LinkLocal)),
            _ => assert_eq!(told(verdict), Some((DropReason::Prohibited, 3, 13)), "{to}"),
        }
    }
    // Refused, but one never answers about multicast.
    let group = v4(CLIENT4, "239.1.1.1", 17, b"");
    assert_eq!(inward(&mut proxy, &group), Err((DropReason::Prohibited, None)));
    proxy.advertise(&[IpRange::from_prefix(prefix("8.8.8.0/24"), 0)]).unwrap();
    pump(&mut proxy, &mut client);
    let beyond = v4(CLIENT4, WEB4, 17, b"12345678");
    assert_eq!(told(inward(&mut proxy, &beyond)), Some((DropReason::NoRoute, 3, 0)));
    assert_eq!(told(outward(&mut client, &beyond)), Some((DropReason::NoRoute, 3, 0)));
}

#[test]
fn rule_62_icmp_passes_whatever_the_scope() {
    let config = Config { target: vec![prefix(WEB4)], ipproto: Some(17), ..proxy_config() };
    let (mut proxy, mut client) = tunnel_with(config);
    let echo = v4(CLIENT4, WEB4, 1, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(outward(&mut client, &echo), Ok(echo.clone()));
    assert_eq!(inward(&mut proxy, &echo), Ok(echo));
    let tcp = v4(CLIENT4, WEB4, 6, &[0; 20]);
    assert_eq!(reason(outward(&mut client, &tcp)), Some(DropReason::NoRoute));
    assert_eq!(reason(inward(&mut proxy, &tcp)), Some(DropReason::NoRoute));
    // And back: UDP of the target, ICMP of anybody.
    assert!(outward(&mut proxy, &v4(WEB4, CLIENT4, 17, b"")).is_ok());
    assert!(outward(&mut proxy, &v4("9.9.9.9", CLIENT4, 1, &[0; 8])).is_ok());
    for other in [v4(WEB4, CLIENT4, 6, b""), v4("9.9.9.9", CLIENT4, 17, b"")] {
        assert_eq!(reason(outward(&mut proxy, &other)), Some(DropReason::OutOfScope));
    }
}

#[test]
fn rule_63_a_scope_looks_behind_extension_headers() {
    let config = Config { ipproto: Some(17), ..proxy_config() };
    let (mut proxy, _) = tunnel_with(config);
    let options = |upper: u8| [&[upper, 0, 1, 4, 0, 0, 0, 0][..], b"12345678"].concat();
    assert!(inward(&mut proxy, &v6(CLIENT6, WEB6, 60, &options(17))).is_ok());
    let tcp = inward(&mut proxy, &v6(CLIENT6, WEB6, 60, &options(6)));
    assert_eq!(reason(tcp), Some(DropReason::NoRoute));
}

#[test]
fn rule_66_a_hop_is_taken_on_encapsulation_only_and_not_for_own_packets() {
    let (mut proxy, mut client) = tunnel();
    let mut last = v4(WEB4, CLIENT4, 17, b"12345678");
    last[8] = 1;
    fix_v4(&mut last);
    assert_eq!(told(outward(&mut proxy, &last)), Some((DropReason::TimeExceeded, 11, 0)));
    let mut last6 = v6(WEB6, CLIENT6, 17, b"12345678");
    last6[7] = 1;
    assert_eq!(told(outward(&mut proxy, &last6)), Some((DropReason::TimeExceeded, 3, 0)));
    // Decapsulation leaves it alone, and the client's own packets may go with one hop.
    assert_eq!(inward(&mut client, &last), Ok(last));
    let mut own = v4(CLIENT4, WEB4, 17, b"");
    own[8] = 1;
    fix_v4(&mut own);
    assert_eq!(outward(&mut client, &own), Ok(own.clone()));
    assert_eq!(inward(&mut proxy, &own), Ok(own));
    // So may the proxy's.
    let mut router = v4(ROUTER4, CLIENT4, 1, &[0; 8]);
    router[8] = 1;
    fix_v4(&mut router);
    assert_eq!(outward(&mut proxy, &router), Ok(router));
}

#[test]
fn rule_70_too_big_a_packet_is_answered_with_the_true_mtu() {
    let (mut proxy, _) = tunnel();
    let fits = v6(WEB6, CLIENT6, 17, &[0; 1400 - 40]);
    assert!(outward(&mut proxy, &fits).is_ok());
    let big = v6(WEB6, CLIENT6, 17, &[0; 1401 - 40]);
    let Err((DropReason::TooBig, Some(reply))) = outward(&mut proxy, &big) else { panic!() };
    assert_eq!((reply[40], &reply[44..48]), (2, &1400u32.to_be_bytes()[..]));
    let mut df = v4(WEB4, CLIENT4, 17, &[0; 1401 - 20]);
    df[6] = 0x40;
    fix_v4(&mut df);
    let Err((DropReason::TooBig, Some(reply))) = outward(&mut proxy, &df) else { panic!() };
    assert_eq!(reply[20..28][..2], [3, 4]);
    assert_eq!(reply[24..28], 1400u32.to_be_bytes());
}

#[test]
fn a_packet_that_may_be_fragmented_is_split_by_the_shell() {
    let (mut proxy, _) = tunnel();
    let big = v4(WEB4, CLIENT4, 17, &[0; 3000]);
    let mut copy = big.clone();
    let verdict = proxy.encapsulate(start(), &mut copy, 1_401);
    assert_eq!(verdict, Verdict::Drop(DropReason::NeedsFragmentation));
    assert_eq!(copy, big);
    let mut sent = 0;
    let pieces = fragment_v4(&copy, 1_400, |piece| {
        let Verdict::Forward(p) = proxy.encapsulate(start(), piece, 1_401) else { panic!() };
        assert_eq!((p[8], checksum::checksum(&p[..20])), (63, 0));
        sent += p.len() - 20;
    });
    assert_eq!((pieces, sent), (Some(3), 3000));
}

#[test]
fn below_the_least_mtu_nobody_is_told_nonsense() {
    let (mut proxy, _) = tunnel();
    let mut judge = |p: &[u8], max| reason(short(proxy.encapsulate(start(), &mut p.to_vec(), max)));
    let six = v6(WEB6, CLIENT6, 17, &[0; 1300 - 40]);
    assert_eq!(judge(&six, 1_280), Some(DropReason::MtuBelowMinimum));
    assert_eq!(judge(&six, 0), Some(DropReason::MtuBelowMinimum));
    let four = v4(WEB4, CLIENT4, 17, &[0; 100]);
    assert_eq!(judge(&four, 68), Some(DropReason::MtuBelowMinimum));
}

#[test]
fn rule_67_link_local_stays_on_its_link() {
    let (mut proxy, mut client) = tunnel();
    let solicit = v6("fe80::5", "ff02::2", 58, &[133, 0, 0, 0, 0, 0, 0, 0]);
    let to_local = v6(CLIENT6, "fe80::9", 17, b"");
    for packet in [&solicit, &to_local, &v4(CLIENT4, "224.0.0.251", 17, b"")] {
        assert_eq!(reason(outward(&mut client, packet)), Some(DropReason::LinkLocal));
        assert_eq!(reason(inward(&mut proxy, packet)), Some(DropReason::LinkLocal));
    }
    let mdns = v4(WEB4, "224.0.0.251", 17, b"");
    assert_eq!(reason(outward(&mut proxy, &mdns)), Some(DropReason::LinkLocal));
}

#[test]
fn rule_69_icmp_errors_reach_the_client_from_any_router() {
    let (mut proxy, mut client) = tunnel();
    proxy.advertise(&[IpRange::from_prefix(prefix(WEB4), 17)]).unwrap();
    pump(&mut proxy, &mut client);
    let about = v4(CLIENT4, WEB4, 17, b"12345678");
    let error = error(
        IcmpError::AddressUnreachable,
        &PacketView::parse(&about).unwrap(),
        "9.8.7.6".parse().unwrap(),
    )
    .unwrap();
    let sent = outward(&mut proxy, &error).unwrap();
    assert!(inward(&mut client, &sent).is_ok());
    // A datagram from there is another matter.
    let udp = v4("9.8.7.6", CLIENT4, 17, b"");
    assert_eq!(reason(inward(&mut client, &udp)), Some(DropReason::SpoofedSource));
}

#[test]
fn rule_74_an_icmp_error_reaches_only_the_client_it_is_about() {
    let scoped = |protocol| {
        let config = Config { ipproto: Some(protocol), ..proxy_config() };
        tunnel_with(config).0
    };
    let (mut udp, mut tcp) = (scoped(17), scoped(6));
    let quote = |packet: &[u8]| {
        let view = PacketView::parse(packet).unwrap();
        error(IcmpError::NoRoute, &view, "9.8.7.6".parse().unwrap()).unwrap()
    };
    let about_udp = quote(&v4(CLIENT4, WEB4, 17, b"12345678"));
    assert!(outward(&mut udp, &about_udp).is_ok());
    assert_eq!(reason(outward(&mut tcp, &about_udp)), Some(DropReason::ForeignQuote));
    // A quotation of somebody else's packet, sent to this client's address.
    let mut foreign = quote(&v4("10.7.0.77", WEB4, 17, b"12345678"));
    foreign[16..20].copy_from_slice(&[10, 7, 0, 2]);
    fix_v4(&mut foreign);
    let (mut open, _) = tunnel();
    assert_eq!(reason(outward(&mut open, &foreign)), Some(DropReason::ForeignQuote));
    let bare = v4("9.8.7.6", CLIENT4, 1, &[3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(reason(outward(&mut open, &bare)), Some(DropReason::ForeignQuote));
}

#[test]
fn the_client_takes_only_what_is_for_it() {
    let (mut proxy, mut client) = tunnel();
    let other = v4(WEB4, "10.7.0.3", 17, b"");
    assert_eq!(reason(inward(&mut client, &other)), Some(DropReason::NotOurs));
    assert_eq!(
        told(outward(&mut proxy, &v4(WEB4, "10.7.0.3", 17, b"12345678"))),
        Some((DropReason::NoRoute, 3, 0))
    );
    for martian in [CLIENT4, "127.0.0.1", "224.1.1.1", "0.0.0.0"] {
        let packet = v4(martian, CLIENT4, 17, b"");
        assert_eq!(
            reason(inward(&mut client, &packet)),
            Some(DropReason::SpoofedSource),
            "{martian}"
        );
    }
    let foreign = v4("192.168.1.5", WEB4, 17, b"");
    assert_eq!(reason(outward(&mut client, &foreign)), Some(DropReason::SpoofedSource));
}

#[test]
fn a_retired_session_accepts_what_is_still_on_its_way() {
    let (mut proxy, _) = tunnel();
    let late = v4(CLIENT4, WEB4, 17, b"");
    proxy.retire();
    proxy.assign(vec![]);
    assert!(proxy.is_retired() && proxy.assigned_to_peer().is_empty());
    assert!(inward(&mut proxy, &late).is_ok());
    let (mut proxy, _) = tunnel();
    proxy.assign(vec![]);
    assert_eq!(reason(inward(&mut proxy, &late)), Some(DropReason::SpoofedSource));
}

#[test]
fn a_site_behind_the_client_is_accepted_only_where_configured() {
    let from_site = v4("172.20.1.1", WEB4, 17, b"");
    for accept in [false, true] {
        let config = Config { accept_peer_routes: accept, ..proxy_config() };
        let (mut proxy, mut client) = tunnel_with(config);
        client.advertise(&[IpRange::from_prefix(prefix("172.20.0.0/16"), 0)]).unwrap();
        pump(&mut client, &mut proxy);
        let sent = outward(&mut client, &from_site).unwrap();
        assert_eq!(sent[8], 63, "forwarded, so a hop is taken off");
        assert_eq!(inward(&mut proxy, &sent).is_ok(), accept);
        let back = outward(&mut proxy, &v4(WEB4, "172.20.1.1", 17, b"")).unwrap();
        assert!(inward(&mut client, &back).is_ok());
    }
}

#[test]
fn source_routes_are_dropped() {
    let (mut proxy, _) = tunnel();
    let rh0 = [&[17, 2, 0, 1, 0, 0, 0, 0][..], &[0; 16], b"12345678"].concat();
    let packet = v6(CLIENT6, WEB6, 43, &rh0);
    assert_eq!(reason(inward(&mut proxy, &packet)), Some(DropReason::SourceRouted));
    let mut lsrr = v4(CLIENT4, WEB4, 17, b"");
    lsrr.splice(20..20, [131, 7, 4, 10, 0, 0, 1, 0]);
    (lsrr[0], lsrr[3]) = (0x47, 28);
    fix_v4(&mut lsrr);
    assert_eq!(reason(inward(&mut proxy, &lsrr)), Some(DropReason::SourceRouted));
}

#[test]
fn icmp_errors_are_rate_limited() {
    let (mut proxy, _) = tunnel();
    let bad = v4(CLIENT4, "192.168.1.1", 17, b"12345678");
    let replies = (0..1000).filter(|_| told(inward(&mut proxy, &bad)).is_some()).count();
    // `start` is some moment in real time, so that a few more may be earned on the way.
    assert!((50..70).contains(&replies), "{replies}");
}

#[test]
fn hops_are_left_to_the_kernel_where_configured() {
    let (mut proxy, _) = tunnel_with(Config { decrement_ttl: false, ..proxy_config() });
    let down = v4(WEB4, CLIENT4, 17, b"");
    assert_eq!(outward(&mut proxy, &down), Ok(down));
}

proptest! {
    #[test]
    fn any_payload_never_panics(bytes: Vec<u8>, max in 0usize..3000) {
        let (mut proxy, mut client) = tunnel();
        for session in [&mut proxy, &mut client] {
            let _ = session.handle_datagram(start(), &mut bytes.clone(), &policy());
            let _ = session.handle_datagram(start(), &mut payload(&bytes), &policy());
            let _ = session.encapsulate(start(), &mut bytes.clone(), max);
        }
    }

    #[test]
    fn nothing_gets_past_the_proxy_from_a_foreign_source(source: [u8; 4], to: [u8; 4], protocol: u8, body: Vec<u8>) {
        let (mut proxy, _) = tunnel();
        let source = Ipv4Addr::from(source).to_string();
        let packet = v4(&source, &Ipv4Addr::from(to).to_string(), protocol, &body);
        if inward(&mut proxy, &packet).is_ok() {
            prop_assert_eq!(source, CLIENT4);
        }
    }
}
