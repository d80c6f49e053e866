//! What one direction of a link does to packets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::trace::Trace;
use super::units::{format_duration, format_percent, format_rate};

/// One direction of a link. Parsed from words such as
/// `delay 20ms 5ms normal loss 0.5% rate 50mbit`; a default one passes everything at once.
///
/// In the order a packet meets them: MTU hole, blackhole, queue and rate, loss, delay and jitter.
/// Lost packets have used the link's capacity, as on a radio link: a rate C with loss p delivers
/// at most C·(1−p).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LinkSpec {
    /// Bits per second of IP packets; 0 is unlimited.
    pub rate: u64,
    /// One-way propagation delay, after serialisation.
    pub delay: Duration,
    /// What is added to the delay, packet by packet.
    pub jitter: Jitter,
    /// Whether jitter may change the order. If not, a packet waits for those before it, so that
    /// strong jitter at a high rate becomes mostly more delay (as in netem with a rate).
    pub reorder: bool,
    /// How much may wait for serialisation before the tail is dropped. Without a rate, nothing
    /// ever waits.
    pub queue: Queue,
    /// Random loss.
    pub loss: Loss,
    /// The share of packets delivered twice.
    pub duplicate: f64,
    /// Whether every packet that arrives from now on vanishes. Those under way still arrive.
    pub blackhole: bool,
    /// A bound on packet length that the devices' own MTU does not show.
    pub mtu_hole: Option<MtuHole>,
    /// A recording that overrides rate, loss and delay over time.
    pub trace: Option<Arc<Trace>>,
}

/// Random variation of the delay. The sum is never below zero.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Jitter {
    /// None.
    #[default]
    None,
    /// Uniform between minus and plus this.
    Uniform(Duration),
    /// Normal with this standard deviation, cut off at four of them.
    Normal(Duration),
}

/// The bound on what waits for serialisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Queue {
    /// So many bytes, but always at least one packet.
    Bytes(u64),
    /// So many times the rate times twice this direction's delay.
    Bdp(f64),
    /// So much time at the rate.
    Time(Duration),
}

impl Default for Queue {
    fn default() -> Self {
        Self::Bdp(1.0)
    }
}

/// The smallest queue a bandwidth-delay product or a time resolves to: about 20 packets.
const QUEUE_MIN: u64 = 32_000;

impl Queue {
    /// The bound in bytes at this rate (bit/s) and one-way delay.
    #[must_use]
    pub fn bytes(self, rate: u64, delay: Duration) -> u64 {
        let at_rate = |seconds: f64| (rate as f64 / 8.0 * seconds) as u64;
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Bdp(times) => at_rate(2.0 * times * delay.as_secs_f64()).max(QUEUE_MIN),
            Self::Time(span) => at_rate(span.as_secs_f64()),
        }
    }
}

/// Random loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet by itself with this probability.
    Random(f64),
    /// In bursts.
    GilbertElliott(GilbertElliott),
}

impl Loss {
    /// Loss of a share `p` of packets in bursts of `mean` packets on average (at least 1): losses
    /// end with probability 1/mean. A mean burst shorter than chance makes (1/(1−p)) is random
    /// loss.
    #[must_use]
    pub fn bursts(p: f64, mean: f64) -> Self {
        if p <= 0.0 {
            return Self::None;
        }
        if p >= 1.0 || mean * (1.0 - p) <= 1.0 {
            return Self::Random(p.min(1.0));
        }
        let recover = 1.0 / mean;
        Self::GilbertElliott(GilbertElliott {
            fail: p * recover / (1.0 - p),
            recover,
            bad_loss: 1.0,
            good_loss: 0.0,
        })
    }

    /// The share of packets lost in the long run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(p) => *p,
            Self::GilbertElliott(g) => g.mean(),
        }
    }
}

/// The Gilbert–Elliott model: a good and a bad state, a chance to change at each packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// The chance to go from good to bad, at each packet.
    pub fail: f64,
    /// The chance to go from bad to good, at each packet.
    pub recover: f64,
    /// The chance of loss in the bad state.
    pub bad_loss: f64,
    /// The chance of loss in the good state.
    pub good_loss: f64,
}

impl GilbertElliott {
    fn mean(&self) -> f64 {
        let bad = self.fail / (self.fail + self.recover).max(f64::MIN_POSITIVE);
        bad * self.bad_loss + (1.0 - bad) * self.good_loss
    }
}

/// A bound on packet length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtuHole {
    /// The longest IP packet that passes, in bytes.
    pub mtu: usize,
    /// Whether the sender is told by ICMP (fragmentation needed, packet too big).
    pub answers: bool,
}

/// A direction of a link between A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From A to B.
    Up,
    /// From B to A.
    Down,
}

/// Both directions of a link, its seed and the MTU of its devices.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkPair {
    /// From A to B.
    pub up: LinkSpec,
    /// From B to A.
    pub down: LinkSpec,
    /// With the packet's number and direction, decides every random draw.
    pub seed: u64,
    /// The MTU of the TUN devices at both ends.
    pub mtu: usize,
}

impl LinkPair {
    /// The same in both directions; seed 1, MTU 1500.
    #[must_use]
    pub fn symmetric(spec: LinkSpec) -> Self {
        Self::asymmetric(spec.clone(), spec)
    }

    /// Different in each direction; seed 1, MTU 1500.
    #[must_use]
    pub fn asymmetric(up: LinkSpec, down: LinkSpec) -> Self {
        Self { up, down, seed: 1, mtu: 1500 }
    }

    /// With another seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With another MTU of the devices.
    #[must_use]
    pub fn mtu(self, mtu: usize) -> Self {
        Self { mtu, ..self }
    }
}

impl From<LinkSpec> for LinkPair {
    fn from(spec: LinkSpec) -> Self {
        Self::symmetric(spec)
    }
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay {}", format_duration(self.delay))?;
        match self.jitter {
            Jitter::None => {}
            Jitter::Uniform(j) => write!(f, " {} uniform", format_duration(j))?,
            Jitter::Normal(j) => write!(f, " {} normal", format_duration(j))?,
        }
        if self.reorder {
            write!(f, " reorder")?;
        }
        match self.loss {
            Loss::None => {}
            Loss::Random(p) => write!(f, " loss {}", format_percent(p))?,
            Loss::GilbertElliott(g) => {
                let [p, r, h, k] = [g.fail, g.recover, g.bad_loss, g.good_loss].map(format_percent);
                write!(f, " loss gemodel {p} {r} {h} {k}")?;
            }
        }
        write!(f, " rate {}", format_rate(self.rate))?;
        match self.queue {
            Queue::Bytes(bytes) => write!(f, " queue {bytes}B")?,
            Queue::Bdp(times) => write!(f, " queue {times}bdp")?,
            Queue::Time(span) => write!(f, " queue {}", format_duration(span))?,
        }
        if self.duplicate > 0.0 {
            write!(f, " duplicate {}", format_percent(self.duplicate))?;
        }
        if let Some(MtuHole { mtu, answers }) = self.mtu_hole {
            write!(f, " {} {mtu}", if answers { "ptb" } else { "hole" })?;
        }
        if let Some(trace) = &self.trace {
            write!(f, " trace {}", trace.name())?;
        }
        if self.blackhole { write!(f, " blackhole on") } else { Ok(()) }
    }
}
