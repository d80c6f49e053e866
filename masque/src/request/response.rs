//! Whether a response opens the tunnel a request asked for: the client's half of the rules.

use super::{Carriage, Reason};

/// Why a response opens no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The status is no success; a redirect is none either (RFC 9298 §3.5, RFC 9484 §4.5).
    #[error("the proxy answered {0}")]
    Status(u16),
    /// A success that cannot start the Capsule Protocol (RFC 9297 §3.2), or an HTTP/1.1 upgrade to
    /// something else.
    #[error("the proxy accepted, but not as the protocol wants: {0}")]
    Malformed(Reason),
}

/// Judges the response to an extended CONNECT or Upgrade for `protocol`, from its status and header
/// fields. Interim responses other than 101 are not for here.
pub fn opens_tunnel<'a>(
    carriage: Carriage,
    protocol: &str,
    status: u16,
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), Refused> {
    let success = match carriage {
        Carriage::H1 => status == 101,
        Carriage::H2 | Carriage::H3 => (200..300).contains(&status),
    };
    if !success {
        return Err(Refused::Status(status));
    }
    let (mut upgrades, mut named, mut connection) = (0, false, false);
    let mut content = matches!(status, 204..=206);
    for (name, value) in fields {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        content |= is("content-length") || is("content-type") || is("transfer-encoding");
        if is("upgrade") {
            upgrades += 1;
            named = value.trim_ascii().eq_ignore_ascii_case(protocol.as_bytes());
        } else if is("connection") {
            let mut tokens = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            connection |= tokens.any(|t| t.eq_ignore_ascii_case(b"upgrade"));
        }
    }
    match carriage {
        _ if content => Err(Refused::Malformed(Reason::Content)),
        Carriage::H1 if upgrades != 1 || !named => Err(Refused::Malformed(Reason::Upgrade)),
        Carriage::H1 if !connection => Err(Refused::Malformed(Reason::Connection)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{CONNECT_IP, CONNECT_UDP};

    fn judge(carriage: Carriage, status: u16, fields: &[(&str, &str)]) -> Result<(), Refused> {
        let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        opens_tunnel(carriage, CONNECT_UDP, status, fields)
    }

    #[test]
    fn rule_35_any_2xx_opens_a_tunnel() {
        for status in [200, 201, 202, 299] {
            assert_eq!(judge(Carriage::H3, status, &[("capsule-protocol", "?1")]), Ok(()));
            assert_eq!(judge(Carriage::H2, status, &[]), Ok(()), "the field is not required");
        }
    }

    #[test]
    fn rule_51_nothing_but_2xx_opens_a_tunnel() {
        for status in [100, 101, 199, 300, 302, 404, 500] {
            assert_eq!(judge(Carriage::H3, status, &[]), Err(Refused::Status(status)));
        }
        assert_eq!(judge(Carriage::H1, 200, &[]), Err(Refused::Status(200)));
    }

    #[test]
    fn rule_14_a_success_with_content_is_malformed() {
        let malformed = Err(Refused::Malformed(Reason::Content));
        for status in [204, 205, 206] {
            assert_eq!(judge(Carriage::H3, status, &[]), malformed);
        }
        for name in ["content-length", "Content-Type", "transfer-encoding"] {
            assert_eq!(judge(Carriage::H3, 200, &[(name, "0")]), malformed, "{name}");
        }
    }

    #[test]
    fn rule_33_an_http_1_success_is_a_101_to_the_same_protocol() {
        let good = [("Connection", "upgrade"), ("Upgrade", "connect-udp")];
        assert_eq!(judge(Carriage::H1, 101, &good), Ok(()));
        let upgrade = Err(Refused::Malformed(Reason::Upgrade));
        assert_eq!(judge(Carriage::H1, 101, &good[..1]), upgrade);
        assert_eq!(judge(Carriage::H1, 101, &[good[0], ("Upgrade", CONNECT_IP)]), upgrade);
        assert_eq!(judge(Carriage::H1, 101, &[good[0], good[1], good[1]]), upgrade);
        let connection = Err(Refused::Malformed(Reason::Connection));
        assert_eq!(judge(Carriage::H1, 101, &good[1..]), connection);
    }
}
