//! One pass over a request's fields.

use super::Reason;

/// The HTTP version a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carriage {
    /// HTTP/3.
    H3,
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    H1,
}

/// What matters of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The HTTP version.
    pub carriage: Carriage,
    /// The method.
    pub method: &'a [u8],
    /// `:protocol`, or HTTP/1.1's single Upgrade token.
    pub protocol: Option<&'a [u8]>,
    /// `:scheme`.
    pub scheme: Option<&'a [u8]>,
    /// `:authority`, or HTTP/1.1's Host; for HTTP/1.1 CONNECT the request target.
    pub authority: Option<&'a [u8]>,
    /// Path and query.
    pub path: Option<&'a [u8]>,
    /// Whether Capsule-Protocol says true (RFC 9297 §3.4). Welcome, never required.
    pub capsule_protocol: bool,
    /// Whether Content-Length, Content-Type or Transfer-Encoding is there.
    pub content: bool,
    /// How many Host fields there are.
    pub hosts: usize,
    /// Whether Connection names Upgrade.
    pub connection_upgrade: bool,
    /// What makes the fields malformed by themselves.
    pub flaw: Option<Reason>,
}

impl<'a> Head<'a> {
    const fn empty(carriage: Carriage) -> Self {
        Self {
            carriage,
            method: b"",
            protocol: None,
            scheme: None,
            authority: None,
            path: None,
            capsule_protocol: false,
            content: false,
            hosts: 0,
            connection_upgrade: false,
            flaw: None,
        }
    }

    /// Reads the field section of an HTTP/2 or HTTP/3 request, pseudo-header fields first.
    pub fn from_fields(
        carriage: Carriage,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut head = Self::empty(carriage);
        let mut capsule = Combined::default();
        let mut method = None;
        let mut regular = false;
        for (name, value) in fields {
            if name.first() != Some(&b':') {
                regular = true;
                head.field(name, value, &mut capsule);
                continue;
            }
            let slot = match name {
                b":method" => &mut method,
                b":protocol" => &mut head.protocol,
                b":scheme" => &mut head.scheme,
                b":authority" => &mut head.authority,
                b":path" => &mut head.path,
                _ => {
                    head.flaw = Some(Reason::PseudoHeader);
                    continue;
                }
            };
            if slot.replace(value).is_some() || regular {
                head.flaw = Some(Reason::PseudoHeader);
            }
        }
        match method {
            Some(method) if !method.is_empty() => head.method = method,
            _ => head.flaw = Some(Reason::PseudoHeader),
        }
        head.capsule_protocol = capsule.value();
        head
    }

    /// Reads an HTTP/1.1 request: method, request target as written, header fields.
    pub fn from_h1(
        method: &'a [u8],
        target: &'a [u8],
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Self {
        let mut head = Self::empty(Carriage::H1);
        let mut capsule = Combined::default();
        head.method = method;
        for (name, value) in fields {
            head.field(name, value, &mut capsule);
            if name.eq_ignore_ascii_case(b"host") {
                head.authority = Some(value);
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                head.protocol = Some(value.trim_ascii());
            } else if name.eq_ignore_ascii_case(b"connection") {
                head.connection_upgrade |= value
                    .split(|b| *b == b',')
                    .any(|t| t.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
            }
        }
        head.capsule_protocol = capsule.value();
        if method == b"CONNECT" {
            head.protocol = None;
            head.authority = Some(target);
        } else {
            head.path = Some(origin_form(target));
        }
        head
    }

    fn field(&mut self, name: &[u8], value: &'a [u8], capsule: &mut Combined<'a>) {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            4 if is(b"host") => self.hosts += 1,
            12 if is(b"content-type") => self.content = true,
            14 if is(b"content-length") => self.content = true,
            16 if is(b"capsule-protocol") => capsule.add(value),
            17 if is(b"transfer-encoding") => self.content = true,
            _ => {}
        }
    }
}

/// The path and query of an absolute-form target; others stay as they are.
fn origin_form(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let Some(at) = target.windows(3).position(|w| w == b"://") else { return target };
    let rest = &target[at + 3..];
    rest.iter().position(|b| *b == b'/').map_or(b"/", |at| &rest[at..])
}

/// A field that may come only once: twice is a list, which no Boolean is.
#[derive(Default)]
struct Combined<'a> {
    value: Option<&'a [u8]>,
    twice: bool,
}

impl<'a> Combined<'a> {
    fn add(&mut self, value: &'a [u8]) {
        self.twice |= self.value.replace(value).is_some();
    }

    fn value(&self) -> bool {
        !self.twice && self.value.and_then(capsule_protocol) == Some(true)
    }
}

/// Reads a Capsule-Protocol value: a Boolean Item (RFC 8941 §3.3.6). `None`, which is to be
/// ignored, for other types; parameters are allowed and mean nothing.
pub fn capsule_protocol(value: &[u8]) -> Option<bool> {
    let value = value.trim_ascii();
    let (boolean, parameters) = match value {
        [b'?', b'1', rest @ ..] => (true, rest),
        [b'?', b'0', rest @ ..] => (false, rest),
        _ => return None,
    };
    are_parameters(parameters).then_some(boolean)
}

/// `*( ";" *SP key [ "=" bare-item ] )`, bare items only roughly.
fn are_parameters(mut rest: &[u8]) -> bool {
    while let [b';', after @ ..] = rest {
        let after = &after[after.iter().take_while(|b| **b == b' ').count()..];
        let key = after.iter().take_while(|b| is_key(**b)).count();
        if key == 0 || !(after[0].is_ascii_lowercase() || after[0] == b'*') {
            return false;
        }
        rest = &after[key..];
        if let [b'=', value @ ..] = rest {
            let Some(len) = bare_item(value) else { return false };
            rest = &value[len..];
        }
    }
    rest.is_empty()
}

const fn is_key(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*')
}

/// How long the bare item at the front is.
fn bare_item(value: &[u8]) -> Option<usize> {
    match value {
        [b'"', string @ ..] => {
            let mut escaped = false;
            let end = string.iter().position(|b| {
                let end = *b == b'"' && !escaped;
                escaped = *b == b'\\' && !escaped;
                end
            })?;
            Some(end + 2)
        }
        [b':', bytes @ ..] => bytes.iter().position(|b| *b == b':').map(|end| end + 2),
        [b'?', b'0' | b'1', ..] => Some(2),
        _ => {
            let other = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(b);
            let len = value.iter().take_while(|b| other(b)).count();
            (len > 0).then_some(len)
        }
    }
}
