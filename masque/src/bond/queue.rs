//! Packets that wait for a path: a queue a flow, served in turn, flows that send little first, and
//! CoDel in each (RFC 8290, RFC 8289). Congestion is signalled here, before packets are numbered,
//! so that repair never hides it.

use std::collections::VecDeque;

use super::classify;
use super::pool::Pool;

/// Queues; flows that share one share its order too.
const BUCKETS: usize = 256;
/// Bytes a flow may send before it is another's turn.
const QUANTUM: i32 = 1_514;
/// Over this time a flow's rate is measured, microseconds.
const RATE_SPAN: u64 = 100_000;
/// A flow that sends no more than this in [`RATE_SPAN`] is sparse: 512 kbit/s.
const SPARSE_BYTES: u32 = 6_400;
/// The most packets that wait, however small they are.
const MAX_PACKETS: usize = 4_096;
/// Packets shed at once when the whole queue is too long.
const SHED: usize = 16;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    packet: Vec<u8>,
    at: u64,
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Idle,
    New,
    Old,
}

#[derive(Debug, Clone)]
struct Bucket {
    head: u32,
    tail: u32,
    bytes: u32,
    deficit: i32,
    turn: Turn,
    above_since: u64,
    drop_next: u64,
    drops: u32,
    dropping: bool,
    recent: u32,
    recent_since: u64,
    before: u32,
    last: Option<u64>,
}

impl Bucket {
    const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        bytes: 0,
        deficit: 0,
        turn: Turn::Idle,
        above_since: 0,
        drop_next: 0,
        drops: 0,
        dropping: false,
        recent: 0,
        recent_since: 0,
        before: 0,
        last: None,
    };

    /// Counts a packet and says whether the flow sends little.
    fn is_sparse(&mut self, now: u64, len: usize) -> bool {
        let age = now.saturating_sub(self.recent_since);
        if age >= RATE_SPAN {
            self.before = if age < 2 * RATE_SPAN { self.recent } else { 0 };
            (self.recent, self.recent_since) = (0, now);
        }
        self.recent = self.recent.saturating_add(len as u32);
        self.recent.max(self.before) <= SPARSE_BYTES
    }
}

/// A packet whose turn it is.
pub(super) struct Popped {
    pub(super) packet: Vec<u8>,
    pub(super) bucket: usize,
    pub(super) sparse: bool,
    /// How long it waited, microseconds.
    pub(super) waited: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    seed: u64,
    max_bytes: usize,
    buckets: Vec<Bucket>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    new: VecDeque<u16>,
    old: VecDeque<u16>,
    pub(super) bytes: usize,
    pub(super) packets: usize,
    pub(super) drops: u64,
    pub(super) marks: u64,
}

impl Queue {
    pub(super) fn new(seed: u64, max_bytes: usize) -> Self {
        Self {
            seed,
            max_bytes,
            buckets: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            bytes: 0,
            packets: 0,
            drops: 0,
            marks: 0,
        }
    }

    /// Takes a packet in; those of the flow with the most make room for it. `false` if it could never
    /// fit.
    pub(super) fn push(&mut self, now: u64, packet: &[u8], pool: &mut Pool) -> bool {
        if packet.len() > self.max_bytes {
            return false;
        }
        if self.buckets.is_empty() {
            self.buckets.resize(BUCKETS, Bucket::EMPTY);
        }
        let is_full = |q: &Self| {
            q.bytes + packet.len() > q.max_bytes && q.packets > 0 || q.packets >= MAX_PACKETS
        };
        while is_full(self) {
            self.shed(pool);
        }
        let at = classify::flow(packet, self.seed) as usize % BUCKETS;
        let slot = Slot { packet: pool.copy(packet), at: now, next: NONE };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        let bucket = &mut self.buckets[at];
        match bucket.tail {
            NONE => bucket.head = index,
            tail => self.slots[tail as usize].next = index,
        }
        bucket.tail = index;
        bucket.bytes += packet.len() as u32;
        if bucket.turn == Turn::Idle {
            (bucket.turn, bucket.deficit) = (Turn::New, QUANTUM);
            self.new.push_back(at as u16);
        }
        self.bytes += packet.len();
        self.packets += 1;
        true
    }

