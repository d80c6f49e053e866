//! How fast a path is sent on: the rate at which packets got through, held against the delay and
//! the loss they met.
//!
//! Loss alone never slows a sender down: what a path loses while less than its capacity is sent (the
//! *floor*) is the path's nature. What it loses beyond that while more is sent, and delay above the
//! least one known, are congestion. Rates are bytes a second on the wire, a datagram's share of
//! UDP, IP and QUIC headers included ([`WIRE`]).

use super::fates::Judged;

mod cruise;
mod delay;
mod startup;

use cruise::{CRUISE_GAIN, Doubt};
use delay::Delay;

/// Bytes around an HTTP Datagram Payload on the wire: IP 20, UDP 8, QUIC header and tag about 28,
/// frame and quarter stream id 4.
pub(super) const WIRE: u64 = 60;

/// The slowest a path is sent on.
const MIN_RATE: f64 = 16_000.0;
/// The queueing delay that is aimed at, at most, microseconds.
const TARGET: f64 = 3_000.0;
/// Rounds over which the best measurement counts.
const FILTER: usize = 10;
/// The share of the rate below which a sender had less to send than it might.
const OFFERED: f64 = 0.85;
/// The share of the rate below which a sender that begins has learned nothing of the path.
const LITTLE: f64 = 0.3;
/// A round lasts at least so long at the receiver, microseconds, and longer where there is jitter.
const MIN_ROUND: f64 = 10_000.0;
/// After so many rounds in which less than the capacity was sent and the queue stayed, it is
/// somebody else's.
const FOREIGN_AFTER: u32 = 4;
/// After so many that is certain.
const CROWDED_AFTER: u32 = 16;
/// Packets of which the loss is judged at least: of few, one lost says nothing.
const ENOUGH: f64 = 60.0;
/// Reports of the last round trip that are kept at first.
const RECENT: usize = 16;

/// What the receiver reported of a path, counters unwrapped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// One above the highest path number it has seen.
    pub(super) next: u64,
    /// Datagrams that arrived.
    pub(super) received: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// When the highest arrived, by its clock, microseconds.
    pub(super) arrived: u64,
    /// What became of datagrams, as far as that is certain.
    pub(super) judged: Judged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Twice as fast each round until no more gets through.
    Startup,
    /// Below what got through, until the queue is gone and the floor is known.
    Drain,
    /// At the capacity.
    Cruise,
}

/// What a round measured.
struct Round {
    /// The share lost, and of how many that were judged.
    loss: f64,
    sent: f64,
    /// What the path is able to carry as far as this round tells, and what it carried while it was busy,
    /// bytes a second without its floor's loss; infinite if it was not.
    sample: f64,
    carried: f64,
    /// Whether less was offered than the path would carry, and so little that it says nothing.
    offered: bool,
    little: bool,
    rtt: f64,
    /// How long it was, seconds.
    span: f64,
}

#[derive(Debug)]
pub(super) struct Rate {
    limit: Option<f64>,
    eager: bool,
    phase: Phase,
    rate: f64,
    /// What a backlog asks for while nothing is known of the path.
    pressed: f64,
    /// The rate at which the packets of the round now measured were sent, and those of the next:
    /// what is reported in a round was sent in the one before.
    measured_rate: f64,
    sending_rate: f64,
    /// When the highest that was reported was sent, by the receiver's clock but for a constant, and
    /// that of the round's begin, microseconds.
    sent_at: f64,
    begin_sent_at: f64,
    /// Rounds in a row, while little was sent, that ended with a queue.
    queued: u32,
    /// Packets whose loss has not been judged yet, and those of them that were lost.
    tally: (f64, f64),
    /// The capacity believed in, and the measurements behind it.
    capacity: f64,
    samples: [f64; FILTER],
    rounds: usize,
    /// The most the path is known to carry; forgotten slowly.
    known: f64,
    floor: Option<f64>,
    begin: Progress,
    end: u64,
    /// Our next number, and what it was when the start ended: of what was sent before, losses tell how it
    /// was sent.
    next: u64,
    slow_from: u64,
    full: f64,
    stalled: u32,
    /// When the reports of late were made, by the receiver's clock, and the bytes that had come.
    recent: [(u64, f64); RECENT],
    reports: usize,
    delay: Delay,
    above_brake: u32,
    above_target: u32,
    cycle: u32,
    probes: u32,
    suspect: Option<(f64, f64)>,
    doubt: Option<Doubt>,
    /// What got through lately, over some rounds.
    mean_delivery: f64,
    delivery: f64,
    loss: f64,
    /// What had become of datagrams when the capacity was found, and the mean length of a run of
    /// losses since.
    since: Judged,
    burst: f64,
    /// What it was found to lose by its nature, until somebody asks.
    settled: Option<f64>,
}

