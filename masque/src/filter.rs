//! Where a tunnel may go: one policy for TCP, UDP and IP tunnels (RFC 9298 §7, RFC 9484 §11).
//!
//! Without configuration only globally reachable unicast addresses pass. What is special is
//! refused unless it is allowed by name, so that a tunnel is no door into the gateway's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Prefix;

/// The rules. A destination is judged in this order: `deny`, `own`, metadata services, what can
/// never be a destination, `allow`, `pools`, then the special-purpose ranges.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Refused always.
    pub deny: Vec<Prefix>,
    /// Permitted although private or otherwise special. The gateway's own addresses and metadata
    /// services are only lifted by an entry for exactly that address.
    pub allow: Vec<Prefix>,
    /// The gateway's own addresses.
    pub own: Vec<IpAddr>,
    /// What tunnel addresses are taken from.
    pub pools: Vec<Prefix>,
    /// Whether addresses of `pools` may be reached, that is, other clients.
    pub client_to_client: bool,
}

/// Why a destination is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Prohibited {
    /// By an entry of `deny`.
    #[error("denied by configuration")]
    Denied,
    /// One of the gateway's own addresses.
    #[error("an address of the gateway itself")]
    Own,
    /// Another client, and clients may not reach each other.
    #[error("another client")]
    Client,
    /// 127.0.0.0/8 or ::1.
    #[error("a loopback address")]
    Loopback,
    /// 169.254.0.0/16 or fe80::/10.
    #[error("a link-local address")]
    LinkLocal,
    /// A multicast group.
    #[error("a multicast address")]
    Multicast,
    /// The limited broadcast address.
    #[error("the broadcast address")]
    Broadcast,
    /// A cloud provider's instance metadata service.
    #[error("a metadata service")]
    Metadata,
    /// RFC 1918, unique local and other private space.
    #[error("a private address")]
    Private,
    /// RFC 6598 carrier-grade NAT space.
    #[error("a shared carrier address")]
    CarrierNat,
    /// 0.0.0.0/8 or ::.
    #[error("an unspecified address")]
    Unspecified,
    /// Documentation, benchmarking, future use: nobody's address.
    #[error("a reserved address")]
    Reserved,
}

const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

impl Policy {
    /// Whether a tunnel may send to `addr`. An IPv4 address inside an IPv6 one (mapped, NAT64,
    /// 6to4) is judged as the IPv4 address too.
    #[inline]
    pub fn check(&self, addr: IpAddr) -> Result<(), Prohibited> {
        if let IpAddr::V6(v6) = addr {
            match embedded_v4(v6) {
                Embedded::None => {}
                Embedded::Same(v4) => return self.check_one(IpAddr::V4(v4)),
                Embedded::Behind(v4) => self.check_one(IpAddr::V4(v4))?,
            }
        }
        self.check_one(addr)
    }

    #[inline]
    fn check_one(&self, addr: IpAddr) -> Result<(), Prohibited> {
        if within(&self.deny, addr) {
            return Err(Prohibited::Denied);
        }
        if self.own.contains(&addr) && !self.allows_exactly(addr) {
            return Err(Prohibited::Own);
        }
        let special = match addr {
            IpAddr::V4(a) => special_v4(a),
            IpAddr::V6(a) => special_v6(a),
        };
        if special.is_none() && self.pools.is_empty() {
            return Ok(());
        }
        self.check_special(addr, special)
    }

    fn check_special(&self, addr: IpAddr, special: Option<Prohibited>) -> Result<(), Prohibited> {
        match special {
            Some(p @ (Prohibited::Unspecified | Prohibited::Multicast | Prohibited::Broadcast)) => {
                return Err(p);
            }
            Some(Prohibited::Metadata) if !self.allows_exactly(addr) => {
                return Err(Prohibited::Metadata);
            }
            _ => {}
        }
        if within(&self.allow, addr) {
            return Ok(());
        }
        if within(&self.pools, addr) {
            return if self.client_to_client { Ok(()) } else { Err(Prohibited::Client) };
        }
        special.map_or(Ok(()), Err)
    }

