//! URI Templates (RFC 6570) as MASQUE restricts them (RFC 9298 §2, RFC 9484 §3): expanded by
//! clients, matched by proxies.
//!
//! Simple expansion (`{a,b}`), form-style queries (`{?a,b}`) and their continuation (`{&a}`) are
//! understood. To match in one pass without guessing, two variables in one path segment must be
//! separated by a character that values never hold unencoded, a comma for instance.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The default of CONNECT-UDP (RFC 9298 §3).
pub const DEFAULT_UDP: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";
/// The default of CONNECT-IP (RFC 9484 §3).
pub const DEFAULT_IP: &str = "/.well-known/masque/ip/{target}/{ipproto}/";

/// The longest template and the longest path that is matched, in bytes.
pub const MAX_LEN: usize = 2_048;

/// The most variables in a template.
pub const MAX_VARIABLES: usize = 16;

/// What values leave unencoded (RFC 3986 §2.3); all else is percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a string is no template that MASQUE permits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than [`MAX_LEN`].
    #[error("longer than {MAX_LEN} bytes")]
    TooLong,
    /// A character outside 0x21 to 0x7e.
    #[error("character {0:?} is not printable ASCII")]
    Character(char),
    /// Neither `https://host/path` nor `/path`.
    #[error("not of the form https://host/path or /path")]
    Form,
    /// A variable in the scheme or authority.
    #[error("a variable stands outside path and query")]
    VariablePlace,
    /// An operator RFC 9298 §2 forbids.
    #[error("operator {0:?} is not allowed")]
    Operator(char),
    /// A brace without its partner, an empty name, a level 4 modifier.
    #[error("bad expression {0:?}")]
    Expression(String),
    /// A variable appears twice, or more than [`MAX_VARIABLES`] do.
    #[error("variable {0:?} appears twice, or there are too many")]
    Variable(String),
    /// Two variables cannot be told apart when a path is matched.
    #[error("two variables in one path segment need a separator such as a comma")]
    Ambiguous,
    /// A variable that must be there is not.
    #[error("variable {0:?} is missing")]
    Missing(&'static str),
}

/// A value is not valid percent-encoded UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value is not percent-encoded UTF-8")]
pub struct BadEncoding;

/// Literal text or one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(String),
}

/// One `&`-separated part of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    key: String,
    /// `None` for a key without `=`.
    value: Option<Piece>,
    /// Whether it came from `{?…}` or `{&…}` and is left out when undefined.
    optional: bool,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    origin: String,
    /// The path between slashes; the first is the empty one before the leading slash.
    segments: Vec<Vec<Piece>>,
    query: Option<Vec<Pair>>,
}

/// The variables of a matched path, still percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vars<'t, 'p>(Vec<(&'t str, &'p str)>);

impl<'p> Vars<'_, 'p> {
    /// The value as it stood in the path.
    pub fn raw(&self, name: &str) -> Option<&'p str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// The value, percent-decoded exactly once; `None` if the variable is absent.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'p, str>>, BadEncoding> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let mut escapes = raw.split('%');
        escapes.next();
        let hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
        if !escapes.all(|e| hex(e.as_bytes().first()) && hex(e.as_bytes().get(1))) {
            return Err(BadEncoding);
        }
        percent_decode_str(raw).decode_utf8().map(Some).map_err(|_| BadEncoding)
    }
}

