//! Links: everything a client needs, in one line and as a QR code.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// `bauta://TOKEN@domain:port`. The token is base64url, so nothing needs escaping.
pub fn link(token: &str, domain: &str, port: u16) -> String {
    format!("bauta://{token}@{domain}:{port}")
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
    use super::*;

    #[test]
    fn a_link_names_token_domain_and_port() {
        let link = link("abc-_", "example.org", 443);
        assert_eq!(link, "bauta://abc-_@example.org:443");
        let qr = qr(&link).unwrap();
        assert!(qr.lines().count() > 10);
        assert!(qr.lines().next().unwrap().contains('█'), "the quiet zone is light");
    }
}
