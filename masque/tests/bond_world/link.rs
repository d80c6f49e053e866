//! A link: rate, queue, delay, jitter, loss; all whims from one seed.

/// Splitmix64.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1.
    pub fn normal(&mut self) -> f64 {
        let (a, b) = (self.unit().max(1e-12), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

#[derive(Clone, Debug)]
pub enum Loss {
    Independent(f64),
    /// Gilbert-Elliott: overall share, mean length of a burst.
    Burst(f64, f64),
    /// Independent, a share that holds until a moment (seconds).
    Switching(Vec<(f64, f64)>),
}

impl Loss {
    /// The share lost on average at a moment, microseconds.
    pub fn share(&self, at: f64) -> f64 {
        match self {
            Self::Independent(share) | Self::Burst(share, _) => *share,
            Self::Switching(spans) => {
                spans.iter().find(|(until, _)| at < until * 1e6).map_or(0.0, |(_, s)| *s)
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Spec {
    /// Mbit/s of everything, headers included.
    pub mbit: f64,
    /// One way, ms.
    pub delay: f64,
    /// Deviation, ms.
    pub jitter: f64,
    /// Whether a packet waits for those before it, whatever the jitter says, as in netem with a rate.
    pub in_order: bool,
    /// Bytes that may wait.
    pub queue: f64,
    pub loss: Loss,
}

impl Spec {
    /// `mbit` and one-way `delay` in ms, a queue of one round trip.
    pub fn new(mbit: f64, delay: f64) -> Self {
        let queue = (mbit * 1e6 / 8.0 * 2.0 * delay / 1e3).max(60_000.0);
        Self { mbit, delay, jitter: 0.0, in_order: false, queue, loss: Loss::Independent(0.0) }
    }

    pub fn loss(self, share: f64) -> Self {
        Self { loss: Loss::Independent(share), ..self }
    }

    pub fn bursts(self, share: f64, mean: f64) -> Self {
        Self { loss: Loss::Burst(share, mean), ..self }
    }

    pub fn jitter(self, jitter: f64) -> Self {
        Self { jitter, ..self }
    }

    pub fn in_order(self) -> Self {
        Self { in_order: true, ..self }
    }

    /// A queue of so many ms.
    pub fn queue_ms(self, ms: f64) -> Self {
        Self { queue: self.mbit * 125.0 * ms, ..self }
    }
}

pub struct Link {
    pub spec: Spec,
    dice: Dice,
    busy_until: f64,
    last_arrival: u64,
    bad: bool,
    pub dead: bool,
    pub sent: u64,
    pub lost: u64,
    pub tail_drops: u64,
    pub bytes: u64,
    /// Sum of the time packets waited, and their number.
    pub waited: (f64, u64),
}

impl Link {
    pub fn new(spec: Spec, seed: u64) -> Self {
        Self {
            spec,
            dice: Dice(seed),
            busy_until: 0.0,
            last_arrival: 0,
            bad: false,
            dead: false,
            sent: 0,
            lost: 0,
            tail_drops: 0,
            bytes: 0,
            waited: (0.0, 0),
        }
    }

    /// Nothing leaves for so many ms: somebody on the way is busy.
    pub fn hold(&mut self, now: u64, ms: f64) {
        self.busy_until = self.busy_until.max(now as f64) + ms * 1e3;
    }

    /// When a packet of `len` bytes sent now (microseconds) arrives, if it does.
    pub fn send(&mut self, now: u64, len: usize) -> Option<u64> {
        self.sent += 1;
        self.bytes += len as u64;
        if self.dead {
            self.lost += 1;
            return None;
        }
        let at = now as f64;
        let wait = (self.busy_until - at).max(0.0);
        if wait * self.spec.mbit / 8.0 + len as f64 > self.spec.queue {
            self.tail_drops += 1;
            return None;
        }
        self.waited.0 += wait;
        self.waited.1 += 1;
        self.busy_until = at + wait + len as f64 * 8.0 / self.spec.mbit;
        if self.loses(at) {
            self.lost += 1;
            return None;
        }
        let jitter =
            if self.spec.jitter > 0.0 { self.dice.normal() * self.spec.jitter } else { 0.0 };
        let delay = (self.spec.delay + jitter).max(0.0) * 1e3;
        let arrives = (self.busy_until + delay) as u64;
        self.last_arrival = self.last_arrival.max(arrives);
        Some(if self.spec.in_order { self.last_arrival } else { arrives })
    }

    fn loses(&mut self, at: f64) -> bool {
        match &self.spec.loss {
            Loss::Independent(share) => *share > 0.0 && self.dice.unit() < *share,
            Loss::Burst(share, mean) => {
                let flip = self.dice.unit();
                self.bad = match self.bad {
                    true => flip >= 1.0 / mean,
                    false => flip < share / (1.0 - share) / mean,
                };
                self.bad
            }
            Loss::Switching(_) => self.dice.unit() < self.spec.loss.share(at),
        }
    }

    /// Mean wait in the queue, ms.
    pub fn mean_wait(&self) -> f64 {
        self.waited.0 / self.waited.1.max(1) as f64 / 1e3
    }
}
