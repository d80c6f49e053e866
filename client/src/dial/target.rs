//! What a flow goes to.

use std::{fmt, net::IpAddr};

use thiserror::Error;

/// A host and a port, both valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Box<str>,
    port: u16,
}

/// Why something is not a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Neither a name nor an address.
    #[error("the host is neither a name nor an address")]
    Host,
    /// Not from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl Target {
    /// The longest host name, in bytes (RFC 1035 §2.3.4).
    pub const MAX_HOST: usize = 253;

    /// A target; the host is a DNS name or an address without brackets.
    pub fn new(host: &str, port: u16) -> Result<Target, TargetError> {
        let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let is_name = !host.is_empty() && host.len() <= Self::MAX_HOST && host.bytes().all(name);
        if !is_name && host.parse::<IpAddr>().is_err() {
            return Err(TargetError::Host);
        }
        if port == 0 { Err(TargetError::Port) } else { Ok(Target { host: host.into(), port }) }
    }

    /// Parses `host:port` or `[v6]:port`; without a port `default` is taken, if there is one.
    pub fn parse(text: &str, default: Option<u16>) -> Result<Target, TargetError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest
                .split_once(']')
                .map(|(h, p)| (h, p.strip_prefix(':')))
                .ok_or(TargetError::Host)?,
            None => text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p))),
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| TargetError::Port)?,
            None => default.ok_or(TargetError::Port)?,
        };
        Target::new(host, port)
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_print_as_they_are_written() {
        for text in ["example.org:443", "192.0.2.1:53", "[2001:db8::1]:22"] {
            assert_eq!(Target::parse(text, None).unwrap().to_string(), text);
        }
        assert_eq!(Target::parse("example.org", Some(80)).unwrap().port(), 80);
    }

    #[test]
    fn what_is_no_target_is_refused() {
        assert_eq!(Target::parse("h", None), Err(TargetError::Port));
        assert_eq!(Target::parse("h:0", None), Err(TargetError::Port));
        assert_eq!(Target::parse("h:65536", None), Err(TargetError::Port));
        assert_eq!(Target::parse(":1", None), Err(TargetError::Host));
        assert_eq!(Target::parse("a b:1", None), Err(TargetError::Host));
        assert_eq!(Target::parse("[2001:db8::1:1", None), Err(TargetError::Host));
        assert_eq!(Target::new(&"a".repeat(254), 1), Err(TargetError::Host));
    }
}
