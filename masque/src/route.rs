//! The value of ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3) and a table to look destinations up in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{self, AddressError, Prefix};

mod table;
pub use table::RouteTable;

/// The most ranges one advertisement may hold: enough for a country's worth of split routes.
pub const MAX_ROUTES: usize = 4_096;

/// The longest value of the capsule, in bytes.
pub const MAX_CAPSULE: usize = MAX_ROUTES * (1 + 16 + 16 + 1);

/// Addresses from `start` to `end`, both included, for one IP protocol or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    /// The first address.
    pub start: IpAddr,
    /// The last address, of the same IP version.
    pub end: IpAddr,
    /// The Internet Protocol Number, 0 for all. ICMP is always allowed.
    pub protocol: u8,
}

/// Why a list of ranges cannot be a ROUTE_ADVERTISEMENT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// An entry is cut short or of an unknown IP version.
    #[error("a range is malformed: {0}")]
    Address(#[from] AddressError),
    /// An entry ends before it starts, or mixes IP versions.
    #[error("range {0} does not run from a lower to a higher address of one IP version")]
    Backwards(usize),
    /// Entries are not ordered by IP version, then protocol, then address without overlap.
    #[error("range {0} is out of order or overlaps the one before it")]
    Order(usize),
    /// A range for all protocols overlaps one for a single protocol.
    #[error("range {0} overlaps a range for all protocols")]
    ProtocolOverlap(usize),
    /// More entries than [`MAX_ROUTES`].
    #[error("more than {MAX_ROUTES} ranges")]
    TooMany,
}

impl IpRange {
    /// All of IPv4.
    pub const ALL_V4: Self = Self {
        start: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        end: IpAddr::V4(Ipv4Addr::BROADCAST),
        protocol: 0,
    };

    /// All of IPv6.
    pub const ALL_V6: Self = Self {
        start: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        end: IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        protocol: 0,
    };

    /// The addresses of a prefix.
    pub fn from_prefix(prefix: Prefix, protocol: u8) -> Self {
        Self { start: prefix.addr, end: prefix.last(), protocol }
    }

    /// What it shares with `prefix`, narrowed to `protocol` if that is given; `None` if nothing.
    pub fn within(&self, prefix: Option<Prefix>, protocol: Option<u8>) -> Option<Self> {
        let protocol = match (self.protocol, protocol) {
            (0, Some(p)) => p,
            (own, Some(p)) if own != p => return None,
            (own, _) => own,
        };
        let Some(prefix) = prefix else { return Some(Self { protocol, ..*self }) };
        if self.start.is_ipv4() != prefix.addr.is_ipv4() {
            return None;
        }
        let (start, end) = (self.start.max(prefix.addr), self.end.min(prefix.last()));
        (start <= end).then_some(Self { start, end, protocol })
    }

    /// The fewest prefixes that cover the range exactly, in order: what a routing table takes.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let (mut at, end, width) = match (self.start, self.end) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u32::from(b).into(), 32u8),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
            _ => return Vec::new(),
        };
        let mut out = Vec::new();
        while at <= end {
            let room = end - at;
            let aligned = at.trailing_zeros().min(u32::from(width));
            // The largest block that begins at `at` and does not pass `end`.
            let fits = if room == u128::MAX { 128 } else { (room + 1).ilog2() };
            let bits = aligned.min(fits);
            let addr = match width {
                32 => IpAddr::V4((at as u32).into()),
                _ => IpAddr::V6(at.into()),
            };
            out.push(Prefix { addr, len: width - bits as u8 });
            let Some(next) = 1u128.checked_shl(bits).and_then(|block| at.checked_add(block)) else {
                break;
            };
            at = next;
        }
        out
    }

    fn key(&self) -> (u8, u8, IpAddr) {
        (address::version(self.start), self.protocol, self.start)
    }
}

/// Parses and validates the value of a ROUTE_ADVERTISEMENT capsule. It may be empty.
pub fn parse(mut value: &[u8]) -> Result<Vec<IpRange>, RouteError> {
    let mut list = Vec::new();
    while !value.is_empty() {
        if list.len() == MAX_ROUTES {
            return Err(RouteError::TooMany);
        }
        let (&version, rest) = value.split_first().ok_or(AddressError::Truncated)?;
        let (start, rest) = address::read_address(version, rest)?;
        let (end, rest) = address::read_address(version, rest)?;
        let (&protocol, rest) = rest.split_first().ok_or(AddressError::Truncated)?;
        list.push(IpRange { start, end, protocol });
        value = rest;
    }
    validate(&list)?;
    Ok(list)
}

/// Appends the value of a ROUTE_ADVERTISEMENT capsule.
pub fn encode(list: &[IpRange], out: &mut Vec<u8>) {
    for range in list {
        out.push(address::version(range.start));
        address::write_address(range.start, out);
        address::write_address(range.end, out);
        out.push(range.protocol);
    }
}

/// Checks what RFC 9484 §4.7.3 asks of a list: order, no overlap of one protocol's ranges, and no
/// overlap of a range for all protocols with one for a single protocol.
pub fn validate(list: &[IpRange]) -> Result<(), RouteError> {
    if list.len() > MAX_ROUTES {
        return Err(RouteError::TooMany);
    }
    for (i, range) in list.iter().enumerate() {
        if range.start.is_ipv4() != range.end.is_ipv4() || range.start > range.end {
            return Err(RouteError::Backwards(i));
        }
        let Some(before) = i.checked_sub(1).map(|i| &list[i]) else { continue };
        let (a, b) = (before.key(), range.key());
        let same = (a.0, a.1) == (b.0, b.1);
        if (a.0, a.1) > (b.0, b.1) || same && before.end >= range.start {
            return Err(RouteError::Order(i));
        }
    }
    for (i, range) in list.iter().enumerate().filter(|(_, r)| r.protocol != 0) {
        let v4 = range.start.is_ipv4();
        let all = list.iter().position(|r| r.start.is_ipv4() == v4).unwrap_or(i);
        let all = &list[all..i];
        let all = &all[..all.partition_point(|r| r.protocol == 0)];
        let next = all.partition_point(|r| r.end < range.start);
        if all.get(next).is_some_and(|r| r.start <= range.end) {
            return Err(RouteError::ProtocolOverlap(i));
        }
    }
    Ok(())
}

/// Sorts the list as the wire wants it and joins what overlaps or touches within one protocol.
/// A range for one protocol inside one for all protocols is still for the caller to mend.
pub fn normalise(list: &[IpRange]) -> Vec<IpRange> {
    let mut sorted = list.to_vec();
    sorted.sort_by_key(IpRange::key);
    let mut out: Vec<IpRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut() {
            Some(last)
                if last.protocol == range.protocol
                    && last.start.is_ipv4() == range.start.is_ipv4()
                    && successor(last.end).is_none_or(|next| range.start <= next) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => out.push(range),
        }
    }
    out
}

fn successor(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|a| IpAddr::V4(a.into())),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|a| IpAddr::V6(a.into())),
    }
}

#[cfg(test)]
mod tests;
