//! Links: everything a client needs, in one line and as a QR code.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

use crate::config::{Config, Tunnel};

/// What a template keeps in a query.
const TEMPLATE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');

/// `bauta://TOKEN@domain:port`, or without a token for clients that have a key, with the templates
/// that are not the default ones. The token is base64url, so nothing in it needs escaping.
pub fn link(token: Option<&str>, config: &Config) -> String {
    let token = token.map(|token| format!("{token}@")).unwrap_or_default();
    let mut link = format!("bauta://{token}{}:{}", config.domain, config.listen.port());
    let default = Tunnel::default();
    let templates = [
        ("ip", &config.tunnel.ip_template, &default.ip_template),
        ("udp", &config.tunnel.udp_template, &default.udp_template),
    ];
    for (name, template, _) in templates.into_iter().filter(|(_, given, usual)| given != usual) {
        link.push(if link.contains('?') { '&' } else { '?' });
        link += &format!("{name}={}", utf8_percent_encode(template, TEMPLATE));
    }
    link
}

/// The link as a QR code of half-height blocks with its quiet zone, for a terminal; `None` if it
/// is too long for one.
pub fn qr(link: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(link, EcLevel::L).ok()?;
    // Terminals are mostly dark, and scanners want dark modules on light ground: light is drawn.
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Some(code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_link_names_token_domain_port_and_unusual_templates() {
        let of = |text: &str| {
            let text = format!("domain = \"example.org\"\n{text}");
            link(Some("abc-_"), &Config::parse(&text, Path::new("x")).unwrap())
        };
        assert_eq!(of(""), "bauta://abc-_@example.org:443");
        assert_eq!(of("listen = \"0.0.0.0:8443\""), "bauta://abc-_@example.org:8443");
        let config = Config::parse("domain = \"example.org\"", Path::new("x")).unwrap();
        assert_eq!(link(None, &config), "bauta://example.org:443");
        let template = "[tunnel]\nip_template = \"/a/{target}/{ipproto}\"";
        assert_eq!(of(template), "bauta://abc-_@example.org:443?ip=/a/%7Btarget%7D/%7Bipproto%7D");
    }

    #[test]
    fn a_qr_code_has_a_light_quiet_zone() {
        let qr = qr("bauta://abc@example.org:443").unwrap();
        assert!(qr.lines().count() > 10);
        assert!(qr.lines().next().unwrap().contains('█'));
    }
}
