use super::*;
use proptest::prelude::*;

type Field<'a> = (&'a str, &'a str);

fn h3(fields: &[Field<'_>]) -> Ask {
    let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    classify(&Head::from_fields(Carriage::H3, fields), &Templates::new(None, None).unwrap())
}

fn h1(method: &str, target: &str, fields: &[Field<'_>]) -> Ask {
    let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let head = Head::from_h1(method.as_bytes(), target.as_bytes(), fields);
    classify(&head, &Templates::new(None, None).unwrap())
}

fn extended(protocol: &str, path: &str) -> Ask {
    h3(&[
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", "example.org"),
        (":path", path),
        ("capsule-protocol", "?1"),
    ])
}

fn udp(host: &str, port: &str) -> Ask {
    extended("connect-udp", &format!("/.well-known/masque/udp/{host}/{port}/"))
}

fn ip(target: &str, ipproto: &str) -> Ask {
    extended("connect-ip", &format!("/.well-known/masque/ip/{target}/{ipproto}/"))
}

fn name(s: &str) -> Host {
    Host::Name(s.into())
}

const UPGRADE: &[Field<'_>] =
    &[("Host", "example.org"), ("Connection", "keep-alive, Upgrade"), ("Upgrade", "connect-udp")];
const UDP_PATH: &str = "/.well-known/masque/udp/192.0.2.6/443/";

#[test]
fn an_ordinary_request_is_the_websites() {
    assert_eq!(
        h3(&[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")]),
        Ask::Http
    );
    assert_eq!(h1("GET", "/", &[("Host", "a")]), Ask::Http);
    assert_eq!(h1("GET", UDP_PATH, &[("Host", "a")]), Ask::Http);
    assert_eq!(
        h1("GET", "/chat", &[("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]),
        Ask::Http
    );
}

#[test]
fn rule_34_a_udp_request_is_read() {
    let v4 = Host::Ip("192.0.2.6".parse().unwrap());
    assert_eq!(udp("192.0.2.6", "443"), Ask::ConnectUdp { host: v4, port: 443 });
    assert_eq!(udp("Example.ORG.", "53"), Ask::ConnectUdp { host: name("example.org"), port: 53 });
}

#[test]
fn rule_25_hosts_and_ports_are_checked() {
    let v6 = Host::Ip("2001:db8::42".parse().unwrap());
    assert_eq!(udp("2001%3Adb8%3A%3A42", "443"), Ask::ConnectUdp { host: v6, port: 443 });
    for host in [
        "",
        "fe80%3A%3A1%25eth0",
        "%5B%3A%3A1%5D",
        "a%2Fb",
        "a%20b",
        "a..b",
        "127.1",
        "0x7f.0.0.0x1",
        "0X7F",
        "%00",
    ] {
        assert_eq!(udp(host, "443"), Ask::Malformed(Reason::Target), "{host}");
    }
    assert_eq!(udp(&"a".repeat(64), "443"), Ask::Malformed(Reason::Target));
    for port in ["", "0", "65536", "-1", "+80", "443x", "000443"] {
        assert_eq!(udp("a", port), Ask::Malformed(Reason::Port), "{port}");
    }
}

#[test]
fn rule_26_a_target_is_decoded_exactly_once() {
    assert_eq!(udp("a%252eb", "1"), Ask::Malformed(Reason::Target));
    assert_eq!(udp("a%2eb", "1"), Ask::ConnectUdp { host: name("a.b"), port: 1 });
    assert_eq!(udp("a%2", "1"), Ask::Malformed(Reason::Encoding));
    assert_eq!(udp("%ff", "1"), Ask::Malformed(Reason::Encoding));
}

#[test]
fn rule_34_missing_pseudo_headers_are_malformed() {
    let full = [
        (":method", "CONNECT"),
        (":protocol", "connect-udp"),
        (":scheme", "https"),
        (":authority", "example.org"),
        (":path", UDP_PATH),
    ];
    assert!(matches!(h3(&full), Ask::ConnectUdp { .. }));
    for i in [0, 2, 3, 4] {
        let mut fields = full.to_vec();
        fields.remove(i);
        assert!(matches!(h3(&fields), Ask::Malformed(_)), "without {}", full[i].0);
        let mut fields = full.to_vec();
        fields[i].1 = "";
        assert!(matches!(h3(&fields), Ask::Malformed(_)), "empty {}", full[i].0);
        let mut fields = full.to_vec();
        fields.push(full[i]);
        assert_eq!(h3(&fields), Ask::Malformed(Reason::PseudoHeader), "twice {}", full[i].0);
    }
    let mut late = full.to_vec();
    late.insert(4, ("user-agent", "x"));
    assert_eq!(h3(&late), Ask::Malformed(Reason::PseudoHeader));
    let mut get = full.to_vec();
    get[0].1 = "GET";
    assert_eq!(h3(&get), Ask::Malformed(Reason::Method));
}

#[test]
fn rule_33_an_http_1_upgrade_follows_its_rules() {
    let host = Host::Ip("192.0.2.6".parse().unwrap());
    assert_eq!(h1("GET", UDP_PATH, UPGRADE), Ask::ConnectUdp { host: host.clone(), port: 443 });
    let absolute = format!("https://example.org{UDP_PATH}");
    assert_eq!(h1("GET", &absolute, UPGRADE), Ask::ConnectUdp { host, port: 443 });
    assert_eq!(h1("POST", UDP_PATH, UPGRADE), Ask::Malformed(Reason::Method));
    assert_eq!(h1("GET", UDP_PATH, &UPGRADE[1..]), Ask::Malformed(Reason::Host));
    let twice = [UPGRADE, &UPGRADE[..1]].concat();
    assert_eq!(h1("GET", UDP_PATH, &twice), Ask::Malformed(Reason::Host));
    let no_connection = [UPGRADE[0], UPGRADE[2]];
    assert_eq!(h1("GET", UDP_PATH, &no_connection), Ask::Malformed(Reason::Connection));
}

#[test]
fn rule_14_fields_about_content_are_malformed_on_a_tunnel() {
    for field in
        [("Content-Length", "0"), ("Content-Type", "a/b"), ("Transfer-Encoding", "chunked")]
    {
        let fields = [UPGRADE, &[field]].concat();
        assert_eq!(h1("GET", UDP_PATH, &fields), Ask::Malformed(Reason::Content));
    }
}

#[test]
fn rule_48_the_variables_of_connect_ip_are_optional_but_not_empty() {
    let any = Ask::ConnectIp { target: Target::Any, ipproto: None };
    assert_eq!(ip("*", "*"), any);
    assert_eq!(ip("%2A", "%2a"), any);
    assert_eq!(ip("", "*"), Ask::Malformed(Reason::Target));
    assert_eq!(ip("*", ""), Ask::Malformed(Reason::IpProto));
    let templates = Templates::new(None, Some("/vpn")).unwrap();
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"connect-ip"),
        (b":scheme", b"https"),
        (b":authority", b"a"),
        (b":path", b"/vpn"),
    ];
    assert_eq!(classify(&Head::from_fields(Carriage::H2, fields), &templates), any);
}

#[test]
fn rule_49_scopes_are_checked() {
    let target = |t: &str| match ip(t, "17") {
        Ask::ConnectIp { target, ipproto: Some(17) } => target.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(target("192.0.2.0%2F24"), "192.0.2.0/24");
    assert_eq!(target("2001%3Adb8%3A%3A%2F32"), "2001:db8::/32");
    assert_eq!(target("192.0.2.1"), "192.0.2.1");
    assert_eq!(target("Example.org"), "example.org");
    for bad in [
        "192.0.2.1%2F24",
        "192.0.2.0%2F33",
        "192.0.2.0%2F",
        "example.org%2F24",
        "%3A%3A%2F129",
        "a%25b",
        "fe80%3A%3A1%25e",
    ] {
        assert_eq!(ip(bad, "17"), Ask::Malformed(Reason::Target), "{bad}");
    }
    for bad in ["256", "1000", "-1", "+6", "tcp", "1.0"] {
        assert_eq!(ip("*", bad), Ask::Malformed(Reason::IpProto), "{bad}");
    }
    assert_eq!(ip("*", "0"), Ask::ConnectIp { target: Target::Any, ipproto: Some(0) });
}

#[test]
fn rule_77_an_unknown_protocol_is_told_from_a_path_that_is_no_tunnel() {
    assert_eq!(extended("websocket", "/"), Ask::UnknownProtocol);
    assert_eq!(extended("connect-udp", "/elsewhere"), Ask::Http);
}

#[test]
fn plain_connect_is_host_and_port_alone() {
    let connect = |authority| h3(&[(":method", "CONNECT"), (":authority", authority)]);
    assert_eq!(
        connect("Example.org:443"),
        Ask::ConnectTcp { host: name("example.org"), port: 443 }
    );
    let v6 = Host::Ip("::1".parse().unwrap());
    assert_eq!(connect("[::1]:80"), Ask::ConnectTcp { host: v6, port: 80 });
    for bad in [
        "",
        "example.org",
        "::1:80",
        "user@example.org:80",
        "[::1]",
        "[a]:80",
        "[1.2.3.4]:80",
        "a b:80",
    ] {
        assert_eq!(connect(bad), Ask::Malformed(Reason::Authority), "{bad}");
    }
    assert_eq!(connect("example.org:0"), Ask::Malformed(Reason::Port));
    let with_path = [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")];
    assert_eq!(h3(&with_path), Ask::Malformed(Reason::PseudoHeader));
    assert_eq!(h3(&[(":method", "CONNECT")]), Ask::Malformed(Reason::Authority));
    assert_eq!(
        h1("CONNECT", "a:1", &[("Host", "a:1")]),
        Ask::ConnectTcp { host: name("a"), port: 1 }
    );
}

#[test]
fn rule_18_capsule_protocol_is_a_boolean_with_parameters_nobody_knows() {
    for (value, read) in [
        ("?1", Some(true)),
        (" ?1 ", Some(true)),
        ("?0", Some(false)),
        ("?1;a", Some(true)),
        ("?1; a=1;b=\"x;\\\"y\";c=:YQ==:;d=?0;*e=tok/en", Some(true)),
        ("1", None),
        ("true", None),
        ("\"?1\"", None),
        ("?2", None),
        ("?1, ?1", None),
        ("?1;", None),
        ("?1;A=1", None),
        ("?1;a=", None),
        ("?1;a=\"x", None),
        ("?1x", None),
        ("", None),
    ] {
        assert_eq!(capsule_protocol(value.as_bytes()), read, "{value}");
    }
    let both = [("capsule-protocol", "?1"), ("capsule-protocol", "?1")];
    let head =
        Head::from_fields(Carriage::H3, both.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    assert!(!head.capsule_protocol);
}

proptest! {
    #[test]
    fn any_fields_never_panic(
        fields in prop::collection::vec(
            (prop::sample::select(vec![":method", ":protocol", ":path", ":authority", ":scheme", "host", "upgrade", "connection", "capsule-protocol", "content-length"]),
             prop_oneof![".{0,30}", Just("CONNECT".to_owned()), Just("connect-ip".to_owned())]), 0..8),
        target in ".{0,30}",
    ) {
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let templates = Templates::new(None, None).unwrap();
        let _ = classify(&Head::from_fields(Carriage::H3, fields.clone()), &templates);
        let _ = classify(&Head::from_h1(b"GET", target.as_bytes(), fields.clone()), &templates);
        let _ = classify(&Head::from_h1(b"CONNECT", target.as_bytes(), fields), &templates);
        let _ = capsule_protocol(target.as_bytes());
    }

    #[test]
    fn a_host_reads_back(host in "[a-zA-Z0-9.:_-]{1,40}") {
        if let Ok(host) = host.parse::<Host>() {
            prop_assert_eq!(host.to_string().parse(), Ok(host));
        }
    }
}
