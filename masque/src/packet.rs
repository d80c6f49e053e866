//! A view of an IP packet, without a copy.
//!
//! Parsing checks what a router relies on: version, header length, and that the length in the
//! header is the length of the buffer. Header and upper-layer checksums are left to the receiver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;

/// Internet Protocol Numbers that mean something here.
pub mod protocol {
    /// IPv6 Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 Routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// IPsec Authentication Header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 Destination Options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Mobility, Host Identity and Shim6 headers, laid out as options headers are.
    pub const OTHER_EXTENSIONS: [u8; 3] = [135, 139, 140];
}

/// The most IPv6 extension headers that are walked. Real packets carry at most three or four.
pub const MAX_EXTENSIONS: usize = 8;

/// Why bytes are not an IP packet that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The packet ends inside its header.
    #[error("the packet ends inside its header")]
    Truncated,
    /// The IP version is neither 4 nor 6.
    #[error("IP version {0} is neither 4 nor 6")]
    Version(u8),
    /// The length in the header is not the packet's.
    #[error("the header's length is not the packet's")]
    Length,
    /// A header length is impossible.
    #[error("a header length is impossible")]
    HeaderLength,
    /// More extension headers than [`MAX_EXTENSIONS`].
    #[error("more than {MAX_EXTENSIONS} extension headers")]
    TooManyExtensions,
}

/// The lifetime of a packet is over: it may not be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet's TTL or hop limit is used up")]
pub struct TimeExceeded;

/// A parsed packet.
#[derive(Debug, Clone, Copy)]
pub struct PacketView<'a> {
    bytes: &'a [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    upper: u16,
    fragment: u16,
    source_routed: bool,
}

/// Flags and offset in a fragment word: offset in units of 8 bytes above, "more" in the lowest bit.
const MORE: u16 = 1;

