use super::*;
use proptest::prelude::*;

fn all(parser: &mut CapsuleParser, pieces: &[&[u8]]) -> Result<Vec<(u64, Vec<u8>)>, CapsuleError> {
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut |c: Capsule<'_>| seen.push((c.kind, c.value.to_vec())))?;
    }
    Ok(seen)
}

#[test]
fn capsules_come_out_in_order() {
    let mut wire = Vec::new();
    encode(ADDRESS_ASSIGN, b"", &mut wire);
    encode_datagram(&[0], b"packet", &mut wire);
    let seen = all(&mut CapsuleParser::new(KNOWN_IP), &[&wire]).unwrap();
    assert_eq!(seen, [(ADDRESS_ASSIGN, vec![]), (DATAGRAM, b"\0packet".to_vec())]);
}

#[test]
fn rule_12_an_unknown_capsule_is_skipped() {
    let mut wire = Vec::new();
    encode(0x1234_5678, &[7; 100_000], &mut wire);
    encode(ADDRESS_ASSIGN, b"", &mut wire);
    let mut parser = CapsuleParser::new(KNOWN_IP);
    let seen = all(&mut parser, &wire.chunks(999).collect::<Vec<_>>()).unwrap();
    assert_eq!(seen, [(ADDRESS_ASSIGN, vec![])]);
    assert_eq!(parser.finish(), Ok(()));
}

#[test]
fn rule_12_capsules_of_connect_ip_are_unknown_to_connect_udp() {
    let mut wire = Vec::new();
    encode(ADDRESS_ASSIGN, b"nonsense", &mut wire);
    encode(DATAGRAM, b"\0x", &mut wire);
    let seen = all(&mut CapsuleParser::new(KNOWN_UDP), &[&wire]).unwrap();
    assert_eq!(seen, [(DATAGRAM, b"\0x".to_vec())]);
}

#[test]
fn rule_13_a_grease_capsule_is_skipped() {
    for n in [0, 1, 77, u64::MAX] {
        assert!(is_grease(grease(n)) && grease(n) <= varint::MAX);
        let mut wire = Vec::new();
        encode(grease(n), b"anything", &mut wire);
        let mut parser = CapsuleParser::new(KNOWN_IP);
        assert_eq!(all(&mut parser, &[&wire]), Ok(vec![]));
        assert_eq!(parser.finish(), Ok(()));
    }
    assert!(!is_grease(DATAGRAM) && !is_grease(dns::DNS_ASSIGN));
}

#[test]
fn rule_15_a_control_capsule_above_its_bound_is_refused_before_it_is_gathered() {
    let mut wire = Vec::new();
    varint::encode(ADDRESS_ASSIGN, &mut wire);
    varint::encode(varint::MAX, &mut wire);
    let mut parser = CapsuleParser::new(KNOWN_IP);
    let error = all(&mut parser, &[&wire]).unwrap_err();
    assert!(matches!(error, CapsuleError::TooLong { kind: ADDRESS_ASSIGN, .. }));
    assert_eq!(parser.buffered(), 0);
}

#[test]
fn rule_17_a_stream_that_ends_inside_a_capsule_is_malformed() {
    let mut wire = Vec::new();
    encode(DATAGRAM, b"\0packet", &mut wire);
    encode(0x4000, b"unknown", &mut wire);
    let whole: Vec<usize> = vec![0, 9, wire.len()];
    for cut in 0..=wire.len() {
        let mut parser = CapsuleParser::new(KNOWN_IP);
        all(&mut parser, &[&wire[..cut]]).unwrap();
        assert_eq!(parser.finish().is_ok(), whole.contains(&cut), "cut at {cut}");
    }
}

#[test]
fn rule_20_an_oversize_datagram_capsule_is_discarded_without_buffering() {
    let mut parser = CapsuleParser::new(KNOWN_IP);
    let mut header = Vec::new();
    varint::encode(DATAGRAM, &mut header);
    varint::encode(1 << 40, &mut header);
    assert_eq!(all(&mut parser, &[&header]), Ok(vec![]));
    for _ in 0..1000 {
        assert_eq!(all(&mut parser, &[&[0; 1000]]), Ok(vec![]));
        assert_eq!(parser.buffered(), 0);
    }
    assert_eq!(parser.oversize_datagrams(), 1);

    // The capsule after it is understood.
    let mut wire = Vec::new();
    encode(DATAGRAM, &vec![0; MAX_DATAGRAM + 1], &mut wire);
    encode(DATAGRAM, b"\0after", &mut wire);
    let mut parser = CapsuleParser::new(KNOWN_IP);
    let seen = all(&mut parser, &wire.chunks(1200).collect::<Vec<_>>()).unwrap();
    assert_eq!(seen, [(DATAGRAM, b"\0after".to_vec())]);
}

#[test]
fn rule_22_a_capsule_with_non_minimal_integers_is_accepted() {
    let wire = [0xc0, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 1, 9];
    let seen = all(&mut CapsuleParser::default(), &[&wire]).unwrap();
    assert_eq!(seen, [(DATAGRAM, vec![9])]);
    let bytewise: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(all(&mut CapsuleParser::default(), &bytewise).unwrap(), seen);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_never_panic(data: Vec<u8>, step in 1usize..64) {
        let mut parser = CapsuleParser::new(KNOWN_IP);
        for piece in data.chunks(step) {
            if parser.push(piece, &mut |_| ()).is_err() { break; }
        }
        let _ = parser.finish();
    }

    #[test]
    fn the_way_the_bytes_are_cut_changes_nothing(
        capsules in prop::collection::vec((0u64..6, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
        step in 1usize..80,
    ) {
        let mut wire = Vec::new();
        for (kind, value) in &capsules { encode(*kind, value, &mut wire); }
        let whole = all(&mut CapsuleParser::new(KNOWN_IP), &[&wire]);
        let cut = all(&mut CapsuleParser::new(KNOWN_IP), &wire.chunks(step).collect::<Vec<_>>());
        prop_assert_eq!(&whole, &cut);
        let known: Vec<_> = capsules.into_iter().filter(|(k, _)| *k < 4).collect();
        prop_assert_eq!(whole, Ok(known));
    }
}
