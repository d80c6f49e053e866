//! How much a path loses, and how much in bursts.

use std::time::{Duration, Instant};

/// Packets whose fates are counted together.
pub const BIN: u32 = 64;
/// However fast time passes, this many bins of the past count: at few packets a second a bin is
/// longer than any half-life, and one bin says little.
const LEAST_BINS: f64 = 4.0;
/// How much longer the dispersion is remembered than the rate: a variance takes more bins to know.
const SLOWER: f64 = 8.0;
/// Losses in a row, or in one bin, that make a burst.
const BURST: u32 = 4;

/// What is known about a path's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The share of packets lost, 0 to 1.
    pub rate: f64,
    /// The standard deviation of that rate, as the dispersion has it.
    pub deviation: f64,
    /// Variance of the losses in a bin over what independent losses would give: 1 for independent
    /// losses, about `2b − 1` for bursts of mean length `b`. At least 1.
    pub dispersion: f64,
    /// How many packets the estimate rests on, older ones counting less.
    pub packets: f64,
}

/// Mean loss and its dispersion, from bins of [`BIN`] packets weighted exponentially by age.
#[derive(Clone, Debug)]
pub struct LossMeter {
    half_life: f64,
    weight: f64,
    mean: f64,
    /// Squares of the differences of neighbouring bins, and what independent losses would give.
    squares: f64,
    expected: f64,
    /// Losses in the bin before.
    last: f64,
    seen: u32,
    lost: u32,
    row: u32,
    begun: Option<Instant>,
    burst: Option<Instant>,
    last_loss: Option<Instant>,
}

impl LossMeter {
    /// A meter in which a bin's weight halves every `half_life`.
    pub fn new(half_life: Duration) -> Self {
        Self {
            half_life: half_life.as_secs_f64().max(1e-3),
            weight: 0.0,
            mean: 0.0,
            squares: 0.0,
            expected: 0.0,
            last: 0.0,
            seen: 0,
            lost: 0,
            row: 0,
            begun: None,
            burst: None,
            last_loss: None,
        }
    }

    /// Counts one packet's fate. Fates are recorded in the order of sending; `now` is when it
    /// became known.
    pub fn record(&mut self, now: Instant, lost: bool) {
        let begun = *self.begun.get_or_insert(now);
        self.seen += 1;
        self.row = if lost { self.row + 1 } else { 0 };
        if lost {
            self.lost += 1;
            self.last_loss = Some(now);
            if self.row.max(self.lost) >= BURST {
                self.burst = Some(now);
            }
        }
        if self.seen == BIN {
            self.fold(now.saturating_duration_since(begun));
            self.begun = Some(now);
        }
    }

    fn fold(&mut self, took: Duration) {
        let (x, n) = (f64::from(self.lost), f64::from(BIN));
        let halvings = (took.as_secs_f64() / self.half_life).min(1.0 / LEAST_BINS);
        let keep = 0.5f64.powf(halvings);
        // Neighbours are compared, not a bin with the mean: a rate that changes is no burst, however
        // long the mean takes to follow. Of independent losses x and y in two bins of n the square of
        // the difference is (x + y)(1 − (x + y) / 2n) on average.
        let sum = x + self.last;
        if self.weight > 0.0 {
            let keep = 0.5f64.powf(halvings / SLOWER);
            self.squares = self.squares * keep + (x - self.last).powi(2);
            self.expected = self.expected * keep + sum * (1.0 - sum / (2.0 * n));
        }
        self.last = x;
        self.weight = self.weight * keep + 1.0;
        self.mean += (x - self.mean) / self.weight;
        (self.seen, self.lost) = (0, 0);
    }

    /// What is known; `None` before the first bin is full.
    pub fn estimate(&self) -> Option<Estimate> {
        let rate = self.rate()?;
        let dispersion = self.dispersion().unwrap_or(1.0).max(1.0);
        let packets = self.weight * f64::from(BIN);
        // Half a loss more than there was: no loss among few packets does not mean none at all.
        let p = (rate + 0.5 / packets).min(1.0);
        let deviation = (dispersion * p * (1.0 - p) / packets).sqrt();
        Some(Estimate { rate, deviation, dispersion, packets })
    }

