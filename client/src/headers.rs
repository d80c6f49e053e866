//! The requests that open tunnels, as header lists, and what is read from the answers.

use bauta_masque::{
    request::{CONNECT_IP, CONNECT_UDP},
    template::Template,
};
use bauta_masque_io::{Header, NameValue};

use crate::{config::Settings, dial::Target};

/// Classic CONNECT (RFC 9114 §4.4). The credential is the proxy's: the target has its own `authorization`.
pub fn connect_tcp(settings: &Settings, target: &Target) -> Vec<Header> {
    let authority = target.to_string();
    let credential = settings.token.authorization();
    [(":method", "CONNECT"), (":authority", &authority), ("proxy-authorization", &credential)]
        .map(header)
        .into()
}

/// CONNECT-UDP (RFC 9298 §3.4).
pub fn connect_udp(settings: &Settings, target: &Target) -> Vec<Header> {
    let port = target.port().to_string();
    let vars = [("target_host", target.host()), ("target_port", &port)];
    extended(settings, CONNECT_UDP, &settings.udp_template.expand(&vars))
}

/// CONNECT-IP without a scope (RFC 9484 §4.4): any target, any protocol.
pub fn connect_ip(settings: &Settings) -> Vec<Header> {
    extended(
        settings,
        CONNECT_IP,
        &settings.ip_template.expand(&[("target", "*"), ("ipproto", "*")]),
    )
}

fn extended(settings: &Settings, protocol: &str, path: &str) -> Vec<Header> {
    let authority = authority(settings, &settings.ip_template);
    let credential = settings.token.authorization();
    [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", &authority),
        (":path", path),
        ("capsule-protocol", "?1"),
        ("authorization", &credential),
    ]
    .map(header)
    .into()
}

/// The website's name; its port only where it is not the default one.
fn authority(settings: &Settings, template: &Template) -> String {
    if let Some((_, authority)) = template.origin().split_once("://") {
        return authority.into();
    }
    let name = if settings.sni.contains(':') {
        format!("[{}]", settings.sni)
    } else {
        settings.sni.clone()
    };
    if settings.server.port == 443 { name } else { format!("{name}:{}", settings.server.port) }
}

fn header((name, value): (&str, &str)) -> Header {
    Header::new(name.as_bytes(), value.as_bytes())
}

/// The status of an answer; 0 when there is none that is a number.
pub fn status(headers: &[Header]) -> u16 {
    field(headers, ":status").and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// A field of an answer, if it is text.
pub fn field<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|h| h.name().eq_ignore_ascii_case(name.as_bytes()))?;
    std::str::from_utf8(found.value()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn settings(link: &str) -> Settings {
        Settings::load(Sources { link: Some(("test".into(), link.into())), ..Sources::default() })
            .unwrap()
    }

    #[test]
    fn connect_ip_asks_for_everything() {
        let headers = connect_ip(&settings("bauta://tok@vpn.example"));
        assert_eq!(field(&headers, ":path"), Some("/.well-known/masque/ip/*/*/"));
        assert_eq!(field(&headers, ":authority"), Some("vpn.example"));
        assert_eq!(field(&headers, "authorization"), Some("Bearer tok"));
    }

    #[test]
    fn connect_udp_escapes_an_ipv6_target() {
        let target = Target::new("2001:db8::1", 53).unwrap();
        let headers = connect_udp(&settings("bauta://tok@192.0.2.1:8443?sni=vpn.example"), &target);
        assert_eq!(field(&headers, ":path"), Some("/.well-known/masque/udp/2001%3Adb8%3A%3A1/53/"));
        assert_eq!(field(&headers, ":authority"), Some("vpn.example:8443"));
    }

    #[test]
    fn classic_connect_has_neither_scheme_nor_path() {
        let headers =
            connect_tcp(&settings("bauta://tok@vpn.example"), &Target::new("::1", 22).unwrap());
        assert_eq!(field(&headers, ":authority"), Some("[::1]:22"));
        assert_eq!((field(&headers, ":path"), field(&headers, ":scheme")), (None, None));
    }

    #[test]
    fn a_status_that_is_no_number_is_none() {
        assert_eq!(status(&[header((":status", "404"))]), 404);
        assert_eq!(status(&[header((":status", "x"))]), 0);
    }
}
