use super::*;

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn prefixes(list: &[&str]) -> Vec<Prefix> {
    list.iter().map(|s| s.parse().unwrap()).collect()
}

#[test]
fn rule_44_what_is_special_is_refused_without_configuration() {
    use Prohibited::*;
    let table = [
        ("127.0.0.1", Loopback),
        ("127.255.0.9", Loopback),
        ("::1", Loopback),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("::", Unspecified),
        ("10.1.2.3", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("fc00::1", Private),
        ("fdff::1", Private),
        ("fec0::1", Private),
        ("100.64.0.1", CarrierNat),
        ("100.127.255.255", CarrierNat),
        ("169.254.1.1", LinkLocal),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("100.100.100.200", Metadata),
        ("fd00:ec2::254", Metadata),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("ff02::1", Multicast),
        ("255.255.255.255", Broadcast),
        ("240.0.0.1", Reserved),
        ("192.0.2.1", Reserved),
        ("198.18.0.1", Reserved),
        ("2001:db8::1", Reserved),
        ("2001:0:1::1", Reserved),
        ("::8.8.8.8", Reserved),
        ("64:ff9b:1::1", Reserved),
        ("4000::1", Reserved),
    ];
    for (a, why) in table {
        assert_eq!(Policy::default().check(addr(a)), Err(why), "{a}");
    }
    for a in
        ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2001:4860::8", "192.0.1.1"]
    {
        assert_eq!(Policy::default().check(addr(a)), Ok(()), "{a}");
    }
}

#[test]
fn rule_44_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself() {
    let policy = Policy::default();
    for a in ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:0:127.0.0.1"] {
        assert_eq!(policy.check(addr(a)), Err(Prohibited::Loopback), "{a}");
    }
    for a in ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
        assert_eq!(policy.check(addr(a)), Ok(()), "{a}");
    }
    let deny = Policy { deny: prefixes(&["8.8.8.0/24"]), ..Policy::default() };
    assert_eq!(deny.check(addr("::ffff:8.8.8.8")), Err(Prohibited::Denied));
}

#[test]
fn allow_lifts_private_but_not_what_is_nobodys() {
    let policy = Policy {
        allow: prefixes(&["10.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "127.0.0.1"]),
        ..Policy::default()
    };
    assert_eq!(policy.check(addr("10.9.9.9")), Ok(()));
    assert_eq!(policy.check(addr("127.0.0.1")), Ok(()));
    assert_eq!(policy.check(addr("169.254.1.1")), Ok(()));
    assert_eq!(policy.check(addr("169.254.169.254")), Err(Prohibited::Metadata));
    assert_eq!(policy.check(addr("224.0.0.1")), Err(Prohibited::Multicast));
    let exact = Policy { allow: prefixes(&["169.254.169.254"]), ..Policy::default() };
    assert_eq!(exact.check(addr("169.254.169.254")), Ok(()));
}

#[test]
fn deny_wins_over_allow() {
    let policy = Policy {
        allow: prefixes(&["10.0.0.0/8"]),
        deny: prefixes(&["10.1.0.0/16", "9.9.9.9"]),
        ..Policy::default()
    };
    assert_eq!(policy.check(addr("10.2.0.1")), Ok(()));
    assert_eq!(policy.check(addr("10.1.0.1")), Err(Prohibited::Denied));
    assert_eq!(policy.check(addr("9.9.9.9")), Err(Prohibited::Denied));
}

#[test]
fn rule_44_own_addresses_are_refused_even_inside_an_allowed_prefix() {
    let mut policy = Policy {
        own: vec![addr("203.0.114.9"), addr("10.0.0.1")],
        allow: prefixes(&["10.0.0.0/8"]),
        ..Policy::default()
    };
    assert_eq!(policy.check(addr("203.0.114.9")), Err(Prohibited::Own));
    assert_eq!(policy.check(addr("::ffff:203.0.114.9")), Err(Prohibited::Own));
    assert_eq!(policy.check(addr("10.0.0.1")), Err(Prohibited::Own));
    policy.allow.extend(prefixes(&["10.0.0.1"]));
    assert_eq!(policy.check(addr("10.0.0.1")), Ok(()));
}

#[test]
fn clients_reach_each_other_only_if_told_so() {
    let mut policy = Policy { pools: prefixes(&["10.7.0.0/16", "2a00::/64"]), ..Policy::default() };
    assert_eq!(policy.check(addr("10.7.0.9")), Err(Prohibited::Client));
    assert_eq!(policy.check(addr("2a00::9")), Err(Prohibited::Client));
    assert_eq!(policy.check(addr("10.8.0.9")), Err(Prohibited::Private));
    policy.client_to_client = true;
    assert_eq!(policy.check(addr("10.7.0.9")), Ok(()));
    assert_eq!(policy.check(addr("10.8.0.9")), Err(Prohibited::Private));
}

#[test]
fn rule_67_link_local_is_recognised() {
    for a in ["169.254.0.1", "224.0.0.251", "fe80::1", "ff02::1", "ff12::1", "ff01::1"] {
        assert!(is_link_local(addr(a)), "{a}");
    }
    for a in ["224.0.1.1", "ff05::1", "ff0e::1", "2001:db8::1", "10.0.0.1"] {
        assert!(!is_link_local(addr(a)), "{a}");
    }
}
