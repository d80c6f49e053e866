//! `[acme]`: certificates fetched and renewed by themselves.

use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de};

use super::{Span, domain};

/// `[acme]`: its presence turns it on, and `[tls]` off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Acme {
    /// Whom the authority writes to when something is wrong.
    #[serde(deserialize_with = "email")]
    pub email: Option<String>,
    /// Further names in the certificate, and IP addresses, beside the domain.
    #[serde(deserialize_with = "names")]
    pub domains: Vec<String>,
    /// Let's Encrypt's staging service in place of its real one.
    pub staging: bool,
    /// Another authority's directory.
    #[serde(deserialize_with = "directory")]
    pub directory: Option<String>,
    /// PEM file of the roots that the directory's own HTTPS is checked against; absent: the
    /// system's.
    pub ca: Option<PathBuf>,
    /// How names are proven; absent: TLS-ALPN-01, and HTTP-01 after a failure.
    pub challenge: Option<Challenge>,
    /// How long before its end a certificate is renewed; absent: a third of its life.
    pub renew_before: Option<Span>,
    /// Whether the authority is asked when to renew (ARI, RFC 9773).
    pub ari: bool,
    /// The authority's profile to order, `shortlived` for instance.
    pub profile: Option<String>,
    /// The account at the authority to bind ours to.
    pub eab: Option<Eab>,
}

/// `[acme.eab]`: external account binding (RFC 8555 section 7.3.4).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eab {
    /// The key's name.
    pub kid: String,
    /// The key, base64url as authorities give it out.
    #[serde(deserialize_with = "key")]
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Eab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Eab").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// How a name is proven to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Challenge {
    /// A TLS handshake on TCP port 443.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A request to TCP port 80.
    #[serde(rename = "http-01")]
    Http01,
}

fn email<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let text = text.strip_prefix("mailto:").unwrap_or(&text);
    let ok =
        text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    let say = || de::Error::custom(format!("`{text}` is not an e-mail address"));
    ok.then(|| Some(text.to_owned())).ok_or_else(say)
}

fn names<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(d)?;
    let one = |name: String| match name.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => domain::<de::value::StringDeserializer<D::Error>>(
            de::IntoDeserializer::into_deserializer(name),
        ),
    };
    names.into_iter().map(one).collect()
}

fn directory<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let host = text.strip_prefix("https://").is_some_and(|rest| !rest.starts_with('/'));
    let uri = text.parse::<http::Uri>().is_ok();
    let say = format!("`{text}` is no directory; write e.g. https://ca.example/acme/directory");
    (host && uri).then_some(Some(text)).ok_or_else(|| de::Error::custom(say))
}

fn key<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(d)?;
    // The text itself is a secret, and stays out of the message.
    let say = "the key is not base64url; copy it as the authority shows it";
    let key = URL_SAFE_NO_PAD.decode(text.trim()).or_else(|_| URL_SAFE.decode(text.trim()));
    key.ok().filter(|key| !key.is_empty()).ok_or_else(|| de::Error::custom(say))
}
