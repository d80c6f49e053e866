//! Packets on their way: preallocated memory, ordered by arrival.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The most packets under way in one direction: 1 Gbit/s of 1,500 bytes for 780 ms. Memory is
/// taken from the system only as it is used.
pub(super) const SLOTS: usize = 65_536;

/// A fixed number of packets, each with the time it is to be delivered.
pub(super) struct Schedule {
    memory: Vec<u8>,
    slot_size: usize,
    free: Vec<u32>,
    due: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: u64,
    /// Among equals, first come, first served.
    order: u64,
    slot: u32,
    len: u32,
}

impl Schedule {
    pub(super) fn new(slot_size: usize) -> Self {
        Self {
            memory: vec![0; SLOTS * slot_size],
            slot_size,
            free: (0..SLOTS as u32).rev().collect(),
            due: BinaryHeap::with_capacity(SLOTS),
            order: 0,
        }
    }

    /// Copies a packet in; `false` if there is no room.
    pub(super) fn push(&mut self, at: u64, packet: &[u8]) -> bool {
        if packet.len() > self.slot_size {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        let start = slot as usize * self.slot_size;
        self.memory[start..start + packet.len()].copy_from_slice(packet);
        self.order += 1;
        self.due.push(Reverse(Entry { at, order: self.order, slot, len: packet.len() as u32 }));
        true
    }

    /// When the next packet is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.due.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the next packet if it is due, and hands it to `deliver` with its time.
    pub(super) fn pop_due(&mut self, now: u64, deliver: impl FnOnce(&[u8], u64)) -> bool {
        if self.next_at().is_none_or(|at| at > now) {
            return false;
        }
        let Some(Reverse(entry)) = self.due.pop() else { return false };
        let start = entry.slot as usize * self.slot_size;
        deliver(&self.memory[start..start + entry.len as usize], entry.at);
        self.free.push(entry.slot);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_in_order_of_time_and_then_of_arrival() {
        let mut schedule = Schedule::new(16);
        for (at, packet) in [(20, b"c"), (10, b"a"), (10, b"b"), (30, b"d")] {
            assert!(schedule.push(at, packet));
        }
        let mut out = Vec::new();
        while schedule.pop_due(20, |packet, at| out.push((packet[0], at))) {}
        assert_eq!(out, [(b'a', 10), (b'b', 10), (b'c', 20)]);
        assert_eq!((schedule.next_at(), schedule.len()), (Some(30), 1));
    }

    #[test]
    fn a_full_schedule_refuses_and_recovers() {
        let mut schedule = Schedule::new(1);
        assert!((0..SLOTS).all(|n| schedule.push(n as u64, b"x")));
        assert!(!schedule.push(0, b"x"));
        assert!(schedule.pop_due(0, |_, _| {}));
        assert!(schedule.push(0, b"x"));
        assert!(!schedule.push(0, b"too long"));
    }
}
