//! Prefixes, and the values of ADDRESS_ASSIGN and ADDRESS_REQUEST (RFC 9484 §4.7.1, §4.7.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::varint;

/// The most addresses one capsule may hold. Real peers assign a handful.
pub const MAX_ADDRESSES: usize = 64;

/// The longest value of either capsule, in bytes: [`MAX_ADDRESSES`] of the longest form.
pub const MAX_CAPSULE: usize = MAX_ADDRESSES * (varint::MAX_LEN + 1 + 16 + 1);

/// Addresses that share their first `len` bits. Build one with [`Prefix::new`] or by parsing
/// `192.0.2.0/24`; the bits behind `len` are zero then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The first address.
    pub addr: IpAddr,
    /// How many leading bits count: at most 32 or 128.
    pub len: u8,
}

/// Why something is not a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not an IP address.
    #[error("not an IP address; write it as 192.0.2.0/24 or 2001:db8::/32")]
    Address,
    /// The length is not a number, or longer than the address.
    #[error("the prefix length is not a number from 0 to {0}")]
    Length(u8),
    /// A bit behind the prefix length is set.
    #[error("bits behind the prefix length are set; the prefix begins at {0}")]
    HostBits(IpAddr),
}

impl Prefix {
    /// The prefix `addr/len`, if `len` fits and no bit behind it is set.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        if len > width(addr) {
            return Err(PrefixError::Length(width(addr)));
        }
        let first = Self::around(addr, len).addr;
        if first == addr { Ok(Self { addr, len }) } else { Err(PrefixError::HostBits(first)) }
    }

    /// The prefix of length `len` (cut to the address's width) that contains `addr`.
    pub fn around(addr: IpAddr, len: u8) -> Self {
        let len = len.min(width(addr));
        let addr = match addr {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) & mask4(len)).into()),
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) & mask6(len)).into()),
        };
        Self { addr, len }
    }

    /// The prefix that is `addr` alone.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: width(addr) }
    }

    /// Whether `addr` lies in the prefix. Another IP version never does.
    #[inline]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)) & mask4(self.len) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)) & mask6(self.len) == 0
            }
            _ => false,
        }
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }

    /// Whether it is one address.
    pub fn is_host(&self) -> bool {
        self.len == width(self.addr)
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        match self.addr {
            IpAddr::V4(a) => IpAddr::V4((u32::from(a) | !mask4(self.len)).into()),
            IpAddr::V6(a) => IpAddr::V6((u128::from(a) | !mask6(self.len)).into()),
        }
    }
}

const fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

#[inline]
pub(crate) const fn mask4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - if len > 32 { 32 } else { len }) }
}

#[inline]
pub(crate) const fn mask6(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - if len > 128 { 128 } else { len }) }
}

impl From<IpAddr> for Prefix {
    fn from(addr: IpAddr) -> Self {
        Self::host(addr)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `address` or `address/length`.
    fn from_str(s: &str) -> Result<Self, PrefixError> {
        let (addr, len) = match s.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (s, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address)?;
        let Some(len) = len else { return Ok(Self::host(addr)) };
        if !(1..=3).contains(&len.len()) || !len.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PrefixError::Length(width(addr)));
        }
        Self::new(addr, len.parse().map_err(|_| PrefixError::Length(width(addr)))?)
    }
}

/// One entry of an ADDRESS_ASSIGN capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedAddress {
    /// The request this answers, or 0.
    pub request_id: u64,
    /// What the receiver may use as source addresses.
    pub prefix: Prefix,
}

impl AssignedAddress {
    /// An assignment nobody asked for.
    pub fn unsolicited(prefix: Prefix) -> Self {
        Self { request_id: 0, prefix }
    }

    /// "No address for this request": the all-zero address and the longest prefix length.
    pub fn refusal(request: &RequestedAddress) -> Self {
        let addr = match request.prefix.addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self { request_id: request.request_id, prefix: Prefix::host(addr) }
    }

    /// Whether it says that nothing was assigned.
    pub fn is_refusal(&self) -> bool {
        self.prefix.addr.is_unspecified() && self.prefix.is_host()
    }
}

/// One entry of an ADDRESS_REQUEST capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedAddress {
    /// Names the request; never 0, never used twice by one endpoint of a session.
    pub request_id: u64,
    /// The wish. All-zero bits mean any address, of this prefix length.
    pub prefix: Prefix,
}

