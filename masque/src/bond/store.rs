//! Packets that were sent by number and may have to be sent again.

use std::collections::VecDeque;

use super::PathId;
use super::pool::Pool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The peer has it, or does not want it any more.
    Done,
    /// On its way, as far as is known.
    Flight,
    /// Known to be lost; waits to be sent again.
    Lost,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) packet: Vec<u8>,
    pub(super) back: u16,
    pub(super) sparse: bool,
    /// No repair covers it: it is sent again as soon as it is missed.
    pub(super) light: bool,
    pub(super) fate: Fate,
    pub(super) path: PathId,
    /// The path number of the latest transmission, and when that was, microseconds.
    pub(super) number: u64,
    pub(super) at: u64,
    /// When it was sent first, and by which path.
    pub(super) first: u64,
    pub(super) origin: PathId,
    pub(super) times: u8,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            packet: Vec::new(),
            back: 0,
            sparse: false,
            light: false,
            fate: Fate::Done,
            path: 0,
            number: 0,
            at: 0,
            first: 0,
            origin: 0,
            times: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Store {
    entries: Vec<Sent>,
    window: u64,
    settled: u64,
    next: u64,
    lost: VecDeque<u64>,
}

impl Store {
    pub(super) fn new(window: u32) -> Self {
        Self {
            entries: Vec::new(),
            window: u64::from(window.next_power_of_two()),
            settled: 0,
            next: 0,
            lost: VecDeque::new(),
        }
    }

    /// The number of the next packet.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// All below are done with.
    pub(super) const fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) const fn is_full(&self) -> bool {
        self.next - self.settled >= self.window
    }

    /// Keeps the next packet.
    pub(super) fn push(&mut self, sent: Sent) -> u64 {
        if self.entries.is_empty() {
            self.entries.resize_with(self.window as usize, Sent::default);
        }
        let sequence = self.next;
        self.entries[(sequence & (self.window - 1)) as usize] = sent;
        self.next += 1;
        sequence
    }

    /// The packet, if it is not done with.
    pub(super) fn get(&mut self, sequence: u64) -> Option<&mut Sent> {
        if sequence < self.settled || sequence >= self.next {
            return None;
        }
        let sent = &mut self.entries[(sequence & (self.window - 1)) as usize];
        (sent.fate != Fate::Done).then_some(sent)
    }

    /// A packet is done with.
    pub(super) fn done(&mut self, sequence: u64, pool: &mut Pool) {
        if let Some(sent) = self.get(sequence) {
            sent.fate = Fate::Done;
            pool.put(std::mem::take(&mut sent.packet));
        }
    }

    /// All below `sequence` are done with.
    pub(super) fn settle(&mut self, sequence: u64, pool: &mut Pool) {
        while self.settled < sequence.min(self.next) {
            self.done(self.settled, pool);
            self.settled += 1;
        }
    }

    /// A packet on its way was lost.
    pub(super) fn lose(&mut self, sequence: u64) {
        if let Some(sent) = self.get(sequence)
            && sent.fate == Fate::Flight
        {
            sent.fate = Fate::Lost;
            self.lost.push_back(sequence);
        }
    }

    /// The next packet to send again, left where it is.
    pub(super) fn first_lost(&mut self) -> Option<u64> {
        loop {
            let first = *self.lost.front()?;
            if self.get(first).is_some_and(|s| s.fate == Fate::Lost) {
                return Some(first);
            }
            self.lost.pop_front();
        }
    }

    /// It goes out.
    pub(super) fn pop_lost(&mut self) {
        self.lost.pop_front();
    }

    /// Whether packets wait to be sent again.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Everything on its way over `path` is lost, most likely what was sent from `since` on: that
    /// goes again first.
    pub(super) fn lose_path(&mut self, path: PathId, since: u64) {
        for late in [true, false] {
            for sequence in self.settled..self.next {
                if self.get(sequence).is_some_and(|s| s.path == path && (s.at >= since) == late) {
                    self.lose(sequence);
                }
            }
        }
    }

    /// Drops what was first sent before `since`.
    pub(super) fn abandon(&mut self, since: u64, pool: &mut Pool) -> u64 {
        let mut abandoned = 0;
        while self.settled < self.next {
            let sequence = self.settled;
            match self.get(sequence) {
                Some(sent) if sent.first >= since => break,
                Some(_) => abandoned += 1,
                None => {}
            }
            self.done(sequence, pool);
            self.settled += 1;
        }
        abandoned
    }
}
