//! The loss rate a moment ahead: which rate, never which packets.
//!
//! Time goes in steps of [`STEP`]; each step tells how many packets were sent and how many of them
//! lost. [`Forecaster`] follows a hidden Markov model whose states are levels of loss: it learns
//! online how high the levels are, how long each lasts and what follows it. On a path that changes
//! between regimes this remembers what a moving average has to find out again; on one that does
//! not, it comes down to the long-run mean. `examples/forecast.rs` scores it against simpler ones.

use std::time::Duration;

/// The time one observation spans.
pub const STEP: Duration = Duration::from_millis(50);
/// How many steps ahead a forecast looks: 200 ms.
pub const AHEAD: usize = 4;
/// Levels of loss told apart.
const LEVELS: usize = 10;
/// The level of the lowest state; each further one is [`RATIO`] times higher, up to a half.
const LOWEST: f64 = 2e-4;
const RATIO: f64 = 2.385;
/// What a step is taken to say at most, in packets: beyond it, that losses are not independent
/// weighs more than their number.
const PACKETS_HEARD: f64 = 200.0;
/// Weight of what was assumed before anything was seen, in steps.
const PRIOR: f64 = 4.0;
/// The share of cases that [`Forecast::upper`] holds in.
const UPPER: f64 = 0.9;
/// How much of what was learned is kept from step to step: a memory of some three minutes.
const KEEP: f64 = 0.9997;

/// A hidden Markov model of levels of loss, learned as it goes.
#[derive(Clone, Debug)]
pub struct Forecaster {
    /// How probable each level is now.
    belief: [f64; LEVELS],
    /// Lost packets and all packets seen in each level.
    lost: [f64; LEVELS],
    sent: [f64; LEVELS],
    /// Steps spent in each level, and the sum over them of the squared distance from it.
    steps: [f64; LEVELS],
    scatter: [f64; LEVELS],
    /// Packets of the last step.
    packets: f64,
    /// Steps from each level to each.
    moves: [[f64; LEVELS]; LEVELS],
}

/// A rate of loss to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Its mean.
    pub mean: f64,
    /// What it exceeds in one case of ten.
    pub upper: f64,
}

impl Default for Forecaster {
    fn default() -> Self {
        Self::new()
    }
}

impl Forecaster {
    /// A model that has seen nothing: levels a constant ratio apart, each lasting about a second.
    pub fn new() -> Self {
        let level = |i: usize| LOWEST * RATIO.powi(i as i32);
        let stay = 0.95;
        let moves = |from: usize, to: usize| {
            PRIOR * if from == to { stay } else { (1.0 - stay) / (LEVELS - 1) as f64 }
        };
        Self {
            belief: [1.0 / LEVELS as f64; LEVELS],
            lost: std::array::from_fn(|i| level(i) * PRIOR * 200.0),
            sent: [PRIOR * 200.0; LEVELS],
            steps: [PRIOR; LEVELS],
            scatter: std::array::from_fn(|i| PRIOR * level(i) / 200.0),
            packets: 200.0,
            moves: std::array::from_fn(|from| std::array::from_fn(|to| moves(from, to))),
        }
    }

    fn levels(&self) -> [f64; LEVELS] {
        std::array::from_fn(|i| (self.lost[i] / self.sent[i]).clamp(1e-5, 0.95))
    }

    fn transitions(&self) -> [[f64; LEVELS]; LEVELS] {
        self.moves.map(|row| {
            let sum: f64 = row.iter().sum();
            row.map(|x| x / sum)
        })
    }