/// Why a list of addresses is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The value ends inside an entry.
    #[error("an address entry is cut short")]
    Truncated,
    /// The IP version is neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// The prefix is not one.
    #[error("an address entry is no prefix: {0}")]
    Prefix(#[from] PrefixError),
    /// An ADDRESS_REQUEST without an entry.
    #[error("an ADDRESS_REQUEST holds no address")]
    Empty,
    /// A request id of zero.
    #[error("request id 0 is reserved")]
    RequestIdZero,
    /// A request id was used before.
    #[error("request id {0} was used before")]
    RequestIdReused(u64),
    /// More entries than [`MAX_ADDRESSES`].
    #[error("more than {MAX_ADDRESSES} addresses")]
    TooMany,
}

/// Parses the value of an ADDRESS_ASSIGN capsule: the full list, which may be empty.
pub fn parse_assigned(value: &[u8]) -> Result<Vec<AssignedAddress>, AddressError> {
    let mut list = Vec::new();
    entries(value, |request_id, prefix| {
        list.push(AssignedAddress { request_id, prefix });
        Ok(())
    })?;
    Ok(list)
}

/// Parses the value of an ADDRESS_REQUEST capsule: at least one entry, ids distinct and not zero.
pub fn parse_requested(value: &[u8]) -> Result<Vec<RequestedAddress>, AddressError> {
    let mut list: Vec<RequestedAddress> = Vec::new();
    entries(value, |request_id, prefix| {
        if request_id == 0 {
            return Err(AddressError::RequestIdZero);
        }
        if list.iter().any(|r| r.request_id == request_id) {
            return Err(AddressError::RequestIdReused(request_id));
        }
        list.push(RequestedAddress { request_id, prefix });
        Ok(())
    })?;
    if list.is_empty() { Err(AddressError::Empty) } else { Ok(list) }
}

fn entries(
    mut value: &[u8],
    mut each: impl FnMut(u64, Prefix) -> Result<(), AddressError>,
) -> Result<(), AddressError> {
    for _ in 0..MAX_ADDRESSES {
        if value.is_empty() {
            return Ok(());
        }
        let (request_id, n) = varint::decode(value).ok_or(AddressError::Truncated)?;
        let (addr, rest) = read_versioned(&value[n..])?;
        let (&len, rest) = rest.split_first().ok_or(AddressError::Truncated)?;
        each(request_id, Prefix::new(addr, len)?)?;
        value = rest;
    }
    if value.is_empty() { Ok(()) } else { Err(AddressError::TooMany) }
}

fn read_versioned(value: &[u8]) -> Result<(IpAddr, &[u8]), AddressError> {
    let (&version, rest) = value.split_first().ok_or(AddressError::Truncated)?;
    read_address(version, rest)
}

/// Reads an address of the given IP version from the front of `value`.
pub(crate) fn read_address(version: u8, value: &[u8]) -> Result<(IpAddr, &[u8]), AddressError> {
    match version {
        4 => value
            .split_first_chunk::<4>()
            .map(|(a, rest)| (IpAddr::from(*a), rest))
            .ok_or(AddressError::Truncated),
        6 => value
            .split_first_chunk::<16>()
            .map(|(a, rest)| (IpAddr::from(*a), rest))
            .ok_or(AddressError::Truncated),
        other => Err(AddressError::Version(other)),
    }
}

/// Appends the bytes of `addr` without its version.
pub(crate) fn write_address(addr: IpAddr, out: &mut Vec<u8>) {
    match addr {
        IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
}

/// 4 or 6.
pub(crate) const fn version(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 4 } else { 6 }
}

/// Appends the value of an ADDRESS_ASSIGN capsule.
pub fn encode_assigned(list: &[AssignedAddress], out: &mut Vec<u8>) {
    list.iter().for_each(|a| write_entry(a.request_id, a.prefix, out));
}

/// Appends the value of an ADDRESS_REQUEST capsule.
pub fn encode_requested(list: &[RequestedAddress], out: &mut Vec<u8>) {
    list.iter().for_each(|r| write_entry(r.request_id, r.prefix, out));
}

fn write_entry(request_id: u64, prefix: Prefix, out: &mut Vec<u8>) {
    varint::encode(request_id, out);
    out.push(version(prefix.addr));
    write_address(prefix.addr, out);
    out.push(prefix.len);
}

#[cfg(test)]
mod tests;
