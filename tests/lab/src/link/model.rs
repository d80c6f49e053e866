//! The pure heart of the emulator: what becomes of each packet.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use super::rng::{Purpose, Rng};
use super::spec::{Direction, Jitter, LinkSpec, Loss};
use super::trace::TraceRate;

/// Room for this many waiting packets is made in advance.
const QUEUE_ROOM: usize = 16_384;
/// The most rows of a trace one packet's serialisation may span before it counts as never sent.
const SPANS_MAX: usize = 100_000;

/// What becomes of a packet. Times are those of [`Link::handle_packet`]'s `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Drop(DropReason),
    /// It arrives at this time.
    Deliver(u64),
    /// It arrives at both times.
    DeliverTwice(u64, u64),
    /// It is dropped, and the sender is told by ICMP that so many bytes would have passed.
    TooBig(usize),
}

/// Why a packet never arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// By chance.
    Loss,
    /// Its tail did not fit the queue.
    Queue,
    /// Everything is dropped.
    Blackhole,
    /// It is longer than the MTU hole.
    Hole,
}

/// One direction of a link. Time and packet numbers come from outside; the random part of packet
/// N's fate (loss, duplication, jitter) depends on the seed, the direction and N alone.
#[derive(Debug, Clone)]
pub struct Link {
    spec: LinkSpec,
    rng: Rng,
    /// When each waiting packet will have been sent, and its length.
    waiting: VecDeque<(u64, u64)>,
    backlog: u64,
    busy_until: u64,
    last_delivery: u64,
    /// The Gilbert–Elliott state before packet `state_of`.
    bad: bool,
    state_of: u64,
}

impl Link {
    /// A link that begins at time 0.
    #[must_use]
    pub fn new(spec: LinkSpec, seed: u64, direction: Direction) -> Self {
        let seed = match direction {
            Direction::Up => seed,
            Direction::Down => !seed,
        };
        Self {
            spec,
            rng: Rng::new(seed),
            waiting: VecDeque::with_capacity(QUEUE_ROOM),
            backlog: 0,
            busy_until: 0,
            last_delivery: 0,
            bad: false,
            state_of: 0,
        }
    }

    /// What the link does.
    #[must_use]
    pub fn spec(&self) -> &LinkSpec {
        &self.spec
    }

    /// Changes what the link does to packets from now on. What waits already keeps its times.
    pub fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    /// The bytes that wait for serialisation, the packet in service included, as of the last
    /// packet handled.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// Decides the fate of packet number `n` (counted from 0 in this direction, ascending) of
    /// `len` bytes that arrives at `now`, in nanoseconds, never descending.
    pub fn handle_packet(&mut self, now: u64, n: u64, len: usize) -> Fate {
        let row = self.spec.trace.as_ref().map(|trace| trace.at(now).0);
        let loss = row.and_then(|row| row.loss).unwrap_or(self.spec.loss);
        let lost = self.is_lost(n, loss);
        if let Some(hole) = self.spec.mtu_hole
            && len > hole.mtu
        {
            return if hole.answers {
                Fate::TooBig(hole.mtu)
            } else {
                Fate::Drop(DropReason::Hole)
            };
        }
        if self.spec.blackhole {
            return Fate::Drop(DropReason::Blackhole);
        }
        let delay = row.and_then(|row| row.delay).unwrap_or(nanos(self.spec.delay));
        let Some(sent) = self.serialise(now, len as u64, delay) else {
            return Fate::Drop(DropReason::Queue);
        };
        if lost {
            return Fate::Drop(DropReason::Loss);
        }
        let first = self.arrival(sent, delay, n, Purpose::Jitter, Purpose::Angle);
        if !self.rng.chance(n, Purpose::Duplicate, self.spec.duplicate) {
            return Fate::Deliver(first);
        }
        let (radius, angle) = (Purpose::JitterOfDuplicate, Purpose::AngleOfDuplicate);
        Fate::DeliverTwice(first, self.arrival(sent, delay, n, radius, angle))
    }

    fn is_lost(&mut self, n: u64, loss: Loss) -> bool {
        let chance = match loss {
            Loss::None => return false,
            Loss::Random(p) => p,
            Loss::GilbertElliott(model) => {
                // The chain takes one step a packet, also for numbers it never saw.
                while self.state_of <= n {
                    let change = if self.bad { model.recover } else { model.fail };
                    self.bad ^= self.rng.chance(self.state_of, Purpose::State, change);
                    self.state_of += 1;
                }
                if self.bad { model.bad_loss } else { model.good_loss }
            }
        };
        self.rng.chance(n, Purpose::Loss, chance)
    }

    /// When the packet will have been sent; `None` if the queue cannot take it.
    fn serialise(&mut self, now: u64, len: u64, delay: u64) -> Option<u64> {
        while let Some(&(sent, length)) = self.waiting.front()
            && sent <= now
        {
            self.backlog -= length;
            self.waiting.pop_front();
        }
        let rate = self.rate_at(now).0;
        if rate == TraceRate::Bits(0) && self.waiting.is_empty() {
            return Some(now);
        }
        let nominal = match rate {
            TraceRate::Bits(rate) if rate > 0 => rate,
            _ => self.spec.rate,
        };
        let limit = self.spec.queue.bytes(nominal, Duration::from_nanos(delay));
        if !self.waiting.is_empty() && self.backlog + len > limit {
            return None;
        }
        let sent = self.sent_at(self.busy_until.max(now), len)?;
        self.busy_until = sent;
        self.backlog += len;
        self.waiting.push_back((sent, len));
        Some(sent)
    }

    /// When `len` bytes will have been sent that begin at `start`; `None` if never.
    fn sent_at(&self, start: u64, len: u64) -> Option<u64> {
        let (mut at, mut bits) = (start, len as f64 * 8.0);
        for _ in 0..SPANS_MAX {
            let (rate, end) = self.rate_at(at);
            let per_ns = match rate {
                TraceRate::Bits(0) => return Some(at),
                TraceRate::Bits(rate) => rate as f64 / 1e9,
                TraceRate::Stall => 0.0,
            };
            let room = end.map_or(f64::INFINITY, |end| (end - at) as f64 * per_ns);
            if per_ns > 0.0 && bits <= room {
                return Some(at + (bits / per_ns).round() as u64);
            }
            bits -= room;
            at = end?;
        }
        None
    }

    /// The rate at a time, and when it may change.
    fn rate_at(&self, now: u64) -> (TraceRate, Option<u64>) {
        let own = TraceRate::Bits(self.spec.rate);
        match &self.spec.trace {
            None => (own, None),
            Some(trace) => {
                let (row, end) = trace.at(now);
                (row.rate.unwrap_or(own), end)
            }
        }
    }

    fn arrival(&mut self, sent: u64, delay: u64, n: u64, radius: Purpose, angle: Purpose) -> u64 {
        let jitter = match self.spec.jitter {
            Jitter::None => 0.0,
            Jitter::Uniform(spread) => {
                nanos(spread) as f64 * (2.0 * self.rng.uniform(n, radius) - 1.0)
            }
            Jitter::Normal(deviation) => {
                nanos(deviation) as f64 * self.rng.normal(n, radius, angle)
            }
        };
        let at = sent + (delay as f64 + jitter).max(0.0) as u64;
        if self.spec.reorder {
            return at;
        }
        self.last_delivery = self.last_delivery.max(at);
        self.last_delivery
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