    /// Drops from the head of the longest queue.
    fn shed(&mut self, pool: &mut Pool) {
        let longest = self.buckets.iter().enumerate().max_by_key(|(_, b)| b.bytes);
        let Some((at, _)) = longest else { return };
        for _ in 0..SHED {
            let Some((packet, _)) = self.take(at) else { return };
            pool.put(packet);
            self.drops += 1;
        }
    }

    fn take(&mut self, at: usize) -> Option<(Vec<u8>, u64)> {
        let bucket = &mut self.buckets[at];
        let index = bucket.head;
        let slot = self.slots.get_mut(index as usize)?;
        let packet = std::mem::take(&mut slot.packet);
        bucket.head = slot.next;
        if bucket.head == NONE {
            bucket.tail = NONE;
        }
        bucket.bytes -= packet.len() as u32;
        self.free.push(index);
        self.bytes -= packet.len();
        self.packets -= 1;
        Some((packet, slot.at))
    }

    /// The next packet, if one waits. `target` is how long packets of a flow may wait on average,
    /// `interval` how long a flow gets to react, microseconds.
    pub(super) fn pop(
        &mut self,
        now: u64,
        target: u64,
        interval: u64,
        pool: &mut Pool,
    ) -> Option<Popped> {
        loop {
            let new = !self.new.is_empty();
            let at = usize::from(*if new { self.new.front()? } else { self.old.front()? });
            if self.buckets[at].deficit <= 0 {
                self.buckets[at].deficit += QUANTUM;
                self.rotate(new, Turn::Old);
                continue;
            }
            let Some((packet, since)) = self.codel(at, now, target, interval, pool) else {
                // A flow that empties in its first turn waits a round, so that it cannot starve
                // the others by coming anew each time.
                let turn = if new && !self.old.is_empty() { Turn::Old } else { Turn::Idle };
                self.rotate(new, turn);
                continue;
            };
            let bucket = &mut self.buckets[at];
            bucket.deficit -= packet.len() as i32;
            let sparse = bucket.is_sparse(now, packet.len());
            return Some(Popped { packet, bucket: at, sparse, waited: now.saturating_sub(since) });
        }
    }

    fn rotate(&mut self, new: bool, turn: Turn) {
        let list = if new { &mut self.new } else { &mut self.old };
        let Some(at) = list.pop_front() else { return };
        self.buckets[usize::from(at)].turn = turn;
        if turn == Turn::Old {
            self.old.push_back(at);
        }
    }

    fn codel(
        &mut self,
        at: usize,
        now: u64,
        target: u64,
        interval: u64,
        pool: &mut Pool,
    ) -> Option<(Vec<u8>, u64)> {
        loop {
            let (mut packet, since) = self.take(at)?;
            let bucket = &mut self.buckets[at];
            let below = now.saturating_sub(since) < target || bucket.bytes <= QUANTUM as u32;
            if below {
                (bucket.above_since, bucket.dropping) = (0, false);
                return Some((packet, since));
            }
            if bucket.above_since == 0 {
                bucket.above_since = now.max(1);
            }
            let due = match bucket.dropping {
                true => now >= bucket.drop_next,
                false => now >= bucket.above_since + interval,
            };
            if !due {
                return Some((packet, since));
            }
            if bucket.dropping {
                bucket.drops += 1;
            } else {
                let lately = now < bucket.drop_next + 16 * interval;
                bucket.drops = if lately && bucket.drops > 2 { bucket.drops - 2 } else { 1 };
                bucket.dropping = true;
            }
            bucket.drop_next = now + (interval as f64 / f64::from(bucket.drops).sqrt()) as u64;
            if classify::mark_ce(&mut packet) {
                self.marks += 1;
                return Some((packet, since));
            }
            pool.put(packet);
            self.drops += 1;
        }
    }

    /// Flows that wait.
    pub(super) fn flows(&self) -> usize {
        self.new.len() + self.old.len()
    }

    /// The number of the last packet of a bucket; then `sequence` is the last.
    pub(super) fn follow(&mut self, bucket: usize, sequence: u64) -> Option<u64> {
        self.buckets[bucket].last.replace(sequence)
    }
}

#[cfg(test)]
mod tests;
