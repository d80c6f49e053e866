//! An IPv4 packet with UDP in it, as a program behind a tunnel would send it.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::packets::Message;

/// Bytes of an IPv4 header without options (RFC 791 §3.1) and of a UDP header (RFC 768).
const HEADERS: usize = 20 + 8;
/// Where every packet comes from.
const SOURCE_PORT: u16 = 4000;

/// A packet with `size` bytes of UDP payload that asks to be echoed. It has no UDP checksum, which IPv4 allows.
pub fn udp_packet(source: Ipv4Addr, target: SocketAddrV4, size: usize) -> Vec<u8> {
    let length = (HEADERS + size).min(usize::from(u16::MAX));
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 0x40; // do not fragment
    packet[8] = 64; // hops
    packet[9] = 17; // UDP
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.ip().octets());
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[24..26].copy_from_slice(&((length - 20) as u16).to_be_bytes());
    Message::Echo.write(&mut packet[HEADERS..]);
    packet
}

/// The Internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_well_formed() {
        let target = SocketAddrV4::new([203, 0, 113, 2].into(), 5300);
        let packet = udp_packet([10, 77, 0, 2].into(), target, 1200);
        assert_eq!(packet.len(), 1228);
        assert_eq!(checksum(&packet[..20]), 0, "a header with its checksum sums up to nothing");
        assert_eq!(Message::parse(&packet[HEADERS..]), Some(Message::Echo));
    }
}
