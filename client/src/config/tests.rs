//! Settings from files and links.

use super::*;

fn settings(text: &str) -> Result<Settings, ConfigError> {
    let file = File::parse(text, Path::new("t.toml"))?;
    let link = file.link.clone();
    file.settle(link)
}

fn error(text: &str) -> String {
    settings(text).unwrap_err().to_string()
}

#[test]
fn a_link_is_enough() {
    let s = settings("link = 'bauta://tok@vpn.example'").unwrap();
    assert_eq!((s.sni.as_str(), s.name.as_str(), s.mark), ("vpn.example", "bauta0", 0xba00));
    assert_eq!(s.kill_switch, None);
}

#[test]
fn a_server_and_a_token_are_enough() {
    let s = settings("server = 'vpn.example:8443'\ntoken = 'tok'\nsni = 'site.example'").unwrap();
    assert_eq!((s.server.port, s.sni.as_str()), (8443, "site.example"));
}

#[test]
fn errors_name_file_line_and_column() {
    assert!(error("a = 1").starts_with("t.toml:1:1: unknown field `a`"), "{}", error("a = 1"));
    assert!(error("server = 'x'\nmtu = 5").starts_with("t.toml:2:7: an MTU is from 576 to 9000"));
    assert!(error("\n  link = 'bauta://tok@'").starts_with("t.toml:2:10: the link is not right"));
    assert!(error("name = 'a/b'").contains("cannot name an interface"));
    assert!(error("exclude = ['10.1.0.0/8']").contains("begins at 10.0.0.0"));
    assert!(error("[proxy]\nsocks = 'x'").starts_with("t.toml:2:9"));
    assert!(error("server = [").starts_with("t.toml:1:"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(error("").contains("no gateway"));
    assert!(error("server = 'h'\nkey_file = '/nowhere/key'").contains("has no token"));
    assert!(
        error("link = 'bauta://h'\nkey_file = '/nowhere/key'").contains("`bauta key` makes one")
    );
    assert!(error("server='h'\ntoken='t'\ntoken_file='/x'").contains("exclude"));
    assert!(error("link='bauta://t@h'\nipv4=false\nipv6=false").contains("both off"));
}

#[test]
fn the_token_never_shows_in_errors_or_debug() {
    for text in ["token = 'hush hush'", "link = 'bauta://hush@h:0'", "link = 'bauta://hush@h?x=1'"]
    {
        assert!(!error(text).contains("hush"), "{}", error(text));
    }
    assert!(!format!("{:?}", settings("link='bauta://hush@h'").unwrap()).contains("hush"));
}

#[test]
fn tunnels_have_marks_of_their_own() {
    assert_eq!((mark_of("bauta0"), mark_of("bauta7")), (0xba00, 0xba07));
    assert_ne!(mark_of("home"), mark_of("work"));
}

#[test]
fn the_sample_configuration_loads() {
    let sample = include_str!("../../../deploy/bauta.example.toml");
    settings(sample).unwrap();
    // Every setting is shown, commented out or not: uncommented they must load as well.
    let all: String = sample
        .lines()
        .map(|line| {
            line.strip_prefix("#")
                .filter(|l| l.contains(" = ") || l.starts_with('['))
                .unwrap_or(line)
        })
        .filter(|line| !line.starts_with("link = "))
        .map(|line| format!("{line}\n"))
        .collect();
    File::parse(&all, Path::new("bauta.example.toml")).unwrap();
}

#[test]
fn a_rate_is_read_and_needs_the_layer_that_keeps_it() {
    let link = "link = 'bauta://tok@vpn.example'";
    assert_eq!(settings(link).unwrap().rate, None);
    let s = settings(&format!("{link}\nrate = '50mbit'")).unwrap();
    assert_eq!(s.rate, Some(50_000_000));
    assert!(error(&format!("{link}\nrate = '50mbyte'")).contains("is not a rate"));
    let text = format!("{link}\nrate = '50mbit'\nresilience = false");
    assert!(error(&text).contains("`rate` needs"));
}
