//! How a path is begun on: faster each round until no more gets through, or at once what waits.

use super::{FOREIGN_AFTER, MIN_ROUND, Phase, Progress, RECENT, Rate, Round, WIRE};

/// How much faster than what got through is sent at first.
const STARTUP_GAIN: f64 = 2.5;
/// How much faster than what got through, at most, a backlog is let out at first; and how much of one
/// in [`PRESS_WITHIN`] before anything got through, bytes: what some flows begin with.
const PRESS_GAIN: f64 = 16.0;
const PRESS_FIRST: f64 = 65_536.0;
/// The share of a round trip in which a backlog is to be gone: half of the delay at which HyStart ends a
/// flow's start.
const PRESS_WITHIN: f64 = 1.0 / 16.0;
/// Jitter from which on no backlog is let out faster while there are other paths, microseconds.
const PRESS_JITTER: f64 = 3_000.0;
/// The same of an eager path, and how much closer together its packets may follow each other then: a
/// flow that fills several paths doubles what it sends each round trip, in trains, and takes them
/// for full as soon as its packets queue here.
const EAGER_GAIN: f64 = 2.5;
const EAGER_PACE: f64 = 1.6;

/// So much more is lost, of so many packets at least, where more is sent than a path takes: not by
/// chance where losses come in bursts of five.
const OVERFLOW: f64 = 0.2;
const OVERFLOW_OF: f64 = 256.0;

impl Rate {
    /// `backlog` bytes wait, which are to be gone in a part of a round trip of `rtt` microseconds as long
    /// as the path shows no queue: flows that begin slow themselves down, and take a wait here for the
    /// path's end (RFC 9406).
    pub(in crate::bond) fn press(&mut self, backlog: f64, rtt: f64) {
        // What queues shortly is not told from jitter; several flows at several paths overdo it then.
        let blind = self.eager && self.delay.jitter() > PRESS_JITTER;
        if self.is_starting() {
            let each = 1e6 / (rtt.max(1_000.0) * PRESS_WITHIN);
            let most = if self.queued == 0 && !blind {
                (PRESS_GAIN * self.delivery).max(PRESS_FIRST * each)
            } else {
                0.0
            };
            self.pressed = self.within_limit((backlog * each).min(most));
        }
    }

    /// Bytes a second at which packets may follow each other.
    pub(in crate::bond) fn pace(&self) -> f64 {
        let gain = if self.is_eager() { EAGER_PACE } else { 1.0 };
        self.within_limit(self.rate() * gain)
    }

    /// Whether what the path carries is yet to be found.
    pub(in crate::bond) fn is_starting(&self) -> bool {
        self.phase == Phase::Startup
    }

    /// Whether it is, and goes by each report.
    pub(in crate::bond) fn is_eager(&self) -> bool {
        self.eager && self.is_starting()
    }

    /// There are other paths: a flow is to find what all of them carry before it has stopped growing.
    pub(in crate::bond) fn hurry(&mut self) {
        (self.eager, self.pressed) = (true, 0.0);
    }

    /// Another path died, and this one is to carry what it did: where nothing better is known, that
    /// is tried.
    pub(in crate::bond) fn step_in(&mut self, rate: f64) {
        if self.phase == Phase::Startup {
            self.rate = self.within_limit(self.rate.max(rate));
        }
    }

    /// Goes on from what got through in the last round trip.
    pub(super) fn speed_up(&mut self, at: Progress, rtt: f64) {
        let bytes = at.bytes as f64 + (at.received * WIRE) as f64;
        // A train that was held up tells enough, before packets queue for good.
        if let Some(busy) = self.plausible(self.delay.busy()) {
            self.full = busy;
            return self.end_startup();
        }
        let kept = self.reports.min(RECENT);
        let before = |n: usize| self.recent[(self.reports - n) % RECENT];
        let whole = |n: &usize| at.arrived.saturating_sub(before(*n).0) as f64 >= rtt;
        if let Some(n) = (1..=kept).find(whole).or((kept > 0).then_some(kept)) {
            let (since, had) = before(n);
            let span = (at.arrived.saturating_sub(since) as f64).max(rtt).max(MIN_ROUND);
            if !self.delay.is_jittery() {
                self.rate = self.rate.max(EAGER_GAIN * (bytes - had) / span * 1e6);
            }
        }
        self.recent[self.reports % RECENT] = (at.arrived, bytes);
        self.reports += 1;
    }

    pub(super) fn startup(&mut self, round: &Round, busy: Option<f64>) {
        let Round { loss, sent, offered, little, rtt, .. } = *round;
        if self.delivery > self.full * 1.25 {
            (self.full, self.stalled) = (self.full.max(self.delivery), 0);
        } else if !little && (!offered || self.queue() > self.target(rtt)) {
            self.stalled += 1;
        }
        self.full = self.full.max(self.delivery);
        self.capacity = self.full;
        if self.overflows(loss, sent) {
            self.full = self.delivery.max(self.full / 2.0);
            return self.end_startup();
        }
        let doubtful = if self.delay.is_jittery() { 1.0 } else { 2.0 };
        let queued = self.queue() > self.brake(rtt) / doubtful;
        self.queued = if queued { self.queued + 1 } else { 0 };
        if little && self.queued < FOREIGN_AFTER {
            return;
        }
        let busy = self.plausible(busy);
        self.full = busy.unwrap_or(self.full);
        if self.stalled >= 2 || busy.is_some() || queued && self.full > 0.0 {
            self.end_startup();
        } else {
            self.rate = self.rate.max(STARTUP_GAIN * self.delivery);
        }
    }

    /// Whether much more is lost than was at a lower rate: a queue overflows that is too short to be
    /// noticed, or hidden by jitter.
    fn overflows(&mut self, loss: f64, sent: f64) -> bool {
        let Some((_, loss)) = self.judged(loss, sent, OVERFLOW_OF) else { return false };
        let least = self.floor.map_or(loss, |floor| floor.min(loss));
        self.floor = Some(least);
        loss > least + OVERFLOW
    }

    /// What the path carried while it was busy, if that is less than what is sent, and no less than
    /// it has carried.
    fn plausible(&self, busy: Option<f64>) -> Option<f64> {
        busy.filter(|busy| {
            self.rate > *busy * 1.2 && *busy > self.full * 0.7 && !self.delay.is_jittery()
        })
    }

    /// Goes on as soon as no more is on its way than fills the path: what is reported of the queue is
    /// a round trip old.
    pub(super) fn refill(&mut self, at: Progress, next: u64, rtt: f64) {
        let mean = at.bytes as f64 / at.received.max(1) as f64 + WIRE as f64;
        let flight = next.saturating_sub(at.next) as f64 * mean;
        if flight <= self.full * rtt / 1e6 {
            self.rate = self.within_limit(self.full);
        }
    }

    pub(super) fn end_startup(&mut self) {
        self.phase = Phase::Drain;
        // What is on its way was sent faster, whatever the round began with, and may yet be lost to it.
        self.sending_rate = self.sending_rate.max(self.rate);
        self.measured_rate = self.measured_rate.max(self.rate);
        self.rate = self.full * 0.75;
        (self.stalled, self.tally, self.slow_from) = (0, (0.0, 0.0), self.next);
    }
}
