//! `bauta://TOKEN@host:port?…`: all that a client needs, in one line. Without `TOKEN@` the client shows who it is by
//! its own key (RFC 9729).
//!
//! | parameter | meaning |
//! | --- | --- |
//! | `sni` | the name the certificate is for, when it is not the host |
//! | `ca` | a PEM file with the authorities to trust instead of the system's |
//! | `pin` | base64url of the SHA-256 of the certificate's public key (SPKI); replaces the authorities |
//! | `addr` | address of the gateway, so that no name is resolved; may be repeated |
//! | `dns` | name server to use inside the tunnel; may be repeated |
//! | `ip`, `udp` | URI templates of the gateway that are not the default ones |

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use crate::secret::Token;

/// The port of a link without one.
pub const DEFAULT_PORT: u16 = 443;
/// The longest link taken, in bytes.
pub const MAX_LINK: usize = 16 * 1024;

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

/// A host and a port, before any name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A DNS name or an IP address without brackets.
    pub host: String,
    /// The UDP (and TCP) port.
    pub port: u16,
}

/// A parsed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The credential; without one, the machine's key is.
    pub token: Option<Token>,
    /// Where the gateway is.
    pub server: Server,
    /// The name in the certificate, if not the host.
    pub sni: Option<String>,
    /// A PEM file of authorities.
    pub ca: Option<PathBuf>,
    /// The public key to insist on.
    pub pin: Option<Pin>,
    /// Addresses that replace name resolution.
    pub addr: Vec<IpAddr>,
    /// Name servers for the tunnel.
    pub dns: Vec<IpAddr>,
    /// The CONNECT-IP template.
    pub ip: Option<String>,
    /// The CONNECT-UDP template.
    pub udp: Option<String>,
}

/// What is wrong with a link. Never quotes the token.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the link is not right: {0}")]
pub struct LinkError(String);

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(s: &str) -> Result<Link, LinkError> {
        parse(s.trim()).map_err(LinkError)
    }
}