    /// Takes what one step brought: of `sent` packets `lost` were lost.
    pub fn observe(&mut self, sent: u32, lost: u32) {
        let transitions = self.transitions();
        let levels = self.levels();
        let (n, k) = (f64::from(sent), f64::from(lost.min(sent)));
        let heard = (PACKETS_HEARD / n.max(1.0)).min(1.0);
        let score = levels.map(|p| heard * (k * p.ln() + (n - k) * (1.0 - p).ln()));
        let best = score.iter().copied().fold(f64::MIN, f64::max);
        let likely = score.map(|score| (score - best).exp().max(1e-12));
        // How probable each move from level to level was, given what was seen.
        let mut joint = [[0.0; LEVELS]; LEVELS];
        let mut total = 0.0;
        for from in 0..LEVELS {
            for to in 0..LEVELS {
                joint[from][to] = self.belief[from] * transitions[from][to] * likely[to];
                total += joint[from][to];
            }
        }
        self.belief = [0.0; LEVELS];
        for (row, moves) in joint.iter().zip(&mut self.moves) {
            for (to, weight) in row.iter().enumerate() {
                let weight = weight / total;
                self.belief[to] += weight;
                moves[to] = moves[to] * KEEP + weight;
            }
        }
        self.packets = n.max(1.0);
        for (i, level) in levels.iter().enumerate() {
            self.steps[i] = self.steps[i] * KEEP + self.belief[i];
            let distance = k / self.packets - level;
            self.scatter[i] = self.scatter[i] * KEEP + self.belief[i] * distance * distance;
            self.lost[i] = self.lost[i] * KEEP + self.belief[i] * k;
            self.sent[i] = self.sent[i] * KEEP + self.belief[i] * n;
        }
    }

    /// The loss rate [`AHEAD`] steps from now.
    pub fn forecast(&self) -> Forecast {
        let transitions = self.transitions();
        let mut belief = self.belief;
        for _ in 0..AHEAD {
            let mut next = [0.0; LEVELS];
            for (from, row) in transitions.iter().enumerate() {
                (0..LEVELS).for_each(|to| next[to] += belief[from] * row[to]);
            }
            belief = next;
        }
        let levels = self.levels();
        let mean = (0..LEVELS).map(|i| belief[i] * levels[i]).sum();
        // The share lost in a step scatters about its level: by chance, and more in bursts.
        let spread: [f64; LEVELS] = std::array::from_fn(|i| {
            let chance = levels[i] * (1.0 - levels[i]) / self.packets;
            (self.scatter[i] / self.steps[i]).max(chance).sqrt()
        });
        let below = |x: f64| -> f64 {
            (0..LEVELS).map(|i| belief[i] * normal((x - levels[i]) / spread[i])).sum()
        };
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..14 {
            let middle = (low + high) / 2.0;
            if below(middle) < UPPER {
                low = middle;
            } else {
                high = middle;
            }
        }
        Forecast { mean, upper: high }
    }
}

/// The standard normal distribution, to a hundredth, by a logistic one.
fn normal(z: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn feed(model: &mut Forecaster, random: &mut Random, loss: f64, steps: u32) {
        for _ in 0..steps {
            let lost = (0..400).filter(|_| random.unit() < loss).count();
            model.observe(400, lost as u32);
        }
    }

    #[test]
    fn a_steady_path_comes_down_to_its_mean() {
        let (mut model, mut random) = (Forecaster::new(), Random(1));
        feed(&mut model, &mut random, 0.05, 400);
        let Forecast { mean, upper } = model.forecast();
        assert!((mean - 0.05).abs() < 0.004, "{mean}");
        assert!((0.05..0.075).contains(&upper), "{upper}");
    }

    #[test]
    fn regimes_are_known_again_at_once() {
        let (mut model, mut random) = (Forecaster::new(), Random(2));
        for _ in 0..20 {
            feed(&mut model, &mut random, 0.0002, 40);
            feed(&mut model, &mut random, 0.15, 40);
        }
        let bad = model.forecast().mean;
        feed(&mut model, &mut random, 0.0002, 1);
        let good = model.forecast().mean;
        assert!(bad > 0.11 && good < 0.04, "{bad} {good}");
    }

    #[test]
    fn nothing_it_is_told_makes_it_say_nonsense() {
        let mut model = Forecaster::new();
        for (sent, lost) in [(0, 0), (0, 9), (1, 1), (u32::MAX, u32::MAX), (u32::MAX, 0), (5, 9)] {
            for _ in 0..2000 {
                model.observe(sent, lost);
            }
            let Forecast { mean, upper } = model.forecast();
            assert!((0.0..=1.0).contains(&mean) && (0.0..=1.0).contains(&upper), "{mean} {upper}");
        }
    }
}
