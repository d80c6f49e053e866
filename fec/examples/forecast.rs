//! How well the loss rate 200 ms ahead is told: `cargo run --release -p bauta-fec --example
//! forecast [TRACE…]`, where a TRACE is a recording as `bauta-link` plays it (tests/lab).
//!
//! Each forecaster says at every step what the loss rate will be four steps later, its mean and
//! what it exceeds in one case of ten. Scored over ten seeds: the skill against persistence,
//! 1 − error/error of persistence, of the mean (squared error against the loss that then held) and
//! of the upper bound (pinball loss at 0.9 against the share that then was lost).

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::collections::VecDeque;

use anyhow::Context as _;
use bauta_fec::forecast::{AHEAD, Forecast, Forecaster, STEP};

#[path = "../tests/sim/mod.rs"]
mod sim;

/// Packets a step: 8,000 a second.
const PACKETS: u32 = 400;
/// Steps of one run, five minutes; the first is for learning.
const STEPS: usize = 6000;
const LEARNING: usize = 1200;
const SEEDS: u64 = 10;

trait Model {
    fn observe(&mut self, lost: u32);
    fn forecast(&self) -> Forecast;
}

/// Mean and spread with a weight that decays with age; `keep` 0 is persistence, 1 the long-run mean.
struct Average {
    keep: f64,
    weight: f64,
    mean: f64,
    square: f64,
}

impl Average {
    fn new(keep: f64) -> Self {
        Self { keep, weight: 0.0, mean: 0.0, square: 0.0 }
    }
}

impl Model for Average {
    fn observe(&mut self, lost: u32) {
        let rate = f64::from(lost) / f64::from(PACKETS);
        self.weight = self.weight * self.keep + 1.0;
        self.mean += (rate - self.mean) / self.weight;
        self.square += (rate * rate - self.square) / self.weight;
    }

    fn forecast(&self) -> Forecast {
        let chance = self.mean * (1.0 - self.mean) / f64::from(PACKETS);
        let deviation = (self.square - self.mean * self.mean).max(chance).sqrt();
        Forecast { mean: self.mean, upper: self.mean + 1.2816 * deviation }
    }
}

impl Model for Forecaster {
    fn observe(&mut self, lost: u32) {
        Forecaster::observe(self, PACKETS, lost);
    }

    fn forecast(&self) -> Forecast {
        Forecaster::forecast(self)
    }
}

