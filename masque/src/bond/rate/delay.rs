//! The one-way delay of a path: the least, what a queue adds to it, and what is only jitter.

use super::{Progress, WIRE};

/// Queueing delay at which a path is busy without a doubt, microseconds.
const BUSY: f64 = 1_500.0;
/// So long a path has to have been busy for its rate to be known, microseconds.
const BUSY_SPAN: f64 = 8_000.0;
/// So much later than the least ever is the least of a round where there is no queue, in jitter:
/// measured over normal jitter, in order and not, at rates from 0.5 to 100 Mbit/s.
const BIAS: f64 = 2.5;
/// As much jitter is everywhere, microseconds: timers, other traffic's packets.
const CALM: f64 = 1_000.0;

#[derive(Debug)]
pub(super) struct Delay {
    /// Least one-way delay, by two spans of thirty seconds, and the round's own.
    least: [f64; 2],
    least_since: u64,
    round_least: f64,
    /// The delays of the last two reports.
    before: [f64; 2],
    samples: u32,
    jitter: f64,
    /// Their mean of late, microseconds.
    mean: f64,
    queue: f64,
    /// The round's least above all, and by how much more that was than in the round before, microseconds.
    above: f64,
    grown: f64,
    /// What stayed of a queue when less was sent for long enough: the path's nature, microseconds.
    lasting: f64,
    last: Progress,
    /// Bytes that arrived, and in what time, while the path was never idle: its capacity, however
    /// little is offered.
    busy: (f64, f64),
    was_busy: bool,
}

impl Delay {
    pub(super) fn new() -> Self {
        Self {
            least: [f64::INFINITY; 2],
            least_since: 0,
            round_least: f64::INFINITY,
            before: [0.0; 2],
            samples: 0,
            jitter: 0.0,
            mean: 0.0,
            queue: 0.0,
            above: 0.0,
            grown: 0.0,
            lasting: 0.0,
            last: Progress::default(),
            busy: (0.0, 0.0),
            was_busy: false,
        }
    }

    /// The least, microseconds.
    pub(super) fn least(&self) -> f64 {
        self.least[0].min(self.least[1])
    }

    /// What it is to be reckoned with, a queue and most of what jitter adds included, microseconds.
    pub(super) fn expected(&self) -> f64 {
        if self.is_jittery() { self.mean + self.jitter } else { self.least() + self.queue }
    }

    /// It is this, although none so short was seen yet.
    pub(super) fn expect(&mut self, least: f64) {
        self.least[1] = self.least[1].min(least);
    }

    /// Mean difference of successive delays, microseconds, apart from what a queue that grows or
    /// shrinks explains.
    pub(super) fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Whether delays vary more than they do everywhere.
    pub(super) fn is_jittery(&self) -> bool {
        self.jitter > CALM
    }

    /// How much later than the least ever the least of some time is, without a queue.
    fn bias(&self) -> f64 {
        BIAS * (self.jitter - CALM).max(0.0)
    }

    /// What a queue added in the last round, microseconds.
    pub(super) fn queue(&self) -> f64 {
        self.queue
    }

    /// By how much it grew in the last round, microseconds.
    pub(super) fn grown(&self) -> f64 {
        self.grown.max(0.0)
    }

    /// What is left of a queue is none.
    pub(super) fn accept(&mut self) {
        self.lasting += std::mem::take(&mut self.queue);
    }

    /// `gap` is the time between the sending of this one and of the highest of the last report.
    pub(super) fn note(&mut self, at: Progress, delay: f64, gap: f64) {
        if at.arrived.saturating_sub(self.least_since) > 30_000_000 {
            self.least = [self.least[1], f64::INFINITY];
            self.least_since = at.arrived;
        }
        self.least[1] = self.least[1].min(delay);
        self.round_least = self.round_least.min(delay);
        let [second, first] = self.before;
        self.before = [first, delay];
        self.samples = self.samples.saturating_add(1);
        self.mean += (delay - self.mean) / f64::from(self.samples).min(16.0);
        if self.samples > 2 {
            // Of independent delays the second difference is √3 times as large as the first.
            let bend = (delay - 2.0 * first + second).abs() / 3f64.sqrt();
            self.jitter += (bend - self.jitter) / f64::from(self.samples - 2).min(16.0);
        }
        self.note_busy(at, delay, gap);
    }

    fn note_busy(&mut self, at: Progress, delay: f64, gap: f64) {
        let queue = delay - self.least() - self.bias() - self.lasting;
        let last = std::mem::replace(&mut self.last, at);
        // A packet that waits for nothing but a sleeping receiver is late too: there is a queue only
        // where the next was sent before this one was through.
        let each = gap / at.next.saturating_sub(last.next).max(1) as f64;
        let busy = queue > BUSY + 3.0 * self.jitter && each < queue / 2.0;
        if busy && self.was_busy && at.arrived > last.arrived {
            let got = at.received.saturating_sub(last.received) * WIRE;
            self.busy.0 += (at.bytes.saturating_sub(last.bytes) + got) as f64;
            self.busy.1 += (at.arrived - last.arrived) as f64;
        }
        self.was_busy = busy;
    }

    /// Ends a round: what the path carried while it was busy in it, bytes a second, if it was for
    /// long enough.
    pub(super) fn end_round(&mut self) -> Option<f64> {
        let above = self.round_least - self.least() - self.bias();
        self.grown = above - std::mem::replace(&mut self.above, above);
        self.lasting += (above.max(0.0) - self.lasting).min(0.0) / 8.0;
        self.queue = (above - self.lasting).max(0.0);
        self.round_least = f64::INFINITY;
        let busy = self.busy();
        self.busy = (0.0, 0.0);
        busy
    }

    /// What the path carried while it was busy in this round so far, bytes a second, if it was for
    /// long enough.
    pub(super) fn busy(&self) -> Option<f64> {
        let (bytes, span) = self.busy;
        (span >= BUSY_SPAN).then(|| bytes / span * 1e6)
    }
}
