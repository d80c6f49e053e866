//! Which flow a packet belongs to, and its ECN field.

use crate::checksum;
use crate::packet::protocol::{FRAGMENT, TCP, UDP};

/// A hash over addresses, protocol and ports, keyed so that a peer cannot aim for one bucket.
/// Fragments of a datagram share one, their ports left out.
#[inline]
pub(super) fn flow(packet: &[u8], seed: u64) -> u64 {
    let mut hash = seed;
    match packet.first().map(|b| b >> 4) {
        Some(4) if packet.len() >= 20 => {
            mix(&mut hash, word(packet, 12) << 32 | word(packet, 16));
            let fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
            let ports = usize::from(packet[0] & 15) * 4;
            upper(&mut hash, packet, packet[9], ports, fragment);
        }
        Some(6) if packet.len() >= 40 => {
            for at in [8, 16, 24, 32] {
                mix(&mut hash, word(packet, at) << 32 | word(packet, at + 4));
            }
            upper(&mut hash, packet, packet[6], 40, packet[6] == FRAGMENT);
        }
        _ => {}
    }
    hash ^ hash >> 29
}

fn upper(hash: &mut u64, packet: &[u8], protocol: u8, at: usize, fragment: bool) {
    let ports = matches!(protocol, TCP | UDP) && !fragment && packet.len() >= at + 4;
    mix(hash, u64::from(protocol) << 32 | if ports { word(packet, at) } else { 0 });
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

#[inline]
fn mix(hash: &mut u64, value: u64) {
    let product = u128::from(*hash ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    *hash = product as u64 ^ (product >> 64) as u64;
}

/// Marks a packet Congestion Experienced (RFC 3168 §5) if its transport says it understands.
pub(super) fn mark_ce(packet: &mut [u8]) -> bool {
    match packet.first().map(|b| b >> 4) {
        Some(4) if packet.len() >= 20 && packet[1] & 3 != 0 => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= 3;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let sum = checksum::update(u16::from_be_bytes([packet[10], packet[11]]), old, new);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            true
        }
        Some(6) if packet.len() >= 40 && packet[1] & 0x30 != 0 => {
            packet[1] |= 0x30;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketView;

    fn udp(port: u16, ecn: u8) -> Vec<u8> {
        let mut p = vec![0x45, ecn, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = checksum::checksum(&p);
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p.extend(port.to_be_bytes());
        p.extend([0, 53, 0, 9, 0, 0, 1]);
        p
    }

    #[test]
    fn a_flow_is_its_five_tuple() {
        assert_eq!(flow(&udp(1, 0), 7), flow(&udp(1, 2), 7));
        assert_ne!(flow(&udp(1, 0), 7), flow(&udp(2, 0), 7));
        assert_ne!(flow(&udp(1, 0), 7), flow(&udp(1, 0), 8));
    }

    #[test]
    fn only_capable_packets_are_marked_and_their_checksum_stays_right() {
        assert!(!mark_ce(&mut udp(1, 0)));
        let mut p = udp(1, 2);
        assert!(mark_ce(&mut p));
        assert_eq!(PacketView::parse(&p).unwrap().ecn(), 3);
        assert_eq!(checksum::checksum(&p[..20]), 0);
    }
}
