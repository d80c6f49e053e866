//! From an Ethernet frame to the UDP datagram inside, with every length checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;
/// Everything of IPv4's flags and fragment offset but "don't fragment" and the reserved bit.
const FRAGMENT: u16 = 0x3fff;

/// A UDP datagram in the frame that carried it.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Who sent it, if the network is to be believed; link-local addresses carry their scope.
    pub source: SocketAddr,
    /// The address of ours it was sent to.
    pub destination: SocketAddr,
    /// What UDP carried. Its checksum has not been verified: what a local sender left to the
    /// hardware is not filled in, and QUIC authenticates every packet (RFC 9001 section 5.3).
    pub payload: &'a mut [u8],
}

/// Why a frame holds no datagram to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A length field disagrees with the frame's.
    #[error("cut short, or a length field lies")]
    Length,
    /// Not UDP straight in IPv4 or IPv6, or a fragment.
    #[error("not a whole UDP datagram")]
    NotUdp,
    /// A source nobody may answer: loopback, multicast, broadcast, unspecified, or the
    /// destination itself. The kernel's routing would have dropped it before a socket saw it.
    #[error("from an address that no packet on a wire may carry")]
    Martian,
}

impl<'a> Datagram<'a> {
    /// The datagram inside `frame`, which begins with an Ethernet header and came in by the
    /// interface with index `interface`. Padding behind the datagram is left out.
    pub fn parse(frame: &'a mut [u8], interface: u32) -> Result<Self, Refused> {
        let (ethernet, packet) = frame.split_at_mut_checked(ETHERNET).ok_or(Refused::Length)?;
        let (source, destination, udp) = match (ethernet[12], ethernet[13]) {
            (0x08, 0x00) => ipv4(packet)?,
            (0x86, 0xdd) => ipv6(packet)?,
            _ => return Err(Refused::NotUdp),
        };
        let (header, rest) = udp.split_at_mut_checked(UDP).ok_or(Refused::Length)?;
        let length = usize::from(be16(header, 4)).checked_sub(UDP).ok_or(Refused::Length)?;
        let payload = rest.get_mut(..length).ok_or(Refused::Length)?;
        let (from, to) = (be16(header, 0), be16(header, 2));
        if is_martian(source) || (source, from) == (destination, to) {
            return Err(Refused::Martian);
        }
        Ok(Self {
            source: socket_address(source, from, interface),
            destination: socket_address(destination, to, interface),
            payload,
        })
    }
}

fn ipv4(packet: &mut [u8]) -> Result<(IpAddr, IpAddr, &mut [u8]), Refused> {
    let header: [u8; IPV4] = *packet.first_chunk().ok_or(Refused::Length)?;
    if header[0] != 0x45 || header[9] != PROTOCOL_UDP || be16(&header, 6) & FRAGMENT != 0 {
        return Err(Refused::NotUdp);
    }
    let total = usize::from(be16(&header, 2));
    let udp = packet.get_mut(IPV4..total).ok_or(Refused::Length)?;
    let address = |at: usize| {
        Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
    };
    Ok((address(12), address(16), udp))
}

fn ipv6(packet: &mut [u8]) -> Result<(IpAddr, IpAddr, &mut [u8]), Refused> {
    let header: [u8; IPV6] = *packet.first_chunk().ok_or(Refused::Length)?;
    if header[0] >> 4 != 6 || header[6] != PROTOCOL_UDP {
        return Err(Refused::NotUdp);
    }
    let length = usize::from(be16(&header, 4));
    let udp = packet.get_mut(IPV6..IPV6 + length).ok_or(Refused::Length)?;
    let address =
        |at: usize| Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| header[at + i])).into();
    Ok((address(8), address(24), udp))
}

/// Two bytes at `at`, which the caller has made sure of.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Sources that routing would have refused. Answering them would turn this program into a way to
/// reach services on loopback, or a network full of hosts.
fn is_martian(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.to_ipv4_mapped().is_some()
        }
    }
}

fn socket_address(ip: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, port, 0, interface).into()
        }
        ip => SocketAddr::new(ip, port),
    }
}

#[cfg(test)]
mod tests;