    /// The share of packets lost, 0 to 1; `None` before the first bin is full.
    pub fn rate(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.mean / f64::from(BIN))
    }

    /// Variance over the binomial one; `None` while nothing, or everything, was lost.
    pub fn dispersion(&self) -> Option<f64> {
        (self.expected > 0.0).then(|| self.squares / self.expected)
    }

    /// Takes the losses to come for independent until they prove not to be.
    pub fn forget_bursts(&mut self) {
        (self.squares, self.expected, self.burst) = (0.0, 0.0, None);
    }

    /// When several packets were last lost in a row, or in one bin.
    pub fn last_burst(&self) -> Option<Instant> {
        self.burst
    }

    /// When a packet was last lost.
    pub fn last_loss(&self) -> Option<Instant> {
        self.last_loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, start};

    const LONG: Duration = Duration::from_secs(100);

    /// Records packets a tenth of a millisecond apart.
    fn feed(meter: &mut LossMeter, packets: u32, mut lost: impl FnMut() -> bool) {
        let begin = start();
        (0..packets).for_each(|i| meter.record(begin + Duration::from_micros(100) * i, lost()));
    }

    #[test]
    fn independent_losses_have_dispersion_one() {
        let (mut meter, mut random) = (LossMeter::new(LONG), Random(7));
        feed(&mut meter, 200_000, || random.unit() < 0.05);
        let estimate = meter.estimate().unwrap();
        assert!((estimate.rate - 0.05).abs() < 0.005);
        assert!((estimate.dispersion - 1.0).abs() < 0.2);
        assert!(estimate.deviation > 0.0 && estimate.deviation < 0.01);
    }

    #[test]
    fn bursts_of_mean_five_have_dispersion_near_nine() {
        let (mut meter, mut random, mut bad) = (LossMeter::new(LONG), Random(11), false);
        feed(&mut meter, 2_000_000, || {
            let flip = random.unit();
            bad = if bad { flip >= 0.2 } else { flip < 0.2 * 0.05 / 0.95 };
            bad
        });
        assert!((meter.rate().unwrap() - 0.05).abs() < 0.006);
        let d = meter.dispersion().unwrap();
        assert!((6.5..10.0).contains(&d), "{d}");
    }

    #[test]
    fn a_rate_that_changes_is_no_burst() {
        let (mut meter, mut random) = (LossMeter::new(Duration::from_millis(200)), Random(3));
        let (begin, mut at) = (start(), 0);
        for (packets, share) in [(20_000, 0.001), (4_000, 0.15)] {
            for _ in 0..packets {
                at += 130;
                meter.record(begin + Duration::from_micros(at), random.unit() < share);
            }
        }
        let estimate = meter.estimate().unwrap();
        assert!((0.12..0.18).contains(&estimate.rate), "{estimate:?}");
        assert!(estimate.dispersion < 1.5, "{estimate:?}");
    }

    #[test]
    fn nothing_is_known_before_the_first_bin() {
        let mut meter = LossMeter::new(LONG);
        feed(&mut meter, BIN - 1, || true);
        assert_eq!((meter.estimate(), meter.dispersion()), (None, None));
        assert!(meter.last_burst().is_some());
    }

    #[test]
    fn what_is_past_is_forgotten_by_time_but_never_by_one_bin() {
        let mut meter = LossMeter::new(Duration::from_millis(100));
        let begin = start();
        let mut at = begin;
        for i in 0..BIN * 6 {
            at += Duration::from_millis(10);
            meter.record(at, i < BIN);
        }
        let rate = meter.rate().unwrap();
        assert!((0.05..0.15).contains(&rate), "{rate}");
    }
}
