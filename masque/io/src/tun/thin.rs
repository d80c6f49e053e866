//! Acknowledgements of TCP's that say nothing a later one does not say as well.
//!
//! Where several of one flow wait for the same system call they would reach their receiver in one moment. It
//! then acts by the last, and the others cost it and both ends of the tunnel a packet each: two for every forty
//! of data. As `sch_cake` does with `ack-filter`, but only among what arrives at once, so that no sender's clock
//! runs slower by it. They are counted neither as written nor as dropped.

use super::vnet::{Layout, TCP};

/// Nothing but ACK: neither an echo of congestion nor the end of anything.
const ACK: u8 = 0x10;
/// The options of every segment of a connection with timestamps (RFC 7323, appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
const TIMESTAMPS_LEN: usize = 12;

/// Whether a packet is nothing but an acknowledgement, without an option that speaks of single segments (SACK).
pub(super) fn is_pure(layout: &Layout, packet: &[u8]) -> bool {
    let segment = &packet[layout.transport..];
    layout.protocol == TCP
        && layout.payload == packet.len()
        && segment[12] & 15 == 0
        && segment[13] == ACK
        && match segment.len() - 20 {
            0 => true,
            TIMESTAMPS_LEN => segment[20..24] == TIMESTAMPS,
            _ => false,
        }
}

/// Whether `newer` is a [pure](is_pure) acknowledgement of more than `older` of the same flow, and that one too
/// and else the same. One that repeats another tells of a loss, and does not take its place.
pub(super) fn supersedes(layout: &Layout, newer: &[u8], other: &Layout, older: &[u8]) -> bool {
    if layout != other || !is_pure(layout, newer) || !is_pure(other, older) {
        return false;
    }
    let ip = match layout.v6 {
        true => newer[..4] == older[..4] && newer[6..8] == older[6..8],
        false => newer[..2] == older[..2] && newer[6..10] == older[6..10],
    };
    let (new, old) = (&newer[layout.transport..], &older[layout.transport..]);
    let number = |b: &[u8], at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let ahead = |at: usize| number(new, at).wrapping_sub(number(old, at)) as i32;
    ip && number(new, 4) == number(old, 4)
        && new[18..20] == old[18..20]
        && ahead(8) > 0
        && (new.len() == 20 || ahead(24) >= 0)
        && layout.checksum_holds(newer)
}

#[cfg(test)]
mod tests {
    use super::super::batch::TunBatch;
    use super::super::gather::{Gather, Joining};
    use super::super::vnet::{VNET_LEN, pseudo_sum, put};
    use super::*;
    use crate::buffers::DatagramBuf;

    const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 19];

    /// A segment without data from a port, over IPv6.
    fn segment(port: u16, acknowledges: u32, flags: u8, options: &[u8]) -> Vec<u8> {
        let len = 20 + options.len();
        let mut p = vec![0; 40 + len];
        (p[0], p[6], p[7], p[23], p[39]) = (0x60, TCP, 64, 1, 2);
        put(&mut p, 4, (len as u16).to_be_bytes());
        put(&mut p, 40, port.to_be_bytes());
        put(&mut p, 48, acknowledges.to_be_bytes());
        (p[52], p[53]) = ((len as u8 / 4) << 4, flags);
        p[60..].copy_from_slice(options);
        let sum = !tun_rs::checksum(&p[40..], pseudo_sum(&p[8..40], TCP, len));
        put(&mut p, 56, sum.to_be_bytes());
        p
    }

    fn ack(acknowledges: u32) -> Vec<u8> {
        segment(80, acknowledges, ACK, &[])
    }

    fn stamped(acknowledges: u32, at: u32) -> Vec<u8> {
        let options = [&TIMESTAMPS[..], &at.to_be_bytes(), &[0; 4]].concat();
        segment(80, acknowledges, ACK, &options)
    }

    /// What is left of packets that are written to a TUN together, and of some that are read together.
    fn left(packets: &[Vec<u8>]) -> [Vec<Vec<u8>>; 2] {
        let mut gather = Gather::new(Joining { tcp: true, udp: true });
        packets.iter().for_each(|p| gather.push(DatagramBuf::copy_of(p)));
        let mut written = Vec::new();
        gather.drain(false, |slices, _| {
            written.push(slices.iter().flat_map(|s| s.iter().copied()).collect());
        });
        let mut batch = TunBatch::new();
        for packet in packets {
            let room = batch.room(true).unwrap();
            room[..VNET_LEN].fill(0);
            room[VNET_LEN..][..packet.len()].copy_from_slice(packet);
            assert!(batch.take(VNET_LEN + packet.len(), true));
        }
        [written, batch.drain().map(|p| p.as_ref().to_vec()).collect()]
    }

    #[test]
    fn the_last_of_several_acknowledgements_stands_for_all() {
        assert_eq!(left(&[ack(1), ack(2), ack(9)]), [vec![ack(9)], vec![ack(9)]]);
        let wrapped = [stamped(u32::MAX - 5, 7), stamped(10, 8)];
        assert_eq!(left(&wrapped), [vec![wrapped[1].clone()], vec![wrapped[1].clone()]]);
        // Each flow for itself.
        let mixed = [ack(1), segment(81, 5, ACK, &[]), ack(2), segment(81, 6, ACK, &[])];
        for mut left in left(&mixed) {
            left.sort();
            assert_eq!(left, [ack(2), segment(81, 6, ACK, &[])]);
        }
    }

    #[test]
    fn what_says_more_than_a_number_stays() {
        let mut broken = ack(2);
        broken[57] ^= 1;
        let cases = [
            [ack(1), ack(1)],                          // a duplicate
            [ack(2), ack(1)],                          // out of order
            [ack(1), segment(80, 2, ACK | 0x40, &[])], // congestion was experienced
            [segment(80, 1, ACK | 1, &[]), ack(2)],    // an end
            [ack(1), stamped(2, 7)],                   // other options
            [stamped(1, 8), stamped(2, 7)],            // an older one
            [segment(80, 1, ACK, &SACK), ack(2)],      // gaps are told of
            [ack(1), segment(80, 2, ACK, &SACK)],
            [ack(1), broken], // perhaps another number
        ];
        for case in cases {
            assert_eq!(left(&case), [case.to_vec(), case.to_vec()]);
        }
    }
}
