//! What a request asks for, whichever HTTP version carried it.
//!
//! [`Head`] is one pass over pseudo-headers and headers; [`classify`] turns it into an [`Ask`].
//! Neither decides whether the asker may: to a stranger every answer is the website's.

use std::fmt;
use std::net::IpAddr;
use std::str::{FromStr, from_utf8};

use crate::address::Prefix;
use crate::template::{DEFAULT_IP, DEFAULT_UDP, Template, TemplateError, Vars};

mod head;
mod response;
pub use head::{Carriage, Head, capsule_protocol};
pub use response::{Refused, opens_tunnel};

/// The upgrade token of RFC 9298.
pub const CONNECT_UDP: &str = "connect-udp";
/// The upgrade token of RFC 9484.
pub const CONNECT_IP: &str = "connect-ip";

/// The longest host name, in bytes (RFC 1035 §2.3.4), a trailing dot not counted.
pub const MAX_NAME: usize = 253;

/// Where tunnels are offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// For CONNECT-UDP.
    pub udp: Template,
    /// For CONNECT-IP.
    pub ip: Template,
}

impl Templates {
    /// The templates of a configuration; `None` is the default of the RFC.
    pub fn new(udp: Option<&str>, ip: Option<&str>) -> Result<Self, TemplateError> {
        Ok(Self {
            udp: Template::udp(udp.unwrap_or(DEFAULT_UDP))?,
            ip: Template::ip(ip.unwrap_or(DEFAULT_IP))?,
        })
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Something of the website. Extended CONNECT to a path that is no tunnel's is this too.
    Http,
    /// A TCP connection (RFC 9110 §9.3.6).
    ConnectTcp {
        /// The target.
        host: Host,
        /// Its port, never 0.
        port: u16,
    },
    /// A UDP flow (RFC 9298).
    ConnectUdp {
        /// The target.
        host: Host,
        /// Its port, never 0.
        port: u16,
    },
    /// An IP tunnel (RFC 9484).
    ConnectIp {
        /// What the tunnel is limited to.
        target: Target,
        /// The protocol it is limited to, if any.
        ipproto: Option<u8>,
    },
    /// A request that its RFC calls malformed: 400, or a stream error in HTTP/2 and 3.
    Malformed(Reason),
    /// Extended CONNECT with a `:protocol` nobody here speaks: 501.
    UnknownProtocol,
}

/// An address or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name in lower case.
    Name(String),
}

/// What a CONNECT-IP request is scoped to (RFC 9484 §4.6).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any host.
    Any,
    /// The addresses of a prefix.
    Prefix(Prefix),
    /// The addresses of a name, to be resolved before the reply.
    Name(String),
}

/// What is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// A pseudo-header is missing, empty, repeated, unknown or out of place.
    #[error("a pseudo-header field is missing, empty, repeated, unknown or out of place")]
    PseudoHeader,
    /// `:protocol` without CONNECT, or an upgrade request that is no GET.
    #[error("the method does not go with the protocol asked for")]
    Method,
    /// CONNECT without a host and port, or with more than that.
    #[error("the authority is not host:port")]
    Authority,
    /// HTTP/1.1 without exactly one Host.
    #[error("there is not exactly one Host field")]
    Host,
    /// HTTP/1.1 Upgrade without `Connection: Upgrade`.
    #[error("the Connection field does not name Upgrade")]
    Connection,
    /// An HTTP/1.1 response without exactly one Upgrade field, the one asked for.
    #[error("the Upgrade field does not name the protocol asked for")]
    Upgrade,
    /// Content-Length, Content-Type or Transfer-Encoding with the capsule protocol.
    #[error("a field about content on a request that has none")]
    Content,
    /// A variable is not percent-encoded UTF-8.
    #[error("a template variable is not percent-encoded UTF-8")]
    Encoding,
    /// `target_host` or `target` is empty or no host.
    #[error("the target is no host name or address")]
    Target,
    /// `target_port` is not 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// `ipproto` is not 0 to 255 or `*`.
    #[error("ipproto is neither a number from 0 to 255 nor *")]
    IpProto,
}

/// Decides what `head` asks for.
pub fn classify(head: &Head<'_>, templates: &Templates) -> Ask {
    match ask(head, templates) {
        Ok(ask) => ask,
        Err(reason) => Ask::Malformed(reason),
    }
}

