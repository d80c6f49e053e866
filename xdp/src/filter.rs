//! Which datagrams are ours.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The most addresses and ports one program may look for: each costs a few instructions a packet.
pub const MAX_LISTENERS: usize = 64;

/// The addresses and ports whose UDP datagrams go to the rings.
///
/// Name real addresses on a machine that forwards: with an unspecified one, datagrams *through*
/// the machine to that port are taken too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    rules: Vec<Rule>,
}

/// One destination; `None` for any address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    V4(Option<[u8; 4]>, u16),
    V6(Option<[u8; 16]>, u16),
}

/// Why a filter cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Nothing to listen for.
    #[error("no address to receive on")]
    Empty,
    /// More addresses than [`MAX_LISTENERS`].
    #[error("{0} addresses to receive on; at most {MAX_LISTENERS}")]
    TooMany(usize),
    /// Port 0 names no port.
    #[error("{0}: port 0 names no port; use the one the socket was given")]
    PortZero(SocketAddr),
}

impl Filter {
    /// The filter for sockets bound to these addresses. `0.0.0.0` stands for any IPv4 address,
    /// `[::]` for any address of both families, as on a socket that serves both.
    pub fn listening(on: &[SocketAddr]) -> Result<Self, FilterError> {
        match on.len() {
            0 => return Err(FilterError::Empty),
            n if n > MAX_LISTENERS => return Err(FilterError::TooMany(n)),
            _ => {}
        }
        if let Some(&zero) = on.iter().find(|address| address.port() == 0) {
            return Err(FilterError::PortZero(zero));
        }
        let mut rules = Vec::with_capacity(on.len());
        for address in on {
            let port = address.port();
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    rules.push(Rule::V4((!ip.is_unspecified()).then_some(ip.octets()), port));
                }
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                    rules.extend([Rule::V4(None, port), Rule::V6(None, port)]);
                }
                IpAddr::V6(ip) => rules.push(Rule::V6(Some(ip.octets()), port)),
            }
        }
        Ok(Self { rules })
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(on: &[&str]) -> Result<Vec<Rule>, FilterError> {
        let on: Vec<_> = on.iter().map(|a| a.parse().unwrap()).collect();
        Filter::listening(&on).map(|filter| filter.rules)
    }

    #[test]
    fn an_unspecified_ipv6_address_stands_for_both_families() {
        assert_eq!(rules(&["[::]:443"]).unwrap(), [Rule::V4(None, 443), Rule::V6(None, 443)]);
        assert_eq!(rules(&["0.0.0.0:443"]).unwrap(), [Rule::V4(None, 443)]);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_inside() {
        assert_eq!(rules(&["[::ffff:192.0.2.1]:1"]), rules(&["192.0.2.1:1"]));
    }

    #[test]
    fn a_filter_for_nothing_too_much_or_port_zero_is_refused() {
        assert_eq!(rules(&[]), Err(FilterError::Empty));
        assert_eq!(rules(&["192.0.2.1:1"; MAX_LISTENERS + 1]), Err(FilterError::TooMany(65)));
        assert!(matches!(rules(&["192.0.2.1:0"]), Err(FilterError::PortZero(_))));
    }
}