    fn allows_exactly(&self, addr: IpAddr) -> bool {
        self.allow.iter().any(|p| p.is_host() && p.addr == addr)
    }
}

#[inline]
fn within(list: &[Prefix], addr: IpAddr) -> bool {
    list.iter().any(|p| p.contains(addr))
}

enum Embedded {
    None,
    /// The address is nothing but that IPv4 address.
    Same(Ipv4Addr),
    /// A translator or relay may send it on to that IPv4 address.
    Behind(Ipv4Addr),
}

#[inline]
fn embedded_v4(addr: Ipv6Addr) -> Embedded {
    let s = addr.segments();
    let v4 = |hi: u16, lo: u16| Ipv4Addr::from(u32::from(hi) << 16 | u32::from(lo));
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] => Embedded::Same(v4(hi, lo)),
        // Translated (RFC 2765) and the well-known NAT64 prefix (RFC 6052).
        [0, 0, 0, 0, 0xffff, 0, hi, lo] => Embedded::Same(v4(hi, lo)),
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Embedded::Behind(v4(hi, lo)),
        [0x2002, hi, lo, ..] => Embedded::Behind(v4(hi, lo)),
        _ => Embedded::None,
    }
}

#[inline]
const fn special_v4(a: Ipv4Addr) -> Option<Prohibited> {
    let o = a.octets();
    match o {
        [0, ..] => Some(Prohibited::Unspecified),
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Some(Prohibited::Private),
        [100, 64..=127, ..] => {
            // Alibaba's metadata service lives in shared address space.
            if let [_, 100, 100, 200] = o {
                Some(Prohibited::Metadata)
            } else {
                Some(Prohibited::CarrierNat)
            }
        }
        [127, ..] => Some(Prohibited::Loopback),
        [169, 254, ..] if a.to_bits() == METADATA_V4.to_bits() => Some(Prohibited::Metadata),
        [169, 254, ..] => Some(Prohibited::LinkLocal),
        [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Some(Prohibited::Reserved)
        }
        [224..=239, ..] => Some(Prohibited::Multicast),
        [255, 255, 255, 255] => Some(Prohibited::Broadcast),
        [240..=255, ..] => Some(Prohibited::Reserved),
        _ => None,
    }
}

#[inline]
const fn special_v6(a: Ipv6Addr) -> Option<Prohibited> {
    let s = a.segments();
    match s[0] {
        0 => match s {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some(Prohibited::Unspecified),
            [0, 0, 0, 0, 0, 0, 0, 1] => Some(Prohibited::Loopback),
            _ => Some(Prohibited::Reserved),
        },
        // The well-known NAT64 prefix is reachable; its neighbour is for local use (RFC 8215).
        0x64 if s[1] == 0xff9b && s[2] == 0 => None,
        0xfc00..=0xfdff if a.to_bits() == METADATA_V6.to_bits() => Some(Prohibited::Metadata),
        0xfc00..=0xfdff => Some(Prohibited::Private),
        0xfe80..=0xfebf => Some(Prohibited::LinkLocal),
        0xfec0..=0xfeff => Some(Prohibited::Private),
        0xff00.. => Some(Prohibited::Multicast),
        // Teredo hides an IPv4 address; documentation is nobody's.
        0x2001 if s[1] == 0 || s[1] == 0xdb8 => Some(Prohibited::Reserved),
        0x3fff if s[1] < 0x1000 => Some(Prohibited::Reserved),
        0x2000..=0x3fff => None,
        _ => Some(Prohibited::Reserved),
    }
}

/// Whether a packet from or to `addr` must stay on its link (RFC 9484 §7.1).
#[inline]
pub const fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            matches!(a.octets(), [169, 254, ..] | [224, 0, 0, _] | [255, 255, 255, 255])
        }
        IpAddr::V6(a) => {
            let first = a.segments()[0];
            // fe80::/10, and interface- or link-local multicast of any flags.
            first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 && matches!(first & 0xf, 1 | 2)
        }
    }
}

#[cfg(test)]
mod tests;