impl Rate {
    /// `first` is where to begin, `limit` a declared cap, both bytes a second.
    pub(super) fn new(first: f64, limit: Option<f64>) -> Self {
        let rate = first.max(MIN_RATE).min(limit.unwrap_or(f64::INFINITY));
        Self {
            limit,
            eager: false,
            phase: Phase::Startup,
            rate,
            pressed: 0.0,
            measured_rate: rate,
            sending_rate: rate,
            sent_at: 0.0,
            begin_sent_at: 0.0,
            queued: 0,
            tally: (0.0, 0.0),
            capacity: 0.0,
            samples: [0.0; FILTER],
            rounds: 0,
            known: 0.0,
            floor: None,
            begin: Progress::default(),
            end: 0,
            next: 0,
            slow_from: 0,
            full: 0.0,
            stalled: 0,
            recent: [(0, 0.0); RECENT],
            reports: 0,
            delay: Delay::new(),
            above_brake: 0,
            above_target: 0,
            cycle: 0,
            probes: 0,
            suspect: None,
            doubt: None,
            mean_delivery: 0.0,
            delivery: 0.0,
            loss: 0.0,
            since: Judged::default(),
            burst: 1.0,
            settled: None,
        }
    }

    /// A path on which `carried` bytes a second are all that goes through, and queue.
    pub(super) fn full(carried: f64, limit: Option<f64>) -> Self {
        let mut rate = Self::new(carried, limit);
        (rate.full, rate.capacity) = (rate.rate, rate.rate);
        rate.end_startup();
        rate
    }

    /// What the least one-way delay is, microseconds, although none so short was seen yet.
    pub(super) fn expect_delay(&mut self, least: f64) {
        self.delay.expect(least);
    }

    /// What the path is likely to lose, although nothing was reported of it yet.
    pub(super) fn expect_loss(&mut self, share: f64) {
        self.loss = self.loss.max(share);
    }

    /// No more than the declared cap.
    fn within_limit(&self, rate: f64) -> f64 {
        rate.min(self.limit.unwrap_or(f64::INFINITY))
    }

    /// Bytes a second to let out.
    pub(super) fn rate(&self) -> f64 {
        if self.is_starting() { self.rate.max(self.pressed) } else { self.rate }
    }

    /// Goes on after a while without reports in which `carried` bytes a second got through, if there is
    /// anything to go on from: what the path loses by its nature may be another share now.
    pub(super) fn resume(&mut self, carried: f64) -> bool {
        if self.phase != Phase::Cruise {
            return false;
        }
        (self.end, self.floor, self.tally) = (0, None, (0.0, 0.0));
        (self.suspect, self.doubt) = (None, None);
        (self.above_target, self.above_brake, self.probes, self.cycle) = (0, 0, 0, 2);
        self.remember(self.capacity.max(carried), true);
        self.rate = self.within_limit(self.capacity * CRUISE_GAIN);
        (self.measured_rate, self.sending_rate) = (self.rate, self.rate);
        true
    }

    /// Whether the queue stays for so long that it is somebody else's without a doubt.
    pub(super) fn is_crowded(&self) -> bool {
        self.phase == Phase::Cruise && self.above_target > CROWDED_AFTER
    }

    /// What got through last, bytes a second.
    pub(super) fn delivery(&self) -> f64 {
        self.delivery
    }

    /// Loss lately, 0 to 1.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// What the path loses by its nature, once, when its capacity has been found: what it lost before
    /// says more of how that was looked for.
    pub(super) fn take_settled(&mut self) -> Option<f64> {
        self.settled.take()
    }

    /// Queueing delay, microseconds.
    pub(super) fn queue(&self) -> f64 {
        self.delay.queue()
    }

    /// Mean difference of successive one-way delays, microseconds.
    pub(super) fn jitter(&self) -> f64 {
        self.delay.jitter()
    }

    /// Whether delays vary more than they do everywhere.
    pub(super) fn is_jittery(&self) -> bool {
        self.delay.is_jittery()
    }

    /// One-way delay that is to be reckoned with, microseconds, by a clock of which only differences
    /// mean anything.
    pub(super) fn expected_delay(&self) -> f64 {
        self.delay.expected()
    }

    /// The peer reported; `delay` is the one-way delay of the highest, `next` our next number,
    /// `rtt` the least round trip, all microseconds.
    pub(super) fn on_report(&mut self, at: Progress, delay: f64, next: u64, rtt: f64) {
        let sent_at = at.arrived as f64 - delay;
        let gap = sent_at - std::mem::replace(&mut self.sent_at, sent_at);
        self.delay.note(at, delay, gap);
        self.next = next;
        if self.is_eager() {
            self.speed_up(at, rtt);
        }
        if self.phase == Phase::Drain {
            self.refill(at, next, rtt);
        }
        if self.end == 0 {
            (self.begin, self.end, self.begin_sent_at) = (at, next, sent_at);
            return;
        }
        let age = at.arrived.saturating_sub(self.begin.arrived) as f64;
        let long = age >= MIN_ROUND + 4.0 * self.delay.jitter();
        if at.next >= self.end && long && at.next > self.begin.next + 4 {
            self.round(at, next, rtt);
        }
    }

