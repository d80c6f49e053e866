//! A path whose capacity is known: held at it, probed for more, given way to others on it.

use super::{ENOUGH, FILTER, FOREIGN_AFTER, MIN_RATE, Rate, Round};

/// Rounds between two probes for more capacity.
const PROBE_EVERY: u32 = 8;
/// A path that carried less than was believed, while it was busy, but no less than this share of it,
/// has no rival: the belief was wrong.
const MISSED: f64 = 0.85;
/// The share of the capacity that is sent at between two probes.
pub(super) const CRUISE_GAIN: f64 = 0.99;
/// The share of what got through that is sent at to see whether a queue shrinks.
const DOUBT_GAIN: f64 = 0.85;
/// The share of the capacity once known that is not given up to a rival.
const FAIR_SHARE: f64 = 0.5;

/// A queue that may be the path's nature, where delays vary.
#[derive(Debug)]
pub(super) struct Doubt {
    /// How much of it is to be gone yet, with less sent, before the rest is taken for that, microseconds.
    left: f64,
    /// What got through while it stood, bytes a second.
    carried: f64,
}

impl Rate {
    pub(super) fn cruise(&mut self, round: &Round) {
        let Round { loss, sent, sample, carried, offered, little, rtt, span } = *round;
        let floor = self.floor.unwrap_or(loss);
        let judged = self.judged(loss, sent, ENOUGH);
        // Losses in bursts of mean length b scatter √(2b − 1) times as far as independent ones.
        let spread = 2.0 * self.burst - 1.0;
        let noise = |of: f64, sent: f64| (spread * of.max(0.003) * (1.0 - of) / sent).sqrt();
        let excess =
            judged.is_some_and(|(sent, loss)| loss - floor > 0.01 + 3.0 * noise(floor, sent));
        let below = self.measured_rate <= self.capacity;
        self.above_target = if self.queue() > self.target(rtt) { self.above_target + 1 } else { 0 };
        self.above_brake = if self.queue() > self.brake(rtt) { self.above_brake + 1 } else { 0 };
        if !excess || self.suspect.is_some() {
            self.learn_floor(loss, sent, below);
        }
        if let Some((before, lost)) = self.suspect
            && self.measured_rate < before * 0.93
            && let Some((sent, loss)) = judged
        {
            // Less was sent. If as much was lost, sending less does not help.
            self.suspect = None;
            if loss > lost * 0.6 - noise(lost, sent) && self.above_target == 0 {
                self.floor = Some(loss);
                self.remember(before, true);
                self.rate = self.capacity * 0.97;
                return;
            }
        }
        if excess && self.suspect.is_none() && !offered {
            self.suspect = Some((self.capacity, judged.map_or(loss, |(_, loss)| loss)));
            self.remember(self.delivery / (1.0 - floor).max(0.2), true);
            (self.rate, self.cycle, self.probes) = (self.capacity * 0.9, 1, 0);
            return;
        }
        let missed = carried < self.capacity && carried > self.capacity * MISSED;
        if self.above_target > 0 && self.measured_rate > carried && missed {
            self.remember(carried, true);
        } else if !offered || sample > self.capacity {
            self.remember(sample, false);
        }
        let jittery = self.delay.is_jittery();
        if !jittery {
            self.doubt = None;
        }
        if jittery {
            if !self.doubts(span) {
                self.probe(sample, offered);
            }
        } else if self.above_brake >= 3 && !little {
            self.give_way(sample);
        } else if self.above_brake >= 3 {
            // A sender of so little makes no queue, and what it sends says nothing of the path.
            self.above_brake = 0;
        } else if self.above_target > FOREIGN_AFTER {
            let fair = self.known * FAIR_SHARE;
            self.rate = self.rate.max(fair).min(self.capacity.max(fair));
        } else if self.above_target > 0 {
            (self.rate, self.cycle, self.probes) = (self.capacity * 0.94, 1, 0);
        } else {
            self.probe(sample, offered);
        }
    }

    /// Where delays vary, a queue is one only if it shrinks as less is sent: whether that is being tried.
    fn doubts(&mut self, span: f64) -> bool {
        // One round says little.
        if self.above_target < 2 {
            if let Some(doubt) = self.doubt.take() {
                // It was one: no more got through than did while it lasted.
                self.remember(doubt.carried, true);
            }
            return false;
        }
        (self.above_brake, self.cycle, self.probes) = (0, 1, 0);
        let Some(doubt) = &mut self.doubt else {
            self.rate = self.mean_delivery * DOUBT_GAIN;
            self.doubt = Some(Doubt { left: self.queue(), carried: self.mean_delivery });
            return true;
        };
        doubt.left -= span * 1e6 * (1.0 - DOUBT_GAIN);
        if doubt.left <= 0.0 {
            self.delay.accept();
            (self.doubt, self.above_target) = (None, 0);
            self.rate = self.capacity * CRUISE_GAIN;
        }
        true
    }

    fn learn_floor(&mut self, loss: f64, sent: f64, below: bool) {
        if below && self.above_target == 0 {
            let floor = self.floor.unwrap_or(loss);
            self.floor = Some(floor + (loss - floor) * (sent / 2_000.0).clamp(0.02, 0.5));
        }
    }

    pub(super) fn remember(&mut self, sample: f64, afresh: bool) {
        if afresh {
            self.samples = [0.0; FILTER];
        }
        self.samples[self.rounds % FILTER] = sample;
        self.capacity = self.samples.iter().copied().fold(0.0, f64::max);
    }

    fn give_way(&mut self, sample: f64) {
        self.above_brake = 0;
        let fair = self.known * FAIR_SHARE;
        let rate = if self.rate * 0.85 < fair { fair.min(self.rate) } else { self.rate * 0.85 };
        self.rate = rate.min(sample * 1.02).max(MIN_RATE);
        self.samples = [0.0; FILTER];
        self.samples[self.rounds % FILTER] = self.rate;
        self.capacity = self.rate;
    }

    /// A probe for more now and then; more and faster as long as it gets through.
    fn probe(&mut self, sample: f64, offered: bool) {
        self.cycle += 1;
        if self.probes > 0 && self.cycle >= 2 {
            // The round after a probe has told what it brought.
            let grew = sample > self.full * 1.025;
            self.probes = if grew && !offered { self.probes + 1 } else { 0 };
            self.cycle = if self.probes > 0 { PROBE_EVERY } else { 2 };
        }
        let gain = match self.cycle {
            PROBE_EVERY.. if !offered => {
                (self.cycle, self.full) = (0, self.capacity);
                self.probes = self.probes.max(1);
                if self.probes > 1 { 1.25 } else { 1.06 }
            }
            1 if self.probes > 0 => 0.97,
            _ => CRUISE_GAIN,
        };
        self.rate = self.capacity * gain;
    }
}