/// The half-lives of the moving averages, in steps.
fn models() -> [(&'static str, Box<dyn Model>); 5] {
    let half_life = |steps: f64| Box::new(Average::new(0.5f64.powf(1.0 / steps)));
    [
        ("persistence", Box::new(Average::new(0.0))),
        ("EWMA 0.2 s", half_life(4.0)),
        ("EWMA 1 s", half_life(20.0)),
        ("long run", Box::new(Average::new(1.0))),
        ("hidden Markov", Box::new(Forecaster::new())),
    ]
}

/// What holds in each step: loss and mean burst.
type Truth = Vec<(f64, f64)>;

/// A truth for each seed.
type Trace = Box<dyn Fn(u64) -> Truth>;

fn stationary(loss: f64, burst: f64) -> impl Fn(u64) -> Truth {
    move |_| vec![(loss, burst); STEPS]
}

/// Between 0.02 % and 15 %, each for a time of that mean (in seconds, exponentially distributed).
fn switching(mean: f64) -> impl Fn(u64) -> Truth {
    move |seed| {
        let (mut random, mut bad) = (sim::Random(seed ^ 0xabcd), false);
        let change = STEP.as_secs_f64() / mean;
        (0..STEPS)
            .map(|_| {
                bad ^= random.unit() < change;
                (if bad { 0.15 } else { 0.0002 }, 1.0)
            })
            .collect()
    }
}

/// A hand-over every 12 to 18 seconds: 0.1 % in between, 1.5 s of 3 % before it, then 0.4 s of 40 %.
fn handover(seed: u64) -> Truth {
    let mut random = sim::Random(seed ^ 0x7777);
    let mut truth = Vec::new();
    while truth.len() < STEPS {
        truth.extend(vec![(0.001, 1.0); 200 + (random.unit() * 120.0) as usize]);
        truth.extend(vec![(0.03, 2.0); 30]);
        truth.extend(vec![(0.4, 8.0); 8]);
    }
    truth.truncate(STEPS);
    truth
}

/// The loss column of a recording: lines `TIME_MS RATE LOSS DELAY`, a loss like `5%` or `5%/3`.
fn recorded(text: &str) -> anyhow::Result<Truth> {
    let mut rows: Vec<(f64, (f64, f64))> = Vec::new();
    let mut period = f64::MAX;
    for (number, line) in text.lines().enumerate() {
        let words: Vec<_> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        let wrong = || format!("line {}: TIME_MS RATE LOSS DELAY, or repeat TIME_MS", number + 1);
        match words[..] {
            [] => {}
            ["repeat", at] => period = at.parse().with_context(wrong)?,
            [at, _, loss, _] => {
                let before = rows.last().map_or((0.0, 1.0), |row| row.1);
                let (share, burst) = loss.split_once('/').unwrap_or((loss, "1"));
                let loss = match share.strip_suffix('%') {
                    None if share == "-" => before,
                    None => anyhow::bail!(wrong()),
                    Some(share) => {
                        let share: f64 = share.parse().with_context(wrong)?;
                        (share / 100.0, burst.parse().with_context(wrong)?)
                    }
                };
                rows.push((at.parse().with_context(wrong)?, loss));
            }
            _ => anyhow::bail!(wrong()),
        }
    }
    anyhow::ensure!(!rows.is_empty() && period > 0.0, "a recording has rows");
    let at = |step: usize| (step as f64 * STEP.as_secs_f64() * 1e3) % period;
    let row = |step: usize| rows[rows.partition_point(|row| row.0 <= at(step)).max(1) - 1].1;
    Ok((0..STEPS).map(row).collect())
}

fn main() -> anyhow::Result<()> {
    let mut traces: Vec<(String, Trace)> = vec![
        ("stationary 5 %".into(), Box::new(stationary(0.05, 1.0))),
        ("stationary 5 %, bursts of 5".into(), Box::new(stationary(0.05, 5.0))),
        ("switching every 0.5 s".into(), Box::new(switching(0.5))),
        ("switching every 2 s".into(), Box::new(switching(2.0))),
        ("switching every 10 s".into(), Box::new(switching(10.0))),
        ("hand-over".into(), Box::new(handover)),
    ];
    for word in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&word).with_context(|| format!("reading {word}"))?;
        let truth = recorded(&text).with_context(|| word.clone())?;
        traces.push((word, Box::new(move |_| truth.clone())));
    }
    println!("{:28} {:14} {:>10} {:>13}", "trace", "forecaster", "MSE skill", "pinball skill");
    for (name, truth) in &traces {
        let scores = score(truth.as_ref());
        for (model, mse, pinball) in &scores {
            let skill = |error: f64, reference: f64| 1.0 - error / reference.max(1e-12);
            let (mse, pinball) = (skill(*mse, scores[0].1), skill(*pinball, scores[0].2));
            println!("{name:28} {model:14} {mse:10.2} {pinball:13.2}");
        }
    }
    Ok(())
}

/// Name, squared error and pinball loss of each forecaster.
fn score(truth: &dyn Fn(u64) -> Truth) -> Vec<(&'static str, f64, f64)> {
    let mut sums: Vec<_> = models().iter().map(|(name, _)| (*name, 0.0, 0.0)).collect();
    for seed in 1..=SEEDS {
        let truth = truth(seed);
        let mut channel = sim::Channel::new(0.0, 1.0, seed);
        for ((_, mut model), (_, mse, pinball)) in models().into_iter().zip(&mut sums) {
            let mut said: VecDeque<Forecast> = VecDeque::new();
            channel.clone_from(&sim::Channel::new(0.0, 1.0, seed));
            for (step, (loss, burst)) in truth.iter().enumerate() {
                (channel.loss, channel.burst) = (*loss, *burst);
                let lost = (0..PACKETS).filter(|_| channel.loses()).count() as u32;
                if said.len() == AHEAD {
                    let Some(forecast) = said.pop_front() else { continue };
                    if step >= LEARNING {
                        let seen = f64::from(lost) / f64::from(PACKETS);
                        let off = seen - forecast.upper;
                        *mse += (forecast.mean - loss).powi(2);
                        *pinball += if off > 0.0 { 0.9 * off } else { -0.1 * off };
                    }
                }
                model.observe(lost);
                said.push_back(model.forecast());
            }
        }
    }
    sums
}
