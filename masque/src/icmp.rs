//! ICMP messages a forwarding endpoint sends (RFC 792, RFC 4443; RFC 9484 §7.2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::packet::{PacketView, protocol};

mod limit;
pub use limit::RateLimit;

/// The longest ICMPv4 error, IP header included, in bytes (RFC 1812 §4.3.2.3).
pub const MAX_V4: usize = 576;
/// The longest ICMPv6 error, IP header included, in bytes: the least MTU of IPv6 (RFC 4443 §2.4).
pub const MAX_V6: usize = 1280;
/// Data bytes of the echo request that proves an IPv6 link carries 1280 bytes (RFC 9484 §7.1).
pub const PROBE_DATA: usize = 1232;
/// All nodes on the link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const TTL: u8 = 64;

/// Why a packet was not forwarded, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// Destination unreachable: no route (ICMPv4 3/0, ICMPv6 1/0).
    NoRoute,
    /// Destination unreachable: administratively prohibited (3/13, 1/1).
    Prohibited,
    /// Destination unreachable: the source address failed a policy (3/13, 1/5).
    SourcePolicy,
    /// Destination unreachable: the address does not answer (3/1, 1/3).
    AddressUnreachable,
    /// Packet too big (3/4, 2/0), with the MTU of the link it did not fit, in bytes.
    TooBig(u32),
    /// The hop limit was used up in transit (11/0, 3/0).
    TimeExceeded,
}

impl IcmpError {
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (3, 0, 0),
            Self::Prohibited | Self::SourcePolicy => (3, 13, 0),
            Self::AddressUnreachable => (3, 1, 0),
            Self::TooBig(mtu) => (3, 4, if mtu > 0xffff { 0xffff } else { mtu }),
            Self::TimeExceeded => (11, 0, 0),
        }
    }

    const fn v6(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::SourcePolicy => (1, 5, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::TooBig(mtu) => (2, 0, mtu),
            Self::TimeExceeded => (3, 0, 0),
        }
    }
}

/// The error about `packet`, as a whole IP packet from `router` to the packet's source. `None`
/// where none may be sent: about an ICMP error, a later fragment, what went to or came from
/// several hosts or nobody, or with a router address of the other IP version.
pub fn error(about: IcmpError, packet: &PacketView<'_>, router: IpAddr) -> Option<Vec<u8>> {
    if !may_report(about, packet) {
        return None;
    }
    match (packet.source(), router) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let quote = &packet.bytes()[..packet.bytes().len().min(MAX_V4 - 28)];
            Some(message_v4(from, to, about.v4(), quote))
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let quote = &packet.bytes()[..packet.bytes().len().min(MAX_V6 - 48)];
            Some(message_v6(from, to, about.v6(), quote))
        }
        _ => None,
    }
}

fn may_report(about: IcmpError, packet: &PacketView<'_>) -> bool {
    if packet.fragment_offset() > 0 || is_error(packet) {
        return false;
    }
    let (source, destination) = (packet.source(), packet.destination());
    let broadcast = |addr| addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    let one_host = |addr: IpAddr| !addr.is_multicast() && !broadcast(addr);
    // Path MTU discovery works for IPv6 multicast too (RFC 4443 §2.4 e.3).
    let group = !packet.is_v4() && matches!(about, IcmpError::TooBig(_));
    one_host(source)
        && !source.is_unspecified()
        && !source.is_loopback()
        && (one_host(destination) || group)
}

/// Whether `packet` is an ICMP error (or a redirect), or ICMP too short to tell.
pub fn is_error(packet: &PacketView<'_>) -> bool {
    if !packet.is_icmp() || packet.fragment_offset() > 0 {
        return false;
    }
    match (packet.is_v4(), packet.upper().first()) {
        (_, None) => true,
        (true, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (false, Some(kind)) => *kind < 128 || *kind == 137,
    }
}

/// What an ICMP error quotes: the addresses and, where it can be told, the protocol of the packet
/// that caused it. The quote is seldom whole, so lengths are not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// The source of the packet that caused the error.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its protocol; for IPv6 the first next header, behind a plain options or fragment header.
    pub protocol: u8,
}