fn ask(head: &Head<'_>, templates: &Templates) -> Result<Ask, Reason> {
    if let Some(flaw) = head.flaw {
        return Err(flaw);
    }
    let connect = head.method == b"CONNECT";
    let Some(protocol) = head.protocol else {
        return if connect { connect_tcp(head) } else { Ok(Ask::Http) };
    };
    let known =
        [CONNECT_UDP, CONNECT_IP].into_iter().find(|k| k.as_bytes().eq_ignore_ascii_case(protocol));
    let path = match head.carriage {
        Carriage::H1 => {
            // Upgrades to other protocols are the website's business.
            let Some(_) = known else { return Ok(Ask::Http) };
            upgrade(head)?
        }
        Carriage::H2 | Carriage::H3 => {
            if !connect {
                return Err(Reason::Method);
            }
            let filled = |field: Option<&[u8]>| field.is_some_and(|f| !f.is_empty());
            if !filled(head.scheme) || !filled(head.authority) || !filled(head.path) {
                return Err(Reason::PseudoHeader);
            }
            head.path
        }
    };
    let path = path.and_then(|p| from_utf8(p).ok()).ok_or(Reason::PseudoHeader)?;
    let (template, read): (_, fn(&Vars<'_, '_>) -> _) = match known {
        Some(CONNECT_UDP) => (&templates.udp, connect_udp),
        Some(_) => (&templates.ip, connect_ip),
        None => return Ok(Ask::UnknownProtocol),
    };
    let Some(vars) = template.match_path(path) else { return Ok(Ask::Http) };
    if head.content {
        return Err(Reason::Content);
    }
    read(&vars)
}

/// HTTP/1.1's rules of an upgrade (RFC 9298 §3.2, RFC 9484 §4.2).
fn upgrade<'a>(head: &Head<'a>) -> Result<Option<&'a [u8]>, Reason> {
    match head {
        _ if head.method != b"GET" => Err(Reason::Method),
        _ if head.hosts != 1 => Err(Reason::Host),
        _ if !head.connection_upgrade => Err(Reason::Connection),
        _ => Ok(head.path),
    }
}

fn connect_tcp(head: &Head<'_>) -> Result<Ask, Reason> {
    if head.carriage != Carriage::H1 && (head.scheme.is_some() || head.path.is_some()) {
        return Err(Reason::PseudoHeader);
    }
    let authority = head.authority.and_then(|a| from_utf8(a).ok()).ok_or(Reason::Authority)?;
    let (host, port) = authority.rsplit_once(':').ok_or(Reason::Authority)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => Host::Ip(IpAddr::V6(v6.parse().map_err(|_| Reason::Authority)?)),
        None if host.contains(':') => return Err(Reason::Authority),
        None => host.parse().map_err(|_| Reason::Authority)?,
    };
    Ok(Ask::ConnectTcp { host, port: port_number(port)? })
}

fn connect_udp(vars: &Vars<'_, '_>) -> Result<Ask, Reason> {
    let get = |name| vars.get(name).map_err(|_| Reason::Encoding);
    let host = get("target_host")?.ok_or(Reason::Target)?.parse().map_err(|_| Reason::Target)?;
    let port = port_number(&get("target_port")?.ok_or(Reason::Port)?)?;
    Ok(Ask::ConnectUdp { host, port })
}

fn connect_ip(vars: &Vars<'_, '_>) -> Result<Ask, Reason> {
    let get = |name| vars.get(name).map_err(|_| Reason::Encoding);
    let target = match get("target")?.as_deref() {
        None => Target::Any,
        Some(target) => target.parse().map_err(|_| Reason::Target)?,
    };
    let ipproto = match get("ipproto")?.as_deref() {
        None | Some("*") => None,
        Some(n) if (1..=3).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()) => {
            Some(n.parse().map_err(|_| Reason::IpProto)?)
        }
        Some(_) => return Err(Reason::IpProto),
    };
    Ok(Ask::ConnectIp { target, ipproto })
}

fn port_number(text: &str) -> Result<u16, Reason> {
    if !(1..=5).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Reason::Port);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(Reason::Port)
}

impl FromStr for Host {
    type Err = Reason;

    /// Reads an address (IPv6 without brackets or zone) or a DNS name.
    fn from_str(s: &str) -> Result<Self, Reason> {
        if let Ok(ip) = s.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = s.strip_suffix('.').unwrap_or(s);
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A last label that is a number makes a mangled IPv4 address, which resolvers read variously.
        let name = name.to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
        if name.len() > MAX_NAME || numeric || !name.split('.').all(label) {
            return Err(Reason::Target);
        }
        Ok(Self::Name(name))
    }
}

impl FromStr for Target {
    type Err = Reason;

    /// Reads `*`, an address, a prefix or a DNS name.
    fn from_str(s: &str) -> Result<Self, Reason> {
        if s == "*" {
            return Ok(Self::Any);
        }
        if s.contains('/') {
            return s.parse().map(Self::Prefix).map_err(|_| Reason::Target);
        }
        Ok(match s.parse()? {
            Host::Ip(ip) => Self::Prefix(Prefix::host(ip)),
            Host::Name(name) => Self::Name(name),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(p) if p.is_host() => p.addr.fmt(f),
            Self::Prefix(p) => p.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
