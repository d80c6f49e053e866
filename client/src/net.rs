//! Networks as they stand in configuration and state files.

use std::{fmt, net::IpAddr, str::FromStr};

use bauta_masque::address::Prefix;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A network such as `10.0.0.0/8` or `2000::/3`; the host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net(pub Prefix);

impl Net {
    /// Every IPv4 address.
    pub const ALL_V4: Net =
        Net(Prefix { addr: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 });
    /// Every IPv6 address.
    pub const ALL_V6: Net =
        Net(Prefix { addr: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), len: 0 });

    /// The first address.
    pub fn addr(&self) -> IpAddr {
        self.0.addr
    }

    /// The prefix length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.0.len
    }

    /// Whether the network is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.0.addr.is_ipv4()
    }

    /// Whether `addr` lies within.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(addr)
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(s: &str) -> Result<Net, String> {
        s.parse().map(Net).map_err(|e| format!("`{s}`: {e}"))
    }
}

impl Serialize for Net {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Net, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_network_is_quoted_in_the_error() {
        assert!("10.1.0.0/8".parse::<Net>().unwrap_err().contains("`10.1.0.0/8`"));
        assert_eq!("10.0.0.1".parse::<Net>().unwrap().to_string(), "10.0.0.1/32");
    }
}