/// Reads the quotation in an ICMP error; `None` when there is none to read.
pub fn quoted(packet: &PacketView<'_>) -> Option<Quoted> {
    let quote = packet.upper().get(8..)?;
    match (packet.is_v4(), quote.first()? >> 4) {
        (true, 4) => {
            let h: &[u8; 20] = quote.first_chunk()?;
            Some(Quoted {
                source: Ipv4Addr::new(h[12], h[13], h[14], h[15]).into(),
                destination: Ipv4Addr::new(h[16], h[17], h[18], h[19]).into(),
                protocol: h[9],
            })
        }
        (false, 6) => {
            let (h, mut rest) = quote.split_first_chunk::<40>()?;
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&h[at..at + 16]);
                IpAddr::from(octets)
            };
            let mut next = h[6];
            for _ in 0..crate::packet::MAX_EXTENSIONS {
                let len = match next {
                    protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                        (usize::from(*rest.get(1)?) + 1) * 8
                    }
                    protocol::FRAGMENT => 8,
                    _ => break,
                };
                next = *rest.first()?;
                rest = rest.get(len..)?;
            }
            Some(Quoted { source: address(8), destination: address(24), protocol: next })
        }
        _ => None,
    }
}

/// The reply to an echo request, from `own`; `None` for anything else.
pub fn echo_reply(packet: &PacketView<'_>, own: IpAddr) -> Option<Vec<u8>> {
    if !packet.is_icmp() || packet.is_fragment() || packet.source().is_multicast() {
        return None;
    }
    let [kind, 0, _, _, a, b, c, d, data @ ..] = packet.upper() else { return None };
    let rest = u32::from_be_bytes([*a, *b, *c, *d]);
    match (packet.source(), own) {
        (IpAddr::V4(to), IpAddr::V4(from)) if *kind == 8 => {
            Some(message_v4(from, to, (0, 0, rest), data))
        }
        (IpAddr::V6(to), IpAddr::V6(from)) if *kind == 128 && !to.is_unspecified() => {
            Some(message_v6(from, to, (129, 0, rest), data))
        }
        _ => None,
    }
}

/// An ICMPv6 echo request of exactly 1280 bytes: whoever answers it has an IPv6-worthy link.
pub fn mtu_probe(from: Ipv6Addr, to: Ipv6Addr, id: u16, sequence: u16) -> Vec<u8> {
    let rest = u32::from(id) << 16 | u32::from(sequence);
    message_v6(from, to, (128, 0, rest), &[0; PROBE_DATA])
}

fn message_v4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    (kind, code, rest): (u8, u8, u32),
    body: &[u8],
) -> Vec<u8> {
    let len = 28 + body.len();
    let mut p = Vec::with_capacity(len);
    p.extend([0x45, 0]);
    p.extend((len as u16).to_be_bytes());
    p.extend([0, 0, 0x40, 0, TTL, protocol::ICMP, 0, 0]);
    p.extend(from.octets());
    p.extend(to.octets());
    let sum = checksum::checksum(&p);
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    p.extend([kind, code, 0, 0]);
    p.extend(rest.to_be_bytes());
    p.extend_from_slice(body);
    let sum = checksum::checksum(&p[20..]);
    p[22..24].copy_from_slice(&sum.to_be_bytes());
    p
}

fn message_v6(
    from: Ipv6Addr,
    to: Ipv6Addr,
    (kind, code, rest): (u8, u8, u32),
    body: &[u8],
) -> Vec<u8> {
    let len = 8 + body.len();
    let mut p = Vec::with_capacity(40 + len);
    p.extend([0x60, 0, 0, 0]);
    p.extend((len as u16).to_be_bytes());
    p.extend([protocol::ICMPV6, TTL]);
    p.extend(from.octets());
    p.extend(to.octets());
    p.extend([kind, code, 0, 0]);
    p.extend(rest.to_be_bytes());
    p.extend_from_slice(body);
    let sum = checksum::pseudo_v6(from, to, protocol::ICMPV6, len);
    let sum = checksum::finish(checksum::add(sum, &p[40..]));
    p[42..44].copy_from_slice(&sum.to_be_bytes());
    p
}

#[cfg(test)]
mod tests;
