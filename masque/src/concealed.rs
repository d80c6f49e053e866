//! Concealed authentication (RFC 9729): a signature over something that only the two ends of this
//! TLS connection know, so that nothing is asked for, nothing can be replayed, and whoever fails
//! meets what is not there.
//!
//! Pure: what the TLS exporter gives, and the signature, come from outside. Ed25519 is the one
//! scheme in use; the format takes any.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::varint;

/// The scheme's name in `Authorization` and `Proxy-Authorization`.
pub const SCHEME: &str = "Concealed";
/// The exporter's label (§3).
pub const LABEL: &str = "EXPORTER-HTTP-Concealed-Authentication";
/// What the exporter gives, bytes: 32 that are signed, 16 that are shown (§3.2).
pub const EXPORTED: usize = 48;
/// `ed25519` in the TLS registry of signature schemes.
pub const ED25519: u16 = 0x0807;
/// A field with the exporter's output, between servers only: from a client it is removed (§6.2).
pub const EXPORT_FIELD: &str = "concealed-auth-export";
/// The longest credential looked at, in bytes; Ed25519 with a key id of 32 bytes takes 240.
pub const MAX_VALUE: usize = 1024;
/// Parameters of a credential looked at, the unknown ones included.
const MAX_PARAMETERS: usize = 16;

const SIGNED: usize = 32;
const SPACES: usize = 64;
const CONTEXT: &[u8] = b"HTTP Concealed Authentication\0";
/// Length of what is signed, in bytes.
pub const CONTENT: usize = SPACES + CONTEXT.len() + SIGNED;

/// What a request is addressed to, as it stands in the URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// `https`.
    pub scheme: &'a [u8],
    /// IPv6 addresses in brackets.
    pub host: &'a [u8],
    /// Named, or the default one.
    pub port: u16,
}

impl<'a> Origin<'a> {
    /// Of a request's scheme and authority; of CONNECT, which has no scheme, that of the
    /// connection. `None` where the authority is none, or names no port and has no default.
    pub fn of(scheme: Option<&'a [u8]>, authority: &'a [u8]) -> Option<Self> {
        let scheme = scheme.unwrap_or(b"https");
        let default = match scheme {
            b"https" => Some(443),
            b"http" => Some(80),
            _ => None,
        };
        let end = authority.iter().rposition(|b| *b == b']').unwrap_or(0);
        let colon = authority[end..].iter().position(|b| *b == b':').map(|at| at + end);
        let (host, port) = match colon {
            Some(at) => (&authority[..at], number(&authority[at + 1..])),
            None => (authority, default),
        };
        (!host.is_empty()).then_some(Self { scheme, host, port: port? })
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    let plain = match digits {
        [b'0'] => true,
        [b'0', ..] => false,
        _ => (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
    };
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// A credential as it came (§4). Everything in it is the sender's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// `k`: which key.
    pub key_id: Vec<u8>,
    /// `a`: the key.
    pub public_key: Vec<u8>,
    /// `p`: the signature.
    pub proof: Vec<u8>,
    /// `s`: the TLS signature scheme.
    pub scheme: u16,
    /// `v`: that the sender knows what the exporter gives.
    pub verification: Vec<u8>,
    /// `realm`; empty when absent.
    pub realm: Vec<u8>,
}

impl Credential {
    /// Reads a field's value. `None` for another scheme, a parameter that is missing, repeated or
    /// not written as it must be: the field then counts as absent (§6.1).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok().filter(|v| v.len() <= MAX_VALUE)?;
        let (scheme, mut rest) = value.trim_matches(OWS).split_once(' ')?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return None;
        }
        let (mut k, mut a, mut p, mut s, mut v, mut realm) = (None, None, None, None, None, None);
        for _ in 0..MAX_PARAMETERS {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, value, after) = parameter(rest)?;
            rest = after;
            let slot = match name {
                _ if name.eq_ignore_ascii_case("k") => &mut k,
                _ if name.eq_ignore_ascii_case("a") => &mut a,
                _ if name.eq_ignore_ascii_case("p") => &mut p,
                _ if name.eq_ignore_ascii_case("s") => &mut s,
                _ if name.eq_ignore_ascii_case("v") => &mut v,
                _ if name.eq_ignore_ascii_case("realm") => &mut realm,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let bytes = |value: Option<Value<'_>>| match value? {
            Value::Token(text) => URL_SAFE_NO_PAD.decode(text).ok(),
            Value::Quoted(_) => None,
        };
        let scheme = match s? {
            Value::Token(digits) => number(digits.as_bytes())?,
            Value::Quoted(_) => return None,
        };
        let realm = match realm {
            None => Vec::new(),
            Some(Value::Token(text)) => text.as_bytes().to_vec(),
            Some(Value::Quoted(text)) => unescape(text),
        };
        rest.is_empty().then_some(Self {
            key_id: bytes(k)?,
            public_key: bytes(a)?,
            proof: bytes(p)?,
            scheme,
            verification: bytes(v)?,
            realm,
        })
    }

