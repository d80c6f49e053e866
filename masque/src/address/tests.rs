use super::*;
use proptest::prelude::*;

fn prefix(s: &str) -> Prefix {
    s.parse().unwrap()
}

#[test]
fn prefixes_read_and_print_alike() {
    for s in ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7/32", "::/0", "2001:db8::/32", "::1/128"] {
        assert_eq!(prefix(s).to_string(), s);
    }
    assert_eq!(prefix("192.0.2.7"), Prefix::host("192.0.2.7".parse().unwrap()));
}

#[test]
fn what_is_no_prefix_is_refused() {
    let first = "192.0.2.0".parse().unwrap();
    let table = [
        ("192.0.2.1/24", PrefixError::HostBits(first)),
        ("192.0.2.0/33", PrefixError::Length(32)),
        ("192.0.2.0/", PrefixError::Length(32)),
        ("192.0.2.0/+4", PrefixError::Length(32)),
        ("::/129", PrefixError::Length(128)),
        ("example.org", PrefixError::Address),
        ("fe80::1%eth0", PrefixError::Address),
    ];
    for (s, error) in table {
        assert_eq!(s.parse::<Prefix>(), Err(error), "{s}");
    }
}

#[test]
fn containment_respects_length_and_version() {
    let net = prefix("192.0.2.0/24");
    assert!(net.contains("192.0.2.255".parse().unwrap()));
    assert!(!net.contains("192.0.3.0".parse().unwrap()));
    assert!(!net.contains("::ffff:192.0.2.1".parse().unwrap()));
    assert!(prefix("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
    assert!(prefix("::/0").contains("ff02::1".parse().unwrap()));
    assert_eq!(net.last(), "192.0.2.255".parse::<IpAddr>().unwrap());
    assert!(net.overlaps(&prefix("192.0.0.0/16")) && !net.overlaps(&prefix("192.0.3.0/24")));
}

#[test]
fn rule_53_an_empty_list_is_allowed_and_fields_are_bounded() {
    assert_eq!(parse_assigned(&[]), Ok(vec![]));
    assert_eq!(parse_assigned(&[0, 5, 1, 2, 3, 4, 32]), Err(AddressError::Version(5)));
    assert_eq!(
        parse_assigned(&[0, 4, 1, 2, 3, 4, 33]),
        Err(AddressError::Prefix(PrefixError::Length(32)))
    );
    assert_eq!(
        parse_assigned(&[0, 4, 1, 2, 3, 4, 24]),
        Err(AddressError::Prefix(PrefixError::HostBits([1, 2, 3, 0].into())))
    );
}

#[test]
fn rule_16_missing_and_excess_bytes_are_malformed() {
    let mut value = Vec::new();
    encode_assigned(&[AssignedAddress::unsolicited(prefix("::1"))], &mut value);
    for cut in 1..value.len() {
        assert!(parse_assigned(&value[..cut]).is_err(), "cut at {cut}");
    }
    value.push(0);
    assert_eq!(parse_assigned(&value), Err(AddressError::Truncated));
}

#[test]
fn rule_55_a_request_holds_entries_with_distinct_ids_that_are_not_zero() {
    let request = |id| RequestedAddress { request_id: id, prefix: prefix("0.0.0.0/32") };
    let parse = |list: &[RequestedAddress]| {
        let mut value = Vec::new();
        encode_requested(list, &mut value);
        parse_requested(&value)
    };
    assert_eq!(parse(&[]), Err(AddressError::Empty));
    assert_eq!(parse(&[request(0)]), Err(AddressError::RequestIdZero));
    assert_eq!(parse(&[request(1), request(1)]), Err(AddressError::RequestIdReused(1)));
    assert_eq!(parse(&[request(2), request(1)]), Ok(vec![request(2), request(1)]));
}

#[test]
fn rule_56_a_refusal_is_the_all_zero_address_of_full_length() {
    for (wish, refusal) in [("10.0.0.0/8", "0.0.0.0/32"), ("2001:db8::/32", "::/128")] {
        let request = RequestedAddress { request_id: 3, prefix: prefix(wish) };
        let answer = AssignedAddress::refusal(&request);
        assert_eq!(answer, AssignedAddress { request_id: 3, prefix: prefix(refusal) });
        assert!(answer.is_refusal());
    }
}

#[test]
fn the_number_of_addresses_is_bounded() {
    let one = AssignedAddress::unsolicited(prefix("192.0.2.1"));
    let mut value = Vec::new();
    encode_assigned(&[one; MAX_ADDRESSES], &mut value);
    assert_eq!(parse_assigned(&value).unwrap().len(), MAX_ADDRESSES);
    encode_assigned(&[one], &mut value);
    assert_eq!(parse_assigned(&value), Err(AddressError::TooMany));
}

pub(crate) fn any_prefix() -> impl Strategy<Value = Prefix> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, l)| Prefix::around(a.into(), l)),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, l)| Prefix::around(a.into(), l)),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_parses_to_itself(
        list in prop::collection::vec((0..varint::MAX, any_prefix()), 0..MAX_ADDRESSES)
    ) {
        let list: Vec<_> = list
            .into_iter()
            .map(|(request_id, prefix)| AssignedAddress { request_id, prefix })
            .collect();
        let mut value = Vec::new();
        encode_assigned(&list, &mut value);
        prop_assert!(value.len() <= MAX_CAPSULE);
        prop_assert_eq!(parse_assigned(&value), Ok(list));
    }

    #[test]
    fn any_bytes_never_panic_and_what_parses_is_stable(value: Vec<u8>) {
        let _ = parse_requested(&value);
        if let Ok(list) = parse_assigned(&value) {
            let mut again = Vec::new();
            encode_assigned(&list, &mut again);
            prop_assert_eq!(parse_assigned(&again), Ok(list));
        }
    }

    #[test]
    fn a_prefix_reads_back_and_holds_its_ends(p in any_prefix()) {
        prop_assert_eq!(p.to_string().parse(), Ok(p));
        prop_assert!(p.contains(p.addr) && p.contains(p.last()));
    }
}
