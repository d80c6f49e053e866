//! The DNS_ASSIGN capsule (draft-ietf-masque-connect-ip-dns-05): which resolvers the peer should
//! use inside the tunnel. The capsule type is the draft's provisional one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::varint;

/// The capsule type.
pub const DNS_ASSIGN: u64 = 0x1ace_79ec;

/// The longest value that is accepted, in bytes.
pub const MAX_CAPSULE: usize = 16 * 1024;

/// The most entries of any one list in the capsule.
pub const MAX_ENTRIES: usize = 64;

/// The longest domain name in presentation format, in bytes (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 254;

/// Resolvers and what they are responsible for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    /// The resolvers, in no order; see [`Nameserver::priority`].
    pub nameservers: Vec<Nameserver>,
    /// Domains (with all below them) these resolvers answer for; `""` is everything.
    pub internal_domains: Vec<String>,
    /// Suffixes to try for short names.
    pub search_domains: Vec<String>,
}

/// One recursive resolver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nameserver {
    /// Lower is tried first; never 0.
    pub priority: u16,
    /// Where it answers over IPv4.
    pub v4: Vec<Ipv4Addr>,
    /// Where it answers over IPv6.
    pub v6: Vec<Ipv6Addr>,
    /// Its name for encrypted DNS; empty if it speaks only plain DNS on port 53.
    pub name: String,
    /// SvcParams in the wire format of RFC 9460 §2.2, unread.
    pub params: Vec<u8>,
}

impl DnsConfig {
    /// Plain resolvers for every name: what a full tunnel assigns.
    pub fn plain(addresses: &[IpAddr]) -> Self {
        let mut server = Nameserver { priority: 1, ..Nameserver::default() };
        for address in addresses {
            match address {
                IpAddr::V4(a) => server.v4.push(*a),
                IpAddr::V6(a) => server.v6.push(*a),
            }
        }
        Self {
            nameservers: vec![server],
            internal_domains: vec![String::new()],
            search_domains: Vec::new(),
        }
    }

    /// The addresses of all resolvers, best priority first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut servers: Vec<&Nameserver> = self.nameservers.iter().collect();
        servers.sort_by_key(|s| s.priority);
        let of = |s: &Nameserver| {
            let v4 = s.v4.iter().copied().map(IpAddr::V4).collect::<Vec<_>>();
            v4.into_iter().chain(s.v6.clone().into_iter().map(IpAddr::V6)).collect::<Vec<_>>()
        };
        servers.into_iter().flat_map(of).collect()
    }
}

/// Why a DNS_ASSIGN is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The value ends inside a field.
    #[error("a field is cut short")]
    Truncated,
    /// A list has more than [`MAX_ENTRIES`] entries.
    #[error("a list has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// A priority of 0, which would make it an alias.
    #[error("a nameserver has priority 0")]
    Priority,
    /// A name that is too long or holds more than letters, digits, `-`, `_` and dots.
    #[error("a domain name is no host name of at most {MAX_NAME} bytes")]
    Name,
    /// A nameserver without any address or name, or with parameters but no name.
    #[error("a nameserver can be reached by neither address nor name")]
    Unreachable,
}

/// Parses the value of a DNS_ASSIGN capsule; it supersedes all earlier ones.
pub fn parse(value: &[u8]) -> Result<Vec<DnsConfig>, DnsError> {
    let mut reader = Reader(value);
    let mut list = Vec::new();
    while !reader.0.is_empty() {
        if list.len() == MAX_ENTRIES {
            return Err(DnsError::TooMany);
        }
        list.push(DnsConfig {
            nameservers: reader.list(Reader::nameserver)?,
            internal_domains: reader.list(Reader::name)?,
            search_domains: reader.list(Reader::name)?,
        });
    }
    Ok(list)
}

