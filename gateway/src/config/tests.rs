use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("gateway.toml"))
}

#[test]
fn a_domain_alone_is_a_whole_configuration() {
    let config = parse("domain = \"Example.org\"").unwrap();
    assert_eq!(config.domain, "example.org");
    assert_eq!(config.listen.port(), 443);
    assert!(config.tunnel.enabled && config.tunnel.ip && config.tunnel.nat);
    assert!(config.tunnel.ipv6_pool.is_some());
    assert_eq!(config.worker_count(2), 2);
    assert_eq!(config.worker_count(1000), MAX_WORKERS);
}

#[test]
fn an_unknown_field_is_named_with_file_line_and_column() {
    let error = parse("domain = \"a.org\"\n[tunnel]\n  mut = 1400\n").unwrap_err().to_string();
    assert!(error.starts_with("gateway.toml:3:3: unknown field `mut`"), "{error}");
    assert!(error.contains("`mtu`"), "the right spelling is offered: {error}");
}

#[test]
fn an_empty_file_asks_for_the_domain() {
    let error = parse("").unwrap_err().to_string();
    assert!(error.contains("missing field `domain`"), "{error}");
}

#[test]
fn values_out_of_range_are_named_where_they_stand() {
    let cases = [
        ("workers = 0", "2:1: workers must be 1 to 64"),
        ("packet_limit = 9000000", "2:1: packet_limit must be"),
        ("[tunnel]\nmtu = 1000", "3:1: mtu must be at least 1280"),
        ("[tunnel]\nudp_idle = \"30s\"", "3:1: udp_idle must be at least 2m"),
        ("[tunnel]\nipv4_pool = \"fd00::/64\"", "3:1: ipv4_pool: fd00::/64 is of the other"),
        ("[tunnel]\nipv4_pool = \"10.0.0.0/31\"", "3:1: ipv4_pool: 10.0.0.0/31 holds no two"),
        ("[tunnel]\nipv4_pool = \"10.0.0.1/8\"", "3:13: `10.0.0.1/8` has bits set"),
        ("[tunnel]\nallow = [\"home\"]", "`home` is not a network"),
        ("[tunnel]\nname = \"a b\"", "3:1: name must be"),
        ("[tunnel]\nudp_template = \"/x\"", "3:1: udp_template must contain {target_host}"),
        ("[tunnel]\nrate = \"fast\"", "3:8: `fast` is not a rate"),
        ("[admin]\nlisten = \"9464\"", "3:10: `9464` is not an address and port"),
        ("[xdp]\nmode = \"on\"", "3:8: unknown variant `on`, expected one of `off`, `auto`"),
        ("[site]\nkind = \"blog\"", "unknown variant `blog`"),
    ];
    for (text, wanted) in cases {
        let error = parse(&format!("domain = \"a.org\"\n{text}\n")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let error = parse("domain = \"https://a.org\"").unwrap_err().to_string();
    assert!(error.contains("1:10: `https://a.org` is not a domain name"), "{error}");
}

#[test]
fn an_empty_string_switches_a_pool_or_the_admin_address_off() {
    let text = "domain = \"a.org\"\n[tunnel]\nipv6_pool = \"\"\n[admin]\nlisten = \"\"";
    let config = parse(text).unwrap();
    assert!(config.tunnel.ipv6_pool.is_none() && config.admin.listen.is_none());
    let error = parse("domain = \"a.org\"\n[tunnel]\nipv4_pool = \"\"\nipv6_pool = \"\"");
    assert!(error.unwrap_err().to_string().contains("set ip = false"));
}

/// The fenced TOML of a document.
fn fenced(markdown: &str) -> Vec<&str> {
    markdown.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_field_of_the_reference_loads() {
    let reference = include_str!("../../CONFIG.md");
    let blocks = fenced(reference);
    assert!(!blocks.is_empty());
    for block in &blocks {
        parse(block).unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
    // The other way round: every field the program knows is in the reference.
    let source = concat!(include_str!("../config.rs"), include_str!("xdp.rs"));
    let fields = source.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("pub ")?.split_once(": ")?.0;
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            .then_some(name)
    });
    for field in fields {
        let documented =
            reference.contains(&format!("{field} =")) || reference.contains(&format!("[{field}]"));
        assert!(documented, "{field} is missing from CONFIG.md");
    }
}

#[test]
fn the_sample_configuration_loads() {
    parse(include_str!("../../../deploy/bauta-gateway.example.toml")).unwrap();
}

#[test]
fn mistakes_in_acme_are_named_with_line_and_column() {
    for (line, wanted) in [
        ("email = \"nobody\"", "e-mail"),
        ("domains = [\"https://a.org\"]", "no scheme or port"),
        ("directory = \"http://ca.example\"", "https://"),
        ("challenge = \"dns-01\"", "tls-alpn-01"),
        ("renew_before = \"soon\"", "time"),
        ("staging = true\ndirectory = \"https://ca.example/d\"", "two authorities"),
        ("wildcard = true", "unknown field"),
    ] {
        let error = parse(&format!("domain = \"a.org\"\n[acme]\n{line}\n")).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("gateway.toml:3:") && error.contains(wanted), "{error}");
    }
    let secret = "domain = \"a.org\"\n[acme.eab]\nkid = \"k\"\nkey = \"not base64!\"\n";
    let error = parse(secret).unwrap_err().to_string();
    assert!(error.contains("base64url") && !error.contains("not base64!"), "{error}");
}

#[test]
fn acme_has_all_names_once_and_no_secret_in_its_debug_output() {
    let text = "domain = \"A.org\"\n[acme]\ndomains = [\"www.a.org\", \"a.ORG\", \"2001:DB8::1\"]\n\
                [acme.eab]\nkid = \"k\"\nkey = \"c2VjcmV0\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.names(), ["a.org", "www.a.org", "2001:db8::1"]);
    assert!(!format!("{config:?}").contains("115, 101"), "the key is shown");
}
