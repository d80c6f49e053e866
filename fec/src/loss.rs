//! How much a path loses, and how much in bursts.

/// Packets whose fates are counted together.
pub const BIN: u32 = 64;

/// Mean loss and its dispersion, from bins of [`BIN`] packets weighted exponentially by age.
///
/// The dispersion is the variance of the losses in a bin over what independent losses would give:
/// 1 for independent losses, about `2b − 1` for bursts of mean length `b`.
#[derive(Clone, Debug)]
pub struct LossMeter {
    keep: f64,
    weight: f64,
    mean: f64,
    square: f64,
    seen: u32,
    lost: u32,
}

impl LossMeter {
    /// A meter in which a bin's weight halves every `half_life` bins.
    pub fn new(half_life: f64) -> Self {
        let keep = 0.5f64.powf(1.0 / half_life.max(1.0));
        Self { keep, weight: 0.0, mean: 0.0, square: 0.0, seen: 0, lost: 0 }
    }

    /// Counts one packet's fate.
    pub fn record(&mut self, lost: bool) {
        self.seen += 1;
        self.lost += u32::from(lost);
        if self.seen == BIN {
            let x = f64::from(self.lost);
            self.weight = self.weight * self.keep + 1.0;
            self.mean += (x - self.mean) / self.weight;
            self.square += (x * x - self.square) / self.weight;
            (self.seen, self.lost) = (0, 0);
        }
    }

    /// The share of packets lost, 0 to 1; `None` before the first bin is full.
    pub fn rate(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.mean / f64::from(BIN))
    }

    /// Variance over the binomial one; `None` while nothing, or everything, was lost.
    pub fn dispersion(&self) -> Option<f64> {
        let p = self.rate().filter(|p| *p > 0.0 && *p < 1.0)?;
        let variance = (self.square - self.mean * self.mean).max(0.0);
        Some(variance / (f64::from(BIN) * p * (1.0 - p)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The top half of splitmix64, as a number in 0..1.
    fn draw(state: &mut u64) -> f64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from((z >> 32) as u32) / f64::from(u32::MAX)
    }

    #[test]
    fn independent_losses_have_dispersion_one() {
        let (mut meter, mut seed) = (LossMeter::new(500.0), 7);
        (0..200_000).for_each(|_| meter.record(draw(&mut seed) < 0.05));
        assert!((meter.rate().unwrap() - 0.05).abs() < 0.005);
        assert!((meter.dispersion().unwrap() - 1.0).abs() < 0.2);
    }

    #[test]
    fn bursts_of_mean_five_have_dispersion_near_nine() {
        let (mut meter, mut seed, mut bad) = (LossMeter::new(2000.0), 11, false);
        for _ in 0..2_000_000 {
            let flip = draw(&mut seed);
            bad = if bad { flip >= 0.2 } else { flip < 0.2 * 0.05 / 0.95 };
            meter.record(bad);
        }
        assert!((meter.rate().unwrap() - 0.05).abs() < 0.006);
        let d = meter.dispersion().unwrap();
        assert!((6.5..10.0).contains(&d), "{d}");
    }

    #[test]
    fn nothing_is_known_before_the_first_bin() {
        let mut meter = LossMeter::new(4.0);
        (1..BIN).for_each(|_| meter.record(true));
        assert_eq!((meter.rate(), meter.dispersion()), (None, None));
    }
}