impl<'a> PacketView<'a> {
    /// Reads the headers of `bytes`, which must be one whole packet and nothing else.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(other) => Err(PacketError::Version(other)),
            None => Err(PacketError::Truncated),
        }
    }

    #[inline]
    fn parse_v4(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header: &[u8; 20] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header_len < 20 {
            return Err(PacketError::HeaderLength);
        }
        if header_len > bytes.len() {
            return Err(PacketError::Truncated);
        }
        let [.., f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        if usize::from(u16::from_be_bytes([header[2], header[3]])) != bytes.len() {
            return Err(PacketError::Length);
        }
        let flags = u16::from_be_bytes([f0, f1]);
        let source_routed = header_len > 20 && has_source_route(&bytes[20..header_len]);
        Ok(Self {
            source_routed,
            bytes,
            source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            protocol,
            upper: header_len as u16,
            fragment: (flags & 0x1fff) << 3 | (flags >> 13 & MORE),
        })
    }

    #[inline]
    fn parse_v6(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let (header, rest) = bytes.split_first_chunk::<40>().ok_or(PacketError::Truncated)?;
        if usize::from(u16::from_be_bytes([header[4], header[5]])) != rest.len() {
            return Err(PacketError::Length);
        }
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let mut view = Self {
            bytes,
            source: address(8),
            destination: address(24),
            protocol: header[6],
            upper: 40,
            fragment: 0,
            source_routed: false,
        };
        if is_extension(view.protocol) {
            view.walk()?;
        }
        Ok(view)
    }

    /// Walks the extension headers to the outermost protocol that is none (RFC 9484 §4.8). Behind
    /// a fragment that is not the first there is nothing to walk.
    #[cold]
    fn walk(&mut self) -> Result<(), PacketError> {
        for _ in 0..MAX_EXTENSIONS {
            let at = usize::from(self.upper);
            let header = self.bytes.get(at..at + 8).ok_or(PacketError::Truncated)?;
            let len = match self.protocol {
                protocol::FRAGMENT => {
                    let word = u16::from_be_bytes([header[2], header[3]]);
                    self.fragment = (word & !7) | (word & MORE);
                    8
                }
                protocol::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            if at + len > self.bytes.len() {
                return Err(PacketError::Truncated);
            }
            // Type 0 with segments left (RFC 5095).
            self.source_routed |=
                self.protocol == protocol::ROUTING && header[2] == 0 && header[3] != 0;
            self.protocol = header[0];
            self.upper = (at + len) as u16;
            if self.fragment_offset() > 0 || !is_extension(self.protocol) {
                return Ok(());
            }
        }
        Err(PacketError::TooManyExtensions)
    }

    /// The whole packet.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is IPv4; else it is IPv6.
    #[inline]
    pub const fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> IpAddr {
        self.source
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> IpAddr {
        self.destination
    }

    /// The Internet Protocol Number of the upper layer, behind all IPv6 extension headers.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Whether the upper layer is ICMP of the packet's own IP version.
    #[inline]
    pub const fn is_icmp(&self) -> bool {
        self.protocol == if self.is_v4() { protocol::ICMP } else { protocol::ICMPV6 }
    }

    /// Where the upper layer begins, in bytes.
    pub const fn upper_offset(&self) -> usize {
        self.upper as usize
    }

    /// The upper layer: header and payload.
    pub fn upper(&self) -> &'a [u8] {
        &self.bytes[usize::from(self.upper)..]
    }

    /// TTL or hop limit.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.bytes[if self.is_v4() { 8 } else { 7 }]
    }

    /// The whole traffic class byte: DSCP above, ECN in the lowest two bits.
    pub fn traffic_class(&self) -> u8 {
        match self.is_v4() {
            true => self.bytes[1],
            false => self.bytes[0] << 4 | self.bytes[1] >> 4,
        }
    }

    /// The Differentiated Services Code Point, 0 to 63.
    pub fn dscp(&self) -> u8 {
        self.traffic_class() >> 2
    }

    /// The ECN field, 0 to 3.
    pub fn ecn(&self) -> u8 {
        self.traffic_class() & 3
    }

    /// Where in the original packet's payload this fragment begins, in bytes.
    pub const fn fragment_offset(&self) -> u16 {
        self.fragment & !7
    }

    /// Whether more fragments follow.
    pub const fn more_fragments(&self) -> bool {
        self.fragment & MORE != 0
    }

    /// Whether it is a fragment at all.
    pub const fn is_fragment(&self) -> bool {
        self.fragment != 0
    }

    /// Whether the sender chose the route: IPv4 source route options (RFC 7126 §4.3), or an IPv6
    /// routing header of type 0. Its final destination is not the one in the header.
    #[inline]
    pub const fn is_source_routed(&self) -> bool {
        self.source_routed
    }

    /// Whether routers may not fragment it: IPv6, or IPv4 with DF.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        !self.is_v4() || self.bytes[6] & 0x40 != 0
    }
}

#[inline]
const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
            | 135
            | 139
            | 140
    )
}

/// Whether IPv4 options hold a loose or strict source route. Options that cannot be walked count
/// as one.
#[cold]
fn has_source_route(mut options: &[u8]) -> bool {
    loop {
        match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => options = rest,
            [131 | 137, ..] => return true,
            [_, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => {
                options = &options[usize::from(*len)..];
            }
            _ => return true,
        }
    }
}

/// Takes one hop off a packet that [`PacketView::parse`] accepted; IPv4's header checksum follows.
/// A packet that would not survive the hop is left as it was.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), TimeExceeded> {
    if packet.first().is_some_and(|b| b >> 4 == 6) {
        let hop_limit = packet.get_mut(7).ok_or(TimeExceeded)?;
        if *hop_limit <= 1 {
            return Err(TimeExceeded);
        }
        *hop_limit -= 1;
        return Ok(());
    }
    let [.., ttl, protocol, c0, c1] = packet.first_chunk_mut::<12>().ok_or(TimeExceeded)?;
    if *ttl <= 1 {
        return Err(TimeExceeded);
    }
    let old = u16::from_be_bytes([*ttl, *protocol]);
    *ttl -= 1;
    let new = u16::from_be_bytes([*ttl, *protocol]);
    let sum = checksum::update(u16::from_be_bytes([*c0, *c1]), old, new);
    [*c0, *c1] = sum.to_be_bytes();
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
