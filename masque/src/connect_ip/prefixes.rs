//! A handful of prefixes, looked up once or twice a packet.

use std::net::IpAddr;

use crate::address::{Prefix, mask4, mask6};

/// Prefixes as network and mask, each IP version apart.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixSet {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    pub(super) fn insert(&mut self, prefix: Prefix) {
        match prefix.addr {
            IpAddr::V4(a) => self.v4.push((a.into(), mask4(prefix.len))),
            IpAddr::V6(a) => self.v6.push((a.into(), mask6(prefix.len))),
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.v4.extend_from_slice(&other.v4);
        self.v6.extend_from_slice(&other.v6);
    }

    #[inline]
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => {
                let a = u32::from(a);
                self.v4.iter().any(|(net, mask)| a & mask == *net)
            }
            IpAddr::V6(a) => {
                let a = u128::from(a);
                self.v6.iter().any(|(net, mask)| a & mask == *net)
            }
        }
    }

    pub(super) fn has_v6(&self) -> bool {
        !self.v6.is_empty()
    }

    /// The first IPv6 address, our own face for replies to the link.
    pub(super) fn first_v6(&self) -> Option<IpAddr> {
        self.v6.first().map(|(net, _)| IpAddr::V6((*net).into()))
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(prefixes: I) -> Self {
        let mut set = Self::default();
        prefixes.into_iter().for_each(|p| set.insert(p));
        set.v4.shrink_to_fit();
        set.v6.shrink_to_fit();
        set
    }
}
