//! The requests that open tunnels, as header lists, and what is read from the answers.

use bauta_masque::request::{CONNECT_IP, CONNECT_UDP};
use bauta_masque_io::{Header, NameValue, concealed::Export};

use crate::{config::Settings, dial::Target};

/// Classic CONNECT (RFC 9114 §4.4). The credential is the proxy's: the target has its own `authorization`.
pub fn connect_tcp(settings: &Settings, tls: &mut dyn Export, target: &Target) -> Vec<Header> {
    let authority = target.to_string();
    let mut list = vec![header((":method", "CONNECT")), header((":authority", &authority))];
    let credential = settings.credential.authorization(tls, &authority);
    list.extend(credential.map(|value| header(("proxy-authorization", &value))));
    list
}

/// CONNECT-UDP (RFC 9298 §3.4).
pub fn connect_udp(settings: &Settings, tls: &mut dyn Export, target: &Target) -> Vec<Header> {
    let port = target.port().to_string();
    let vars = [("target_host", target.host()), ("target_port", &port)];
    extended(settings, tls, CONNECT_UDP, &settings.udp_template.expand(&vars))
}

/// CONNECT-IP without a scope (RFC 9484 §4.4): any target, any protocol.
pub fn connect_ip(settings: &Settings, tls: &mut dyn Export) -> Vec<Header> {
    let path = settings.ip_template.expand(&[("target", "*"), ("ipproto", "*")]);
    extended(settings, tls, CONNECT_IP, &path)
}

/// A page of the gateway's website, or what belongs to one, as a browser asks for it.
pub fn page(authority: &str, path: &str) -> Vec<Header> {
    Vec::from([
        header((":method", "GET")),
        header((":authority", authority)),
        header((":scheme", "https")),
        header((":path", path)),
        header(("accept", "*/*")),
        header(("accept-encoding", "gzip, deflate, br, zstd")),
        header(("accept-language", "en-US,en;q=0.9")),
    ])
}

fn extended(settings: &Settings, tls: &mut dyn Export, protocol: &str, path: &str) -> Vec<Header> {
    let authority = site(settings);
    let mut list = Vec::from([
        header((":method", "CONNECT")),
        header((":protocol", protocol)),
        header((":scheme", "https")),
        header((":authority", &authority)),
        header((":path", path)),
        header(("capsule-protocol", "?1")),
    ]);
    let credential = settings.credential.authorization(tls, &authority);
    list.extend(credential.map(|value| header(("authorization", &value))));
    list
}

/// The website's name; its port only where it is not the default one.
pub fn site(settings: &Settings) -> String {
    if let Some((_, authority)) = settings.ip_template.origin().split_once("://") {
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
    use std::sync::Arc;

    use bauta_masque_io::concealed::SigningKey;

    use super::*;
    use crate::{config::Sources, key::Credential};

    fn settings(link: &str) -> Settings {
        Settings::load(Sources { link: Some(("test".into(), link.into())), ..Sources::default() })
            .unwrap()
    }

    struct Tls;

    impl Export for Tls {
        fn export(&mut self, _: &[u8]) -> Option<[u8; 48]> {
            Some([7; 48])
        }
    }

    #[test]
    fn a_machine_with_a_key_signs_for_the_authority_it_asks() {
        let mut settings = settings("bauta://tok@vpn.example");
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        settings.credential = Credential::Key(Arc::new(key));
        let headers = connect_ip(&settings, &mut Tls);
        let value = field(&headers, "authorization").unwrap();
        assert!(value.starts_with("Concealed k=") && !value.contains("tok"), "{value}");
        let target = Target::new("::1", 22).unwrap();
        let headers = connect_tcp(&settings, &mut Tls, &target);
        assert!(field(&headers, "proxy-authorization").unwrap().starts_with("Concealed "));
    }

    #[test]
    fn connect_ip_asks_for_everything() {
        let headers = connect_ip(&settings("bauta://tok@vpn.example"), &mut Tls);
        assert_eq!(field(&headers, ":path"), Some("/.well-known/masque/ip/*/*/"));
        assert_eq!(field(&headers, ":authority"), Some("vpn.example"));
        assert_eq!(field(&headers, "authorization"), Some("Bearer tok"));
    }

    #[test]
    fn connect_udp_escapes_an_ipv6_target() {
        let target = Target::new("2001:db8::1", 53).unwrap();
        let headers =
            connect_udp(&settings("bauta://tok@192.0.2.1:8443?sni=vpn.example"), &mut Tls, &target);
        assert_eq!(field(&headers, ":path"), Some("/.well-known/masque/udp/2001%3Adb8%3A%3A1/53/"));
        assert_eq!(field(&headers, ":authority"), Some("vpn.example:8443"));
    }

    #[test]
    fn classic_connect_has_neither_scheme_nor_path() {
        let target = Target::new("::1", 22).unwrap();
        let headers = connect_tcp(&settings("bauta://tok@vpn.example"), &mut Tls, &target);
        assert_eq!(field(&headers, ":authority"), Some("[::1]:22"));
        assert_eq!((field(&headers, ":path"), field(&headers, ":scheme")), (None, None));
    }

    #[test]
    fn a_status_that_is_no_number_is_none() {
        assert_eq!(status(&[header((":status", "404"))]), 404);
        assert_eq!(status(&[header((":status", "x"))]), 0);
    }
}
