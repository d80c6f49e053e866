//! How much repair to send, made by which codec, from what is known about loss.

use std::time::{Duration, Instant};

use crate::codec::{Codec, MAX_COVER, SPAN};
use crate::forecast::{self, Forecaster};
use crate::loss::{Estimate, LossMeter};

/// Most copies of a packet.
pub const MAX_COPIES: usize = 5;
/// Copies are added until fewer packets than this share lose all of theirs.
const COPIES_LOST: f64 = 3e-4;

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
    /// Repair begins when this share of packets is lost, of all or by the worst of several paths, or after a burst.
    pub on: f64,
    /// Repair ends when less than this share was lost throughout [`Settings::quiet`].
    pub off: f64,
    /// See [`Settings::off`].
    pub quiet: Duration,
    /// Standard deviations of the measured loss that are added to it.
    pub margin: f64,
    /// Whether the loss to come is forecast ([`crate::forecast`]), or what was measured holds on.
    pub forecast: bool,
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
            margin: 0.5,
            forecast: true,
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
    /// How long packets wait at the sender before they leave.
    pub waiting: Duration,
    /// The share lost by the one of several paths that loses most; 0 if there is one.
    pub worst: f64,
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
    forecaster: Forecaster,
    /// The step of the forecaster that is being filled: its begin, packets and losses.
    step: Option<(Instant, u32, u32)>,
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
            forecaster: Forecaster::new(),
            step: None,
            active: false,
            quiet_since: None,
            plan: None,
            owed: 0.0,
        }
    }

    /// Counts the fate of one source packet, in the order of sending, before any repair.
    pub fn record(&mut self, now: Instant, lost: bool) {
        self.meter.record(now, lost);
        if !self.settings.forecast {
            return;
        }
        let (begun, packets, gone) = self.step.get_or_insert((now, 0, 0));
        *packets += 1;
        *gone += u32::from(lost);
        let took = now.saturating_duration_since(*begun);
        if took >= forecast::STEP {
            // A step without packets says nothing; after a long silence none is made up.
            self.forecaster.observe(*packets, *gone);
            self.step = None;
        }
    }

    /// What was lost in bursts says nothing of those to come.
    pub fn forget_bursts(&mut self) {
        self.meter.forget_bursts();
    }

    /// What is known about loss.
    pub fn estimate(&self) -> Option<Estimate> {
        self.meter.estimate()
    }

    /// Whether several packets were lost at once in the last half-life.
    pub fn is_bursty(&self, now: Instant) -> bool {
        let ago = self.meter.last_burst().map(|at| now.saturating_duration_since(at));
        ago.is_some_and(|ago| ago < self.settings.half_life)
    }

    /// Decides anew; to be called after each feedback. `None`: no repair at all, plain Context ID 0.
    pub fn update(&mut self, now: Instant, traffic: Traffic) -> Option<Plan> {
        self.switch(now, traffic.worst);
        let estimate = self.meter.estimate().filter(|_| self.active);
        self.plan = estimate.map(|mut estimate| {
            if self.settings.forecast {
                estimate.rate = self.forecaster.forecast().mean;
            }
            decide(&self.settings, &estimate, traffic)
        });
        if self.plan.is_none() {
            self.owed = 0.0;
        }
        self.plan
    }

    fn switch(&mut self, now: Instant, worst: f64) {
        let Some(estimate) = self.meter.estimate() else { return };
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let burst = since(self.meter.last_burst()).is_some_and(|ago| ago < self.settings.quiet);
        let rate = estimate.rate.max(worst);
        if rate >= self.settings.on || burst {
            self.active = true;
        }
        if rate >= self.settings.off || burst {
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
    let (budget, rtt) = (settings.budget.as_secs_f64(), traffic.rtt.as_secs_f64());
    let p = (estimate.rate + settings.margin * estimate.deviation).clamp(settings.off, 0.5);
    let lost = p / (1.0 - p);
    // What is late anyway may wait for its repair as well: where the surplus leaves no room for the
    // packets themselves, it makes them later than it could ever save.
    let waits = traffic.waiting.as_secs_f64() / budget;
    let late = 1.0 + waits + waits * waits / 2.0;
    let reach = (budget * traffic.packets).clamp(1.0, MAX_COVER as f64);
    let mut plan = Plan {
        codec: Codec::Slc,
        ratio: 0.0,
        cover: reach as usize,
        copies: 0,
        spacing: Duration::ZERO,
        retransmit: traffic.rtt * 3 <= settings.budget,
        top_up_after: settings.budget.mul_f64(0.6),
    };
    match settings.class {
        Class::Interactive => plan.ratio = lost * surplus(p, estimate.dispersion, reach * late),
        Class::Bulk => {
            plan.retransmit = true;
            // Parity that no longer reaches what is being retransmitted only costs.
            if rtt * traffic.packets < SPAN as f64 / 2.0 {
                plan.ratio = lost * (0.056 / p.sqrt()).clamp(0.2, 0.5);
            }
        }
        Class::Sparse => {
            plan.codec = Codec::Rs16;
            let few = (1..MAX_COPIES).find(|n| p.powi(*n as i32 + 1) < COPIES_LOST);
            plan.copies = few.unwrap_or(MAX_COPIES);
            plan.spacing = settings.budget / (plan.copies as u32 + 1);
        }
    }
    plan
}

/// ρ: how many times the expected loss is sent, so that what is owed by chance within `reach`
/// packets is made up in 99 of 100 cases. The number of lost packets less that of repair symbols
/// is a random walk that drifts down by (ρ−1)·p and scatters by D·p(1−p) a packet; the weight of
/// the scatter was fitted to the simulation in `examples/simulate.rs`.
fn surplus(p: f64, dispersion: f64, reach: f64) -> f64 {
    let bursty = (1.0 - 1.0 / dispersion) * (0.4 / p).min(8.0);
    let weight = 1.8 + 25.0 * p + (0.015 / p).min(3.0) + bursty;
    1.0 + (weight * dispersion * (1.0 - p) / (p * reach)).sqrt()
}

#[cfg(test)]
mod tests;
