use super::*;
use proptest::prelude::*;

/// An IPv4 packet with a right header checksum and TTL 64.
pub(crate) fn v4(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut p = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    p[2..4].copy_from_slice(&len.to_be_bytes());
    p.extend(source.parse::<Ipv4Addr>().unwrap().octets());
    p.extend(destination.parse::<Ipv4Addr>().unwrap().octets());
    fix_v4(&mut p);
    p.extend(payload);
    p
}

/// Writes the header checksum anew.
pub(crate) fn fix_v4(p: &mut [u8]) {
    p[10..12].fill(0);
    let len = usize::from(p[0] & 15) * 4;
    let sum = checksum::checksum(&p[..len]);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv6 packet with hop limit 64.
pub(crate) fn v6(source: &str, destination: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    p[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    p.extend(source.parse::<Ipv6Addr>().unwrap().octets());
    p.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
    p.extend(payload);
    p
}

#[test]
fn an_ipv4_packet_is_read() {
    let mut p = v4("192.0.2.1", "198.51.100.2", 17, b"12345678");
    p[1] = 0xb9;
    p[6] = 0x40;
    let view = PacketView::parse(&p).unwrap();
    assert_eq!(view.source().to_string(), "192.0.2.1");
    assert_eq!(view.destination().to_string(), "198.51.100.2");
    assert_eq!((view.protocol(), view.ttl(), view.upper()), (17, 64, &b"12345678"[..]));
    assert_eq!((view.dscp(), view.ecn()), (46, 1));
    assert!(view.is_v4() && view.dont_fragment() && !view.is_fragment() && !view.is_icmp());
}

#[test]
fn an_ipv6_packet_is_read() {
    let mut p = v6("2001:db8::1", "2001:db8::2", 58, &[128, 0, 0, 0]);
    p[0] = 0x6b;
    p[1] = 0x90;
    let view = PacketView::parse(&p).unwrap();
    assert_eq!(view.source().to_string(), "2001:db8::1");
    assert_eq!(view.destination().to_string(), "2001:db8::2");
    assert_eq!((view.dscp(), view.ecn(), view.ttl(), view.upper_offset()), (46, 1, 64, 40));
    assert!(!view.is_v4() && view.dont_fragment() && view.is_icmp());
}

#[test]
fn fragments_are_told_apart() {
    let mut p = v4("192.0.2.1", "198.51.100.2", 17, b"12345678");
    p[6..8].copy_from_slice(&[0x20, 0x00]);
    let view = PacketView::parse(&p).unwrap();
    assert!(view.is_fragment() && view.more_fragments() && view.fragment_offset() == 0);
    p[6..8].copy_from_slice(&[0x00, 0xb9]);
    let view = PacketView::parse(&p).unwrap();
    assert!(view.is_fragment() && !view.more_fragments() && view.fragment_offset() == 0xb9 * 8);
}

#[test]
fn rule_63_the_protocol_is_found_behind_extension_headers() {
    let mut chain = vec![60, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, then destination options
    chain.extend([43, 1]); // 16 bytes of them, then routing
    chain.extend([0; 14]);
    chain.extend([44, 0, 0, 0, 0, 0, 0, 0]); // routing, then fragment
    chain.extend([51, 0, 0, 1, 0, 0, 0, 9]); // first fragment, then authentication
    chain.extend([6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // 12 bytes, then TCP
    chain.extend(b"tcp");
    let p = v6("::1", "::2", 0, &chain);
    let view = PacketView::parse(&p).unwrap();
    assert_eq!((view.protocol(), view.upper()), (6, &b"tcp"[..]));
    assert!(view.more_fragments() && view.fragment_offset() == 0);
}

#[test]
fn rule_63_a_later_fragment_names_its_protocol_without_a_walk() {
    let p = v6("::1", "::2", 44, &[60, 0, 0x05, 0x00, 0, 0, 0, 9, 1, 2, 3]);
    let view = PacketView::parse(&p).unwrap();
    assert_eq!((view.protocol(), view.fragment_offset()), (60, 0x500));
    assert_eq!(view.upper(), [1, 2, 3]);
}

#[test]
fn a_chain_that_ends_early_or_never_is_refused() {
    let cut = v6("::1", "::2", 0, &[6, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(PacketView::parse(&cut).err(), Some(PacketError::Truncated));
    let endless = v6("::1", "::2", 60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSIONS + 1));
    assert_eq!(PacketView::parse(&endless).err(), Some(PacketError::TooManyExtensions));
}

#[test]
fn impossible_lengths_are_refused() {
    let good = v4("192.0.2.1", "198.51.100.2", 17, b"12345678");
    assert_eq!(PacketView::parse(&[]).err(), Some(PacketError::Truncated));
    assert_eq!(PacketView::parse(&good[..19]).err(), Some(PacketError::Truncated));
    assert_eq!(PacketView::parse(&good[..27]).err(), Some(PacketError::Length));
    assert_eq!(
        PacketView::parse(&[good.clone(), vec![0]].concat()).err(),
        Some(PacketError::Length)
    );
    let mut p = good;
    p[0] = 0x44;
    assert_eq!(PacketView::parse(&p).err(), Some(PacketError::HeaderLength));
    p[0] = 0x4f;
    assert_eq!(PacketView::parse(&p).err(), Some(PacketError::Truncated));
    p[0] = 0x55;
    assert_eq!(PacketView::parse(&p).err(), Some(PacketError::Version(5)));
    let p = v6("::1", "::2", 17, b"12345678");
    assert_eq!(PacketView::parse(&p[..47]).err(), Some(PacketError::Length));
}

#[test]
fn a_hop_is_taken_off_and_the_checksum_follows() {
    let mut p = v4("192.0.2.1", "198.51.100.2", 17, b"12345678");
    for ttl in (1..64).rev() {
        assert_eq!(decrement_ttl(&mut p), Ok(()));
        assert_eq!((p[8], checksum::checksum(&p[..20])), (ttl, 0));
    }
    let before = p.clone();
    assert_eq!(decrement_ttl(&mut p), Err(TimeExceeded));
    assert_eq!(p, before);

    let mut p = v6("::1", "::2", 17, b"");
    p[7] = 2;
    assert_eq!(decrement_ttl(&mut p), Ok(()));
    assert_eq!(decrement_ttl(&mut p), Err(TimeExceeded));
    assert_eq!(p[7], 1);
    assert_eq!(decrement_ttl(&mut []), Err(TimeExceeded));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(view) = PacketView::parse(&bytes) {
            prop_assert_eq!(view.bytes().len(), view.upper_offset() + view.upper().len());
            let _ = (view.ttl(), view.dscp(), view.ecn(), view.dont_fragment());
        }
        let mut bytes = bytes;
        let _ = decrement_ttl(&mut bytes);
    }

    #[test]
    fn any_extension_chain_never_panics(next: u8, chain in prop::collection::vec(any::<u8>(), 0..200)) {
        let p = v6("::1", "::2", next, &chain);
        if let Ok(view) = PacketView::parse(&p) {
            let _ = view.upper();
        }
    }

    #[test]
    fn the_checksum_stays_right_over_a_hop(a: [u8; 4], b: [u8; 4], ttl in 2u8.., protocol: u8) {
        let mut p = v4(&Ipv4Addr::from(a).to_string(), &Ipv4Addr::from(b).to_string(), protocol, b"");
        p[8] = ttl;
        fix_v4(&mut p);
        prop_assert_eq!(decrement_ttl(&mut p), Ok(()));
        prop_assert_eq!(checksum::checksum(&p), 0);
    }
}
