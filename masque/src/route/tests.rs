use super::*;
use proptest::prelude::*;

fn range(start: &str, end: &str, protocol: u8) -> IpRange {
    IpRange { start: start.parse().unwrap(), end: end.parse().unwrap(), protocol }
}

fn round_trip(list: &[IpRange]) -> Result<Vec<IpRange>, RouteError> {
    let mut value = Vec::new();
    encode(list, &mut value);
    parse(&value)
}

#[test]
fn a_full_tunnel_reads_back() {
    let list = [IpRange::ALL_V4, IpRange::ALL_V6];
    assert_eq!(round_trip(&list), Ok(list.to_vec()));
    assert_eq!(round_trip(&[]), Ok(vec![]));
}

#[test]
fn rule_59_a_range_starts_at_or_before_its_end() {
    assert_eq!(round_trip(&[range("10.0.0.1", "10.0.0.0", 0)]), Err(RouteError::Backwards(0)));
    assert!(round_trip(&[range("10.0.0.1", "10.0.0.1", 0)]).is_ok());
}

#[test]
fn rule_60_ranges_are_ordered_by_version_then_protocol_then_address() {
    let ok = [
        range("10.0.0.0", "10.0.0.9", 6),
        range("10.0.0.20", "10.0.0.29", 6),
        range("10.0.0.0", "10.0.0.9", 17),
        range("::1", "::2", 0),
    ];
    assert!(round_trip(&ok).is_ok());
    let bad: [&[IpRange]; 4] = [
        &[range("::1", "::2", 0), range("10.0.0.0", "10.0.0.9", 0)],
        &[range("10.0.0.0", "10.0.0.9", 17), range("10.0.0.0", "10.0.0.9", 6)],
        &[range("10.0.0.5", "10.0.0.9", 6), range("10.0.0.0", "10.0.0.4", 6)],
        &[range("10.0.0.0", "10.0.0.5", 6), range("10.0.0.5", "10.0.0.9", 6)],
    ];
    for list in bad {
        assert_eq!(round_trip(list), Err(RouteError::Order(1)), "{list:?}");
    }
}

#[test]
fn rule_61_all_protocols_and_one_protocol_must_not_overlap() {
    let list = [range("10.0.0.0", "10.0.0.9", 0), range("10.0.0.9", "10.0.0.20", 6)];
    assert_eq!(round_trip(&list), Err(RouteError::ProtocolOverlap(1)));
    let v6 = [
        range("10.0.0.0", "10.0.0.9", 0),
        range("::1", "::5", 0),
        range("::9", "::a", 0),
        range("::6", "::8", 6),
        range("::a", "::b", 17),
    ];
    assert_eq!(round_trip(&v6), Err(RouteError::ProtocolOverlap(4)));
    assert!(round_trip(&v6[..4]).is_ok());
}

#[test]
fn rule_62_icmp_goes_wherever_any_protocol_goes() {
    let table = RouteTable::new(&[range("10.0.0.0", "10.0.0.9", 17), range("::1", "::2", 6)]);
    let v4 = "10.0.0.5".parse().unwrap();
    assert!(table.allows(v4, 17) && table.allows(v4, 1));
    assert!(!table.allows(v4, 6) && !table.allows(v4, 58));
    assert!(table.allows("::1".parse().unwrap(), 58));
    assert!(!table.allows("10.0.0.10".parse().unwrap(), 1));
}

#[test]
fn a_range_becomes_the_fewest_prefixes() {
    let show = |r: IpRange| r.prefixes().iter().map(Prefix::to_string).collect::<Vec<_>>();
    assert_eq!(show(IpRange::ALL_V4), ["0.0.0.0/0"]);
    assert_eq!(show(IpRange::ALL_V6), ["::/0"]);
    assert_eq!(
        show(range("10.0.0.1", "10.0.0.6", 0)),
        ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]
    );
    assert_eq!(show(range("255.255.255.254", "255.255.255.255", 0)), ["255.255.255.254/31"]);
}

#[test]
fn normalising_sorts_and_joins() {
    let list = [
        range("::1", "::2", 0),
        range("10.0.1.0", "10.0.1.255", 0),
        range("10.0.0.0", "10.0.0.255", 0),
    ];
    assert_eq!(normalise(&list), [range("10.0.0.0", "10.0.1.255", 0), range("::1", "::2", 0)]);
}

#[test]
fn a_scope_narrows_a_range() {
    let scope = Some("192.0.2.0/24".parse().unwrap());
    let narrowed = range("192.0.2.0", "192.0.2.255", 17);
    assert_eq!(IpRange::ALL_V4.within(scope, Some(17)), Some(narrowed));
    assert_eq!(IpRange::ALL_V6.within(scope, None), None);
    assert_eq!(range("10.0.0.0", "10.0.0.1", 0).within(scope, None), None);
    assert_eq!(range("10.0.0.0", "10.0.0.1", 6).within(None, Some(17)), None);
}

fn any_range() -> impl Strategy<Value = IpRange> {
    let protocol = prop_oneof![Just(0u8), Just(6), Just(17)];
    prop_oneof![
        (any::<(u32, u32)>(), protocol.clone()).prop_map(|((a, b), protocol)| IpRange {
            start: IpAddr::V4(a.min(b).into()),
            end: IpAddr::V4(a.max(b).into()),
            protocol
        }),
        (any::<(u128, u128)>(), protocol).prop_map(|((a, b), protocol)| IpRange {
            start: IpAddr::V6(a.min(b).into()),
            end: IpAddr::V6(a.max(b).into()),
            protocol
        }),
    ]
}

proptest! {
    #[test]
    fn any_bytes_never_panic_and_what_parses_is_stable(value: Vec<u8>) {
        if let Ok(list) = parse(&value) {
            prop_assert_eq!(round_trip(&list), Ok(list));
        }
    }

    #[test]
    fn a_normal_list_is_valid_but_for_protocol_overlap(list in prop::collection::vec(any_range(), 0..12)) {
        let list = normalise(&list);
        match validate(&list) {
            Ok(()) | Err(RouteError::ProtocolOverlap(_)) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn the_table_agrees_with_a_plain_scan(
        list in prop::collection::vec(any_range(), 0..12), addr: u32, protocol in 0u8..20
    ) {
        let list = normalise(&list);
        let addr = IpAddr::V4(addr.into());
        let plain = list.iter().any(|r| {
            r.start <= addr && addr <= r.end && addr.is_ipv4() == r.start.is_ipv4()
                && (r.protocol == 0 || r.protocol == protocol || protocol == 1)
        });
        prop_assert_eq!(RouteTable::new(&list).allows(addr, protocol), plain);
    }

    #[test]
    fn prefixes_cover_a_range_exactly(r in any_range()) {
        let prefixes = r.prefixes();
        prop_assert_eq!(prefixes[0].addr, r.start);
        prop_assert_eq!(prefixes[prefixes.len() - 1].last(), r.end);
        for pair in prefixes.windows(2) {
            prop_assert_eq!(successor(pair[0].last()), Some(pair[1].addr));
        }
    }
}
