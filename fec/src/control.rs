//! How much repair to send, made by which codec, from what is known about loss.

use std::time::{Duration, Instant};

use crate::codec::{Codec, MAX_COVER};
use crate::loss::{Estimate, LossMeter};

/// What kind of traffic a stream of packets is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Few packets, none of which may be late: copies, spread in time.
    Sparse,
    /// Continuous, and to be in time: parity for all that is expected to be lost.
    Interactive,
    /// Continuous, and to be complete: retransmission, with light parity before it.
    Bulk,
}

/// What a controller is told to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The kind of traffic.
    pub class: Class,
    /// How much later than without loss a packet may come out.
    pub budget: Duration,
    /// Repair begins when this share of packets is lost, or after a burst.
    pub on: f64,
    /// Repair ends when less than this share was lost throughout [`Settings::quiet`].
    pub off: f64,
    /// See [`Settings::off`].
    pub quiet: Duration,
    /// The half-life of what is remembered about loss.
    pub half_life: Duration,
}

impl Settings {
    /// What suits a class.
    pub const fn of(class: Class) -> Self {
        let budget = match class {
            Class::Sparse => 10,
            Class::Interactive | Class::Bulk => 30,
        };
        Self {
            class,
            budget: Duration::from_millis(budget),
            on: 0.003,
            off: 0.001,
            quiet: Duration::from_secs(2),
            half_life: Duration::from_millis(200),
        }
    }
}

/// What the path is like at the moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Source packets a second, of this class.
    pub packets: f64,
}

/// What to do until the next plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Which codec makes the repair symbols.
    pub codec: Codec,
    /// Repair symbols per source packet.
    pub ratio: f64,
    /// How many packets a repair symbol covers ([`crate::Encoder::set_cover`]).
    pub cover: usize,
    /// Copies of each source packet beside it, 0 for none.
    pub copies: usize,
    /// The time between copies.
    pub spacing: Duration,
    /// Whether to retransmit what is reported missing: always for bulk, else where it can be in time.
    pub retransmit: bool,
    /// The receiver asks for more repair when a packet has been missing this long.
    pub top_up_after: Duration,
}

/// Decides for one class of one stream. Nothing is decided, and nothing sent, while loss is low.
#[derive(Clone, Debug)]
pub struct Controller {
    settings: Settings,
    meter: LossMeter,
    active: bool,
    /// Since when loss was low enough to stop.
    quiet_since: Option<Instant>,
    plan: Option<Plan>,
    owed: f64,
}

impl Controller {
    /// A controller that has seen no loss.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            meter: LossMeter::new(settings.half_life),
            active: false,
            quiet_since: None,
            plan: None,
            owed: 0.0,
        }
    }

    /// Counts the fate of one source packet, in the order of sending, before any repair.
    pub fn record(&mut self, now: Instant, lost: bool) {
        self.meter.record(now, lost);
    }

    /// What is known about loss.
    pub fn estimate(&self) -> Option<Estimate> {
        self.meter.estimate()
    }

    /// Decides anew; to be called after each feedback. `None`: no repair at all, plain Context ID 0.
    pub fn update(&mut self, now: Instant, traffic: Traffic) -> Option<Plan> {
        self.switch(now);
        let estimate = self.meter.estimate().filter(|_| self.active);
        self.plan = estimate.map(|estimate| decide(&self.settings, &estimate, traffic));
        if self.plan.is_none() {
            self.owed = 0.0;
        }
        self.plan
    }

    fn switch(&mut self, now: Instant) {
        let Some(estimate) = self.meter.estimate() else { return };
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let burst = since(self.meter.last_burst()).is_some_and(|ago| ago < self.settings.quiet);
        if estimate.rate >= self.settings.on || burst {
            self.active = true;
        }
        if estimate.rate >= self.settings.off || burst {
            self.quiet_since = None;
            return;
        }
        let quiet = *self.quiet_since.get_or_insert(now);
        if now.saturating_duration_since(quiet) >= self.settings.quiet {
            self.active = false;
        }
    }

    /// What was decided last.
    pub fn plan(&self) -> Option<Plan> {
        self.plan
    }

    /// Accounts for one source packet that was sent; how many repair symbols are due now.
    pub fn on_source(&mut self) -> usize {
        self.owed += self.plan.map_or(0.0, |plan| plan.ratio);
        let due = self.owed.floor();
        self.owed -= due;
        due as usize
    }
}

fn decide(settings: &Settings, estimate: &Estimate, traffic: Traffic) -> Plan {
    let budget = settings.budget.as_secs_f64();
    let p = estimate.upper.clamp(settings.off, 0.5);
    let reach = (budget * traffic.packets).clamp(1.0, MAX_COVER as f64);
    let in_time = traffic.rtt * 3 <= settings.budget;
    let rho = 1.0 + (5.0 * estimate.dispersion * (1.0 - p) / (p * reach)).sqrt();
    let needed = rho * p / (1.0 - p);
    let mut plan = Plan {
        codec: Codec::Slc,
        ratio: needed,
        cover: reach as usize,
        copies: 0,
        spacing: Duration::ZERO,
        retransmit: in_time,
        top_up_after: settings.budget.mul_f64(0.6),
    };
    match settings.class {
        Class::Interactive => {}
        Class::Bulk => (plan.ratio, plan.retransmit) = (p / (1.0 - p), true),
        Class::Sparse => {
            plan.codec = Codec::Rs16;
            plan.ratio = 0.0;
            plan.copies = (1..4).find(|n| p.powi(n + 1) < 1e-3).unwrap_or(4) as usize;
            plan.spacing = settings.budget / (plan.copies as u32 + 1);
        }
    }
    plan
}

#[cfg(test)]
mod tests;
