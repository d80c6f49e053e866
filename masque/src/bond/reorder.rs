//! Packets that came by number: what is there, what is missing, and who waits for whom.
//!
//! Each packet names the one it must follow (its `back`), so packets form chains, one a flow, and
//! only a flow whose own packet is missing waits. A missing packet is given up when the oldest
//! gap is older than the receiver's patience; gaps are discovered in the order of their numbers, so
//! only the first one needs a clock.

use std::collections::VecDeque;

use super::pool::Pool;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not here: never seen, or not yet.
    Missing,
    /// Here, waits for its predecessor.
    Held,
    /// Delivered or given up: nobody waits for it.
    Settled,
}

#[derive(Debug)]
struct Entry {
    state: State,
    packet: Vec<u8>,
    /// How far after this one the packet is that waits for it; 0: none.
    follower: u16,
    /// When a later packet arrived first, microseconds.
    missed: u64,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Deliver it now; then more may be ready.
    Now,
    /// It waits.
    Held,
    /// It is there already, or was given up.
    Duplicate,
    /// It is more than a window ahead.
    Absurd,
}

/// After so many packets in a row outside the window, it is the window that is wrong: it begins anew
/// where they are.
const STRAYS: u32 = 256;

#[derive(Debug)]
pub(super) struct Reorder {
    entries: Vec<Entry>,
    window: u64,
    /// All below are settled.
    settled: u64,
    /// One above the highest seen.
    next: u64,
    ready: VecDeque<Vec<u8>>,
    pub(super) held: usize,
    pub(super) given_up: u64,
    pub(super) duplicates: u64,
    strays: u32,
}

impl Reorder {
    /// A receiver that remembers `window` numbers, a power of two.
    pub(super) fn new(window: u32) -> Self {
        Self {
            entries: Vec::new(),
            window: u64::from(window.next_power_of_two()),
            settled: 0,
            next: 0,
            ready: VecDeque::new(),
            held: 0,
            given_up: 0,
            duplicates: 0,
            strays: 0,
        }
    }

    pub(super) const fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    fn entry(&mut self, sequence: u64) -> &mut Entry {
        &mut self.entries[(sequence & (self.window - 1)) as usize]
    }

    fn is_settled(&self, sequence: u64) -> bool {
        sequence < self.settled
            || self.entries[(sequence & (self.window - 1)) as usize].state == State::Settled
    }

    /// Whether the packet has not been seen and may still come.
    pub(super) fn is_wanted(&self, sequence: u64) -> bool {
        sequence >= self.settled
            && (sequence >= self.next
                || self.entries[(sequence & (self.window - 1)) as usize].state == State::Missing)
    }

    /// Takes note of a packet: its number, the number it follows (itself if none), and its bytes
    /// should it have to wait. The second value is whether a gap was discovered.
    pub(super) fn arrive(
        &mut self,
        now: u64,
        sequence: u64,
        back: u16,
        packet: &[u8],
        pool: &mut Pool,
    ) -> (Arrival, bool) {
        if self.entries.is_empty() {
            let new =
                || Entry { state: State::Missing, packet: Vec::new(), follower: 0, missed: 0 };
            self.entries.resize_with(self.window as usize, new);
        }
        let ahead = sequence >= self.next + self.window;
        // The sender keeps no more than a window of packets to send again.
        let behind = sequence + 2 * self.window < self.settled;
        if ahead || behind {
            self.strays += 1;
            if self.strays < STRAYS {
                self.duplicates += u64::from(!ahead);
                let what = if ahead { Arrival::Absurd } else { Arrival::Duplicate };
                return (what, false);
            }
            self.flush(pool);
            (self.settled, self.next) = (sequence, sequence);
        } else if !self.is_wanted(sequence) {
            // However many of them: copies in a row are no sign that the window is wrong.
            self.duplicates += 1;
            return (Arrival::Duplicate, false);
        }
        self.strays = 0;
        let gap = sequence > self.next;
        if sequence >= self.next {
            self.advance(now, sequence, pool);
        }
        let before = sequence.checked_sub(back.into()).filter(|_| back > 0);
        match before.filter(|before| !self.is_settled(*before)) {
            Some(before) => {
                let copy = pool.copy(packet);
                let entry = self.entry(sequence);
                (entry.state, entry.packet) = (State::Held, copy);
                self.entry(before).follower = back;
                self.held += 1;
                (Arrival::Held, gap)
            }
            None => {
                self.settle(sequence);
                (Arrival::Now, gap)
            }
        }
    }

