//! Looking an address and protocol up in an advertised list, once a packet.

use std::net::IpAddr;

use super::IpRange;

/// ICMP, which every route carries.
const ICMP: u8 = 1;
/// ICMP for IPv6.
const ICMPV6: u8 = 58;

/// Ranges of one protocol, sorted and disjoint.
#[derive(Debug, Clone)]
struct Group<T> {
    protocol: u8,
    ranges: Vec<(T, T)>,
}

/// A validated list of ranges, ready to be looked up without allocation: a scan over the
/// protocols named (commonly one) and a binary search in each.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    v4: Vec<Group<u32>>,
    v6: Vec<Group<u128>>,
}

impl RouteTable {
    /// The table of a list that [`validate`](super::validate) accepts.
    pub fn new(list: &[IpRange]) -> Self {
        let mut table = Self::default();
        for range in list {
            match (range.start, range.end) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    insert(&mut table.v4, range.protocol, (a.into(), b.into()));
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    insert(&mut table.v6, range.protocol, (a.into(), b.into()));
                }
                _ => {}
            }
        }
        trim(&mut table.v4);
        trim(&mut table.v6);
        table
    }

    /// Whether a packet of this upper-layer protocol may go to `addr`. ICMP always may, if any
    /// range holds the address (RFC 9484 §4.7.3).
    #[inline]
    pub fn allows(&self, addr: IpAddr, protocol: u8) -> bool {
        match addr {
            IpAddr::V4(a) => lookup(&self.v4, a.into(), protocol, protocol == ICMP),
            IpAddr::V6(a) => lookup(&self.v6, a.into(), protocol, protocol == ICMPV6),
        }
    }

    /// Whether nothing is routed.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn insert<T>(groups: &mut Vec<Group<T>>, protocol: u8, range: (T, T)) {
    match groups.last_mut() {
        Some(group) if group.protocol == protocol => group.ranges.push(range),
        _ => groups.push(Group { protocol, ranges: vec![range] }),
    }
}

fn trim<T>(groups: &mut Vec<Group<T>>) {
    groups.iter_mut().for_each(|group| group.ranges.shrink_to_fit());
    groups.shrink_to_fit();
}

#[inline]
fn lookup<T: Ord + Copy>(groups: &[Group<T>], addr: T, protocol: u8, icmp: bool) -> bool {
    groups.iter().any(|group| {
        (group.protocol == 0 || group.protocol == protocol || icmp) && holds(&group.ranges, addr)
    })
}

#[inline]
fn holds<T: Ord + Copy>(ranges: &[(T, T)], addr: T) -> bool {
    if let [(start, end)] = ranges {
        return *start <= addr && addr <= *end;
    }
    let at = ranges.partition_point(|(_, end)| *end < addr);
    ranges.get(at).is_some_and(|(start, _)| *start <= addr)
}