impl Template {
    /// Reads a template in absolute form, or its path and query alone (the origin is then the
    /// one that serves it).
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        if template.len() > MAX_LEN {
            return Err(TemplateError::TooLong);
        }
        if let Some(c) = template.chars().find(|c| !('\x21'..='\x7e').contains(c)) {
            return Err(TemplateError::Character(c));
        }
        let (origin, rest) = split_origin(template)?;
        parse::body(origin, rest)
    }

    /// A template for CONNECT-UDP: `target_host` and `target_port` must be in it.
    pub fn udp(template: &str) -> Result<Self, TemplateError> {
        let parsed = Self::parse(template)?;
        for name in ["target_host", "target_port"] {
            if !parsed.variables().any(|v| v == name) {
                return Err(TemplateError::Missing(name));
            }
        }
        Ok(parsed)
    }

    /// A template for CONNECT-IP, whose variables are optional.
    pub fn ip(template: &str) -> Result<Self, TemplateError> {
        Self::parse(template)
    }

    /// Scheme and authority, as in `https://example.org`; empty for a path alone.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The names of all variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let path = self.segments.iter().flatten();
        let query = self.query.iter().flatten().filter_map(|p| p.value.as_ref());
        path.chain(query).filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// Path and query with the variables set; unknown ones are ignored, missing ones are empty.
    /// The wildcard `*` alone stays as it is, as RFC 9484 writes it.
    pub fn expand(&self, vars: &[(&str, &str)]) -> String {
        let value = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let piece = |piece: &Piece, out: &mut String| match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Variable(name) => match value(name).unwrap_or_default() {
                "*" => out.push('*'),
                v => out.extend(utf8_percent_encode(v, RESERVED)),
            },
        };
        let mut out = String::new();
        for (i, segment) in self.segments.iter().enumerate() {
            if i > 0 {
                out.push('/');
            }
            segment.iter().for_each(|p| piece(p, &mut out));
        }
        let mut separator = '?';
        for pair in self.query.iter().flatten() {
            if let (true, Some(Piece::Variable(name))) = (pair.optional, &pair.value)
                && value(name).is_none()
            {
                continue;
            }
            out.push(std::mem::replace(&mut separator, '&'));
            out.push_str(&pair.key);
            if let Some(v) = &pair.value {
                out.push('=');
                piece(v, &mut out);
            }
        }
        out
    }

    /// The variables of `path` (with its query), if it is an expansion of this template. Query
    /// parameters the template does not name are ignored; a named one that comes twice is no match.
    pub fn match_path<'t, 'p>(&'t self, path: &'p str) -> Option<Vars<'t, 'p>> {
        if path.len() > MAX_LEN {
            return None;
        }
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let mut vars = Vars::default();
        let mut given = path.split('/');
        for segment in &self.segments {
            match_segment(segment, given.next()?, &mut vars.0)?;
        }
        if given.next().is_some() {
            return None;
        }
        for pair in self.query.iter().flatten() {
            match_pair(pair, query, &mut vars.0)?;
        }
        Some(vars)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(s: &str) -> Result<Self, TemplateError> {
        Self::parse(s)
    }
}

fn split_origin(template: &str) -> Result<(&str, &str), TemplateError> {
    if template.starts_with('/') {
        return Ok(("", template));
    }
    let (scheme, rest) = template.split_once("://").ok_or(TemplateError::Form)?;
    let authority = rest.find(['/', '?', '{']).map_or(rest, |at| &rest[..at]);
    if scheme.contains(['{', '}']) {
        return Err(TemplateError::VariablePlace);
    }
    if !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        || scheme.is_empty()
        || authority.is_empty()
        || authority.contains(['@', '#'])
    {
        return Err(TemplateError::Form);
    }
    let origin = &template[..scheme.len() + 3 + authority.len()];
    let rest = &template[origin.len()..];
    match rest.as_bytes().first() {
        Some(b'/') => Ok((origin, rest)),
        Some(b'{') => Err(TemplateError::VariablePlace),
        _ => Err(TemplateError::Form),
    }
}

fn match_segment<'t, 'p>(
    pieces: &'t [Piece],
    mut given: &'p str,
    vars: &mut Vec<(&'t str, &'p str)>,
) -> Option<()> {
    let mut pieces = pieces;
    if let [Piece::Literal(prefix), rest @ ..] = pieces {
        given = given.strip_prefix(prefix.as_str())?;
        pieces = rest;
    }
    if let [rest @ .., Piece::Literal(suffix)] = pieces {
        given = given.strip_suffix(suffix.as_str())?;
        pieces = rest;
    }
    while let [Piece::Variable(name), rest @ ..] = pieces {
        let value = match rest {
            [Piece::Literal(separator), after @ ..] => {
                let (value, left) = given.split_once(separator.as_str())?;
                (given, pieces) = (left, after);
                value
            }
            _ => {
                pieces = rest;
                std::mem::take(&mut given)
            }
        };
        vars.push((name, value));
    }
    given.is_empty().then_some(())
}

fn match_pair<'t, 'p>(
    pair: &'t Pair,
    query: Option<&'p str>,
    vars: &mut Vec<(&'t str, &'p str)>,
) -> Option<()> {
    let split = |part: &'p str| match part.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (part, None),
    };
    let mut found =
        query.into_iter().flat_map(|q| q.split('&')).map(split).filter(|(key, _)| *key == pair.key);
    let first = found.next();
    if found.next().is_some() {
        return None;
    }
    match (&pair.value, first) {
        (_, None) => pair.optional.then_some(()),
        (Some(Piece::Variable(name)), Some((_, Some(value)))) => {
            vars.push((name, value));
            Some(())
        }
        (Some(Piece::Literal(wanted)), Some((_, Some(value)))) => (wanted == value).then_some(()),
        (None, Some((_, None))) => Some(()),
        _ => None,
    }
}

mod parse;
#[cfg(test)]
mod tests;