/// Appends the value of a DNS_ASSIGN capsule.
pub fn encode(list: &[DnsConfig], out: &mut Vec<u8>) {
    for config in list {
        varint::encode(config.nameservers.len() as u64, out);
        for server in &config.nameservers {
            out.extend(server.priority.to_be_bytes());
            varint::encode(server.v4.len() as u64, out);
            server.v4.iter().for_each(|a| out.extend(a.octets()));
            varint::encode(server.v6.len() as u64, out);
            server.v6.iter().for_each(|a| out.extend(a.octets()));
            write_bytes(server.name.as_bytes(), out);
            write_bytes(&server.params, out);
        }
        for names in [&config.internal_domains, &config.search_domains] {
            varint::encode(names.len() as u64, out);
            names.iter().for_each(|name| write_bytes(name.as_bytes(), out));
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::encode(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, DnsError> {
        let (v, n) = varint::decode(self.0).ok_or(DnsError::Truncated)?;
        self.0 = &self.0[n..];
        Ok(v)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DnsError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DnsError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DnsError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DnsError::Truncated)?;
        let (head, rest) = self.0.split_at_checked(len).ok_or(DnsError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn list<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, DnsError>,
    ) -> Result<Vec<T>, DnsError> {
        let count = self.varint()?;
        if count > MAX_ENTRIES as u64 {
            return Err(DnsError::TooMany);
        }
        (0..count).map(|_| each(self)).collect()
    }

    fn nameserver(&mut self) -> Result<Nameserver, DnsError> {
        let server = Nameserver {
            priority: u16::from_be_bytes(self.array()?),
            v4: self.list(|r| r.array::<4>().map(Ipv4Addr::from))?,
            v6: self.list(|r| r.array::<16>().map(Ipv6Addr::from))?,
            name: self.name()?,
            params: self.bytes()?.to_vec(),
        };
        if server.priority == 0 {
            return Err(DnsError::Priority);
        }
        let unnamed = server.name.is_empty();
        if unnamed && server.v4.is_empty() && server.v6.is_empty() {
            return Err(DnsError::Unreachable);
        }
        Ok(server)
    }

    fn name(&mut self) -> Result<String, DnsError> {
        let name = self.bytes()?;
        let fits = name.len() <= MAX_NAME
            && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        match std::str::from_utf8(name) {
            Ok(name) if fits => Ok(name.to_owned()),
            _ => Err(DnsError::Name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split_tunnel() -> DnsConfig {
        DnsConfig {
            nameservers: vec![Nameserver {
                priority: 1,
                v4: vec![Ipv4Addr::new(192, 0, 2, 33)],
                v6: vec!["2001:db8::1".parse().unwrap()],
                name: String::new(),
                params: vec![],
            }],
            internal_domains: vec!["internal.corp.example".into()],
            search_domains: vec!["internal.corp.example".into(), "corp.example".into()],
        }
    }

    #[test]
    fn the_split_tunnel_example_of_the_draft_reads_back() {
        let list = vec![split_tunnel(), DnsConfig::plain(&["192.0.2.53".parse().unwrap()])];
        let mut value = Vec::new();
        encode(&list, &mut value);
        assert_eq!(value[..8], [1, 0, 1, 1, 192, 0, 2, 33]);
        assert_eq!(parse(&value), Ok(list));
        assert_eq!(parse(&[]), Ok(vec![]));
    }

    #[test]
    fn a_malformed_configuration_is_refused() {
        let bytes = |change: fn(&mut DnsConfig)| {
            let mut config = split_tunnel();
            change(&mut config);
            let mut value = Vec::new();
            encode(&[config], &mut value);
            parse(&value).unwrap_err()
        };
        assert_eq!(bytes(|c| c.nameservers[0].priority = 0), DnsError::Priority);
        assert_eq!(bytes(|c| c.search_domains[0] = "a b".into()), DnsError::Name);
        assert_eq!(bytes(|c| c.search_domains[0] = "a".repeat(255)), DnsError::Name);
        assert_eq!(bytes(|c| c.search_domains = vec![String::new(); 65]), DnsError::TooMany);
        assert_eq!(
            bytes(|c| c.nameservers[0] = Nameserver { priority: 1, ..Default::default() }),
            DnsError::Unreachable
        );
    }

    #[test]
    fn resolvers_come_out_best_priority_first() {
        let mut config = split_tunnel();
        config.nameservers[0].priority = 7;
        config.nameservers.push(Nameserver {
            priority: 2,
            v4: vec![Ipv4Addr::LOCALHOST],
            ..Default::default()
        });
        let shown: Vec<_> = config.addresses().iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["127.0.0.1", "192.0.2.33", "2001:db8::1"]);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_what_parses_is_stable(value: Vec<u8>) {
            if let Ok(list) = parse(&value) {
                let mut again = Vec::new();
                encode(&list, &mut again);
                prop_assert_eq!(parse(&again), Ok(list));
            }
        }
    }
}