    /// The exporter's context that this credential claims to be made with (§3.1).
    pub fn context(&self, origin: Origin<'_>) -> Vec<u8> {
        context(self.scheme, &self.key_id, &self.public_key, origin, &self.realm)
    }

    /// The field's value.
    pub fn value(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut out = format!(
            "{SCHEME} k={}, a={}, s={}, v={}, p={}",
            encode(&self.key_id),
            encode(&self.public_key),
            self.scheme,
            encode(&self.verification),
            encode(&self.proof),
        );
        if !self.realm.is_empty() {
            let text = String::from_utf8_lossy(&self.realm);
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(out, ", realm=\"{escaped}\"");
        }
        out
    }
}

/// Optional white space (RFC 9110 §5.6.3).
const OWS: [char; 2] = [' ', '\t'];

enum Value<'a> {
    Token(&'a str),
    Quoted(&'a str),
}

/// One `name=value` at the front, and what follows it.
fn parameter(text: &str) -> Option<(&str, Value<'_>, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_end_matches(OWS);
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let rest = rest.trim_start_matches(OWS);
    let (value, rest) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.bytes().position(|b| {
                let end = b == b'"' && !escaped;
                escaped = b == b'\\' && !escaped;
                end
            })?;
            (Value::Quoted(&quoted[..end]), &quoted[end + 1..])
        }
        None => {
            let end = rest.bytes().position(|b| !is_token(b)).unwrap_or(rest.len());
            (Value::Token(&rest[..end]), &rest[end..])
        }
    };
    let rest = rest.trim_start_matches(OWS);
    (rest.is_empty() || rest.starts_with(',')).then_some((name, value, rest))
}

/// RFC 9110 §5.6.2.
const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

fn unescape(text: &str) -> Vec<u8> {
    let mut escaped = false;
    let kept = text.bytes().filter(|b| {
        escaped = *b == b'\\' && !escaped;
        !escaped
    });
    kept.collect()
}

/// The exporter's context (§3.1); lengths are varints of the least size.
pub fn context(
    scheme: u16,
    key_id: &[u8],
    public_key: &[u8],
    origin: Origin<'_>,
    realm: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let string = |bytes: &[u8], out: &mut Vec<u8>| {
        varint::encode(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    out.extend_from_slice(&scheme.to_be_bytes());
    string(key_id, &mut out);
    string(public_key, &mut out);
    string(origin.scheme, &mut out);
    string(origin.host, &mut out);
    out.extend_from_slice(&origin.port.to_be_bytes());
    string(realm, &mut out);
    out
}

/// What is signed (§3.3).
pub fn content(exported: &[u8; EXPORTED]) -> [u8; CONTENT] {
    let mut out = [b' '; CONTENT];
    out[SPACES..SPACES + CONTEXT.len()].copy_from_slice(CONTEXT);
    out[SPACES + CONTEXT.len()..].copy_from_slice(&exported[..SIGNED]);
    out
}

/// What goes into `v` (§3.2).
pub fn verification(exported: &[u8; EXPORTED]) -> &[u8] {
    &exported[SIGNED..]
}

#[cfg(test)]
mod tests;
