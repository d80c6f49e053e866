//! Random draws that depend on a seed and a number alone, never on the draws before.

/// What a draw is for; draws for different purposes are independent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Loss = 1,
    State = 2,
    Duplicate = 3,
    Jitter = 4,
    /// The second number a normal draw needs.
    Angle = 5,
    JitterOfDuplicate = 6,
    AngleOfDuplicate = 7,
}

/// A counter-based generator: two rounds of the SplitMix64 finaliser over seed, number, purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rng {
    key: u64,
}

/// Where a normal draw is cut off, in standard deviations.
const CUT: f64 = 4.0;

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { key: mix(seed ^ 0x6261_7574_612d_6c61) }
    }

    fn bits(self, n: u64, purpose: Purpose) -> u64 {
        let number = mix(n.wrapping_add(self.key));
        mix(number ^ (purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Uniform in [0, 1).
    pub(super) fn uniform(self, n: u64, purpose: Purpose) -> f64 {
        (self.bits(n, purpose) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Whether an event of this probability happens.
    pub(super) fn chance(self, n: u64, purpose: Purpose, probability: f64) -> bool {
        self.uniform(n, purpose) < probability
    }

    /// Normal with mean 0 and deviation 1, within ±4 (Box–Muller).
    pub(super) fn normal(self, n: u64, radius: Purpose, angle: Purpose) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(n, radius)).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform(n, angle);
        (radius * angle.cos()).clamp(-CUT, CUT)
    }
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: u64 = 200_000;

    #[test]
    fn uniform_draws_fill_the_interval_evenly() {
        let rng = Rng::new(7);
        let mut bins = [0u32; 20];
        for n in 0..N {
            bins[(rng.uniform(n, Purpose::Loss) * 20.0) as usize] += 1;
        }
        assert!(bins.iter().all(|&count| (9_500..10_500).contains(&count)), "{bins:?}");
    }

    #[test]
    fn normal_draws_have_mean_zero_and_deviation_one() {
        let rng = Rng::new(7);
        let draws = || (0..N).map(|n| rng.normal(n, Purpose::Jitter, Purpose::Angle));
        let mean = draws().sum::<f64>() / N as f64;
        let variance = draws().map(|x| x * x).sum::<f64>() / N as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!(draws().all(|x| x.abs() <= CUT));
    }

    #[test]
    fn draws_for_neighbours_seeds_and_purposes_are_independent() {
        let correlation = |a: &dyn Fn(u64) -> f64, b: &dyn Fn(u64) -> f64| {
            (0..N).map(|n| (a(n) - 0.5) * (b(n) - 0.5) * 12.0).sum::<f64>() / N as f64
        };
        let draw = |seed, purpose| move |n: u64| Rng::new(seed).uniform(n, purpose);
        let own = draw(1, Purpose::Loss);
        assert!(correlation(&own, &|n| own(n + 1)).abs() < 0.01);
        assert!(correlation(&own, &draw(2, Purpose::Loss)).abs() < 0.01);
        assert!(correlation(&own, &draw(1, Purpose::State)).abs() < 0.01);
    }
}