fn parse(s: &str) -> Result<Link, String> {
    if s.len() > MAX_LINK {
        return Err(format!("longer than {MAX_LINK} bytes"));
    }
    let rest = s.strip_prefix("bauta://").ok_or("it does not begin with bauta://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (token, server) = match rest.rsplit_once('@') {
        Some((token, server)) => (Some(Token::new(decode(token)?)?), server),
        None => (None, rest),
    };
    let mut link = Link {
        token,
        server: server.trim_end_matches('/').parse()?,
        sni: None,
        ca: None,
        pin: None,
        addr: Vec::new(),
        dns: Vec::new(),
        ip: None,
        udp: None,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` has no value"))?;
        let value = decode(value)?;
        match key {
            "sni" => link.sni = Some(value),
            "ca" => link.ca = Some(value.into()),
            "pin" => link.pin = Some(value.parse()?),
            "addr" => addresses(&mut link.addr, key, &value)?,
            "dns" => addresses(&mut link.dns, key, &value)?,
            "ip" => link.ip = Some(value),
            "udp" => link.udp = Some(value),
            // It could be one that makes the connection safer: refuse rather than ignore.
            _ => return Err(format!("unknown parameter `{key}`; is it made for a newer client?")),
        }
    }
    Ok(link)
}

fn decode(s: &str) -> Result<String, String> {
    let decoded = percent_decode_str(s).decode_utf8().map_err(|_| "it is not UTF-8")?;
    Ok(decoded.into_owned())
}

fn addresses(list: &mut Vec<IpAddr>, key: &str, value: &str) -> Result<(), String> {
    for one in value.split(',') {
        let one = one.trim_start_matches('[').trim_end_matches(']');
        list.push(one.parse().map_err(|_| format!("`{key}={one}` is not an IP address"))?);
    }
    Ok(())
}

impl FromStr for Server {
    type Err = String;

    fn from_str(s: &str) -> Result<Server, String> {
        let (host, port) = match s.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            // More than one colon without brackets is an address and no port.
            None if s.matches(':').count() == 1 => {
                s.split_once(':').map_or((s, None), |(h, p)| (h, Some(p)))
            }
            None => (s, None),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(p) => {
                p.parse().ok().filter(|&p| p != 0).ok_or_else(|| format!("`{p}` is not a port"))?
            }
        };
        let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
        if host.is_empty() || (host.parse::<IpAddr>().is_err() && !host.bytes().all(name)) {
            return Err(format!("`{host}` is not a host name or address"));
        }
        Ok(Server { host: host.into(), port })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(s: &str) -> Result<Pin, String> {
        URL_SAFE_NO_PAD
            .decode(s.trim_end_matches('='))
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Pin)
            .ok_or_else(|| "`pin` is not base64url of 32 bytes (SHA-256 of the public key)".into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// What stays readable in a query value.
const VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

impl Link {
    /// The link as text, with the token: a secret.
    pub fn expose(&self) -> String {
        let encode = |s: &str| utf8_percent_encode(s, VALUE).to_string();
        let token = self.token.iter().map(|token| encode(token.expose()) + "@");
        let mut out = format!("bauta://{}{}", token.collect::<String>(), self.server);
        let mut sep = '?';
        let mut add = |key: &str, value: String| {
            out.extend([sep]);
            out += &format!("{key}={}", encode(&value));
            sep = '&';
        };
        self.sni.iter().for_each(|v| add("sni", v.clone()));
        self.ca.iter().for_each(|v| add("ca", v.display().to_string()));
        self.pin.iter().for_each(|v| add("pin", v.to_string()));
        self.addr.iter().for_each(|v| add("addr", v.to_string()));
        self.dns.iter().for_each(|v| add("dns", v.to_string()));
        self.ip.iter().for_each(|v| add("ip", v.clone()));
        self.udp.iter().for_each(|v| add("udp", v.clone()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_link_is_a_token_and_a_host() {
        let link: Link = "bauta://s3cret@vpn.example".parse().unwrap();
        assert_eq!((link.server.host.as_str(), link.server.port), ("vpn.example", 443));
        assert_eq!(link.token.unwrap().expose(), "s3cret");
    }

    #[test]
    fn a_link_without_a_token_holds_no_secret() {
        let link: Link = "bauta://vpn.example:8443?dns=9.9.9.9".parse().unwrap();
        assert_eq!(link.token, None);
        assert_eq!(link.expose(), "bauta://vpn.example:8443?dns=9.9.9.9");
    }

    #[test]
    fn every_parameter_survives_a_round_trip() {
        let pin = Pin([7; 32]);
        let text = format!(
            "bauta://t%2Bo@[2001:db8::1]:8443?sni=site.test&ca=/etc/ca.pem&pin={pin}&addr=192.0.2.1\
             &addr=2001:db8::1&dns=9.9.9.9&udp=https://site.test/%7Btarget_host%7D"
        );
        let link: Link = text.parse().unwrap();
        assert_eq!(link.token.as_ref().unwrap().expose(), "t+o");
        assert_eq!(link.addr.len(), 2);
        assert_eq!(link.expose().parse::<Link>().unwrap(), link);
    }

    #[test]
    fn errors_say_what_is_wrong_and_keep_the_token() {
        let error = |s: &str| s.parse::<Link>().unwrap_err().to_string();
        assert!(error("https://t@h").contains("bauta://"));
        assert!(error("bauta://@vpn.example").contains("token"));
        assert!(error("bauta://hush@h:0").contains("port"));
        assert!(error("bauta://hush@h?color=red").contains("`color`"));
        assert!(error("bauta://hush@h?pin=abc").contains("pin"));
        assert!(error("bauta://hush@h?addr=nope").contains("addr=nope"));
        assert!(error("bauta://hush@ho st").contains("host"));
        for bad in ["bauta://hush@h:0", "bauta://hush@h?pin=abc", "bauta://hush hush@h"] {
            assert!(!error(bad).contains("hush"), "{bad}");
        }
    }

    #[test]
    fn addresses_without_brackets_have_no_port() {
        assert_eq!("2001:db8::1".parse::<Server>().unwrap().port, 443);
        assert_eq!("[2001:db8::1]:99".parse::<Server>().unwrap().to_string(), "[2001:db8::1]:99");
    }
}