    fn round(&mut self, at: Progress, next: u64, rtt: f64) {
        let sent_span = ((self.sent_at - self.begin_sent_at) / 1e6).max(1e-3);
        let span = (at.arrived - self.begin.arrived) as f64 / 1e6;
        // What jitter brings closer together than it was sent does not show what the path carries.
        let span = if self.delay.is_jittery() { span.max(sent_span) } else { span };
        let sent = (at.next - self.begin.next) as f64;
        let got = (at.received.saturating_sub(self.begin.received)) as f64;
        let bytes = at.bytes.saturating_sub(self.begin.bytes) as f64 + got * WIRE as f64;
        let judged = (at.judged.sent - self.begin.judged.sent) as f64;
        let lost = (at.judged.lost - self.begin.judged.lost) as f64;
        let loss = if judged > 0.0 { lost / judged } else { self.loss };
        self.delivery = bytes / span;
        self.mean_delivery += (self.delivery - self.mean_delivery) / 4.0;
        self.loss += (loss - self.loss)
            * if judged > 0.0 { (judged / 1_000.0).clamp(0.02, 0.5) } else { 0.0 };
        let busy = self.delay.end_round();
        let slots = if got > 0.0 { bytes / got * sent / span } else { 0.0 };
        let mean = if got > 0.0 { bytes / got } else { 0.0 };
        let asked = sent * mean / sent_span;
        let jittery = self.delay.is_jittery();
        // So little was sent that what got through says what was offered, not what would go: with no
        // queue, or with one that stays whatever is sent. Where delays vary, more arrives in one round
        // and less in another.
        let calm = self.queue() <= self.target(rtt);
        let little_asked = asked < OFFERED * self.measured_rate;
        let offered = if jittery {
            little_asked
        } else {
            slots < OFFERED * self.measured_rate
                && (calm || self.above_target > FOREIGN_AFTER && little_asked)
        };
        let pass = (1.0 - self.floor.unwrap_or(loss)).max(0.2);
        let sample = slots.min(self.delivery / pass);
        // What makes no queue gets through, whenever it arrives.
        let stretched = sent_span / (sent_span + self.delay.grown() / 1e6);
        let through = (asked * (1.0 - loss) / pass).min(asked) * stretched;
        let sample = if jittery && calm { sample.max(through) } else { sample };
        // Of so little it cannot be said what more would have met.
        let little = asked < LITTLE * self.measured_rate;
        match self.phase {
            Phase::Cruise => self.burst = at.judged.burst_since(&self.since).unwrap_or(self.burst),
            Phase::Startup | Phase::Drain => self.since = at.judged,
        }
        let carried = busy.map_or(f64::INFINITY, |busy| busy / pass);
        let round = Round { loss, sent: judged, sample, carried, offered, little, rtt, span };
        match self.phase {
            Phase::Startup => self.startup(&round, busy),
            Phase::Drain => self.drain(loss, judged, rtt),
            Phase::Cruise => self.cruise(&round),
        }
        self.known = self.known.max(self.capacity) * 0.9995;
        (self.begin, self.end) = (at, next.max(at.next + 1));
        self.begin_sent_at = self.sent_at;
        self.rounds += 1;
        self.rate = self.within_limit(self.rate.max(MIN_RATE));
        self.measured_rate = std::mem::replace(&mut self.sending_rate, self.rate);
    }

    /// Adds a round to those whose loss is yet to be judged: their number and share lost, once
    /// there are enough.
    fn judged(&mut self, loss: f64, sent: f64, enough: f64) -> Option<(f64, f64)> {
        self.tally = (self.tally.0 + sent, self.tally.1 + loss * sent);
        (self.tally.0 >= enough).then(|| {
            let (sent, lost) = std::mem::take(&mut self.tally);
            (sent, lost / sent)
        })
    }

    fn drain(&mut self, loss: f64, sent: f64, rtt: f64) {
        self.stalled += 1;
        if self.measured_rate > self.full || self.queue() > self.target(rtt) && self.stalled < 8 {
            return;
        }
        if self.begin.judged.sent < self.slow_from {
            return;
        }
        let Some((_, loss)) = self.judged(loss, sent, ENOUGH) else { return };
        (self.floor, self.settled) = (Some(loss), Some(loss));
        self.capacity = self.full / (1.0 - loss).max(0.2);
        self.samples = [0.0; FILTER];
        self.samples[self.rounds % FILTER] = self.capacity;
        (self.phase, self.rate, self.cycle) = (Phase::Cruise, self.capacity * 0.97, 2);
    }

    /// The delay above which a sender gives way.
    fn brake(&self, rtt: f64) -> f64 {
        10_000.0 + rtt / 2.0 + 4.0 * self.delay.jitter()
    }

    fn target(&self, rtt: f64) -> f64 {
        TARGET.min(1_000.0 + rtt / 20.0) + 3.0 * self.delay.jitter()
    }
}

#[cfg(test)]
mod tests;