    /// Takes in a packet that was brought back by repair, to be had by [`pop`](Self::pop) when its
    /// turn has come; whether it was of use.
    pub(super) fn insert(
        &mut self,
        now: u64,
        sequence: u64,
        back: u16,
        packet: &[u8],
        pool: &mut Pool,
    ) -> bool {
        // It goes before those that waited for it.
        let at = self.ready.len();
        match self.arrive(now, sequence, back, packet, pool).0 {
            Arrival::Now => {
                self.queue_at(at, packet, pool);
                true
            }
            Arrival::Held => true,
            Arrival::Duplicate | Arrival::Absurd => false,
        }
    }

    /// Packets whose turn has come and that wait for [`pop`](Self::pop).
    pub(super) fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Puts a packet that may be delivered behind the first `at` of those that wait for
    /// [`pop`](Self::pop), before what it released itself.
    pub(super) fn queue_at(&mut self, at: usize, packet: &[u8], pool: &mut Pool) {
        self.ready.insert(at, pool.copy(packet));
    }

    /// Makes room up to `sequence`, the new highest.
    fn advance(&mut self, now: u64, sequence: u64, pool: &mut Pool) {
        while self.next <= sequence {
            if self.next - self.settled == self.window {
                self.give_up_first(pool);
            }
            let next = self.next;
            let entry = self.entry(next);
            (entry.state, entry.follower, entry.missed) = (State::Missing, 0, now);
            self.next += 1;
        }
    }

    /// Settles the lowest number that is not, whatever it takes.
    fn give_up_first(&mut self, _pool: &mut Pool) {
        let first = self.settled;
        if self.entry(first).state == State::Missing {
            self.given_up += 1;
            self.settle(first);
        } else {
            // What is held waits for a lower number, and there is none: a stray reference.
            self.release(first);
        }
    }

    /// A number is done with: whoever waits for it is released, and so on along the chain.
    fn settle(&mut self, sequence: u64) {
        let mut at = sequence;
        loop {
            let entry = self.entry(at);
            entry.state = State::Settled;
            let follower = u64::from(std::mem::take(&mut entry.follower));
            at += follower;
            if follower == 0 || at >= self.next || self.entry(at).state != State::Held {
                break;
            }
            self.hand_out(at);
        }
        while self.settled < self.next {
            let first = self.settled;
            if self.entry(first).state != State::Settled {
                break;
            }
            self.settled += 1;
        }
    }

    fn hand_out(&mut self, sequence: u64) {
        let packet = std::mem::take(&mut self.entry(sequence).packet);
        self.ready.push_back(packet);
        self.held -= 1;
    }

    fn release(&mut self, sequence: u64) {
        self.hand_out(sequence);
        self.settle(sequence);
    }

    /// Gives up what has been missing for longer than `patience`, microseconds.
    pub(super) fn expire(&mut self, now: u64, patience: u64, pool: &mut Pool) {
        while self.settled < self.next {
            let first = self.settled;
            if now < self.entry(first).missed.saturating_add(patience) {
                break;
            }
            self.give_up_first(pool);
        }
    }

    /// Gives up everything that is missing.
    pub(super) fn flush(&mut self, pool: &mut Pool) {
        while self.settled < self.next {
            self.give_up_first(pool);
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn deadline(&self, patience: u64) -> Option<u64> {
        (self.settled < self.next)
            .then(|| self.entries[(self.settled & (self.window - 1)) as usize].missed + patience)
    }

    /// The next packet whose turn has come.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// The runs of what is there and what is missing, from `settled` on.
    pub(super) fn missing(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = self.settled;
        std::iter::from_fn(move || {
            let start = at;
            while at < self.next && !self.is_wanted(at) {
                at += 1;
            }
            let gap = at;
            while at < self.next && self.is_wanted(at) {
                at += 1;
            }
            (at > gap).then_some((gap - start, at - gap))
        })
    }
}

#[cfg(test)]
mod tests;
