//! What an emulator counts, and how late it was.

use serde::Serialize;

/// The counters of one direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Packets taken from the sending side.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets handed to the receiving side, duplicates included.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Dropped by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_dropped: u64,
    /// Dropped by the blackhole.
    pub blackholed: u64,
    /// Dropped, silently or with an ICMP answer, for their length.
    pub too_big: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Dropped by the emulator's own weakness (its memory was full, or the receiving side
    /// refused): any of them spoils a measurement.
    pub failed: u64,
    /// Packets on their way as of this report.
    pub in_flight: u64,
    /// The most bytes that ever waited for serialisation.
    pub queue_max: u64,
    /// The bytes that waited, on average over arriving packets.
    pub queue_mean: f64,
    /// How much later than decided packets were delivered.
    pub lateness: Lateness,
    /// Wake-ups of the thread.
    pub wakeups: u64,
    #[serde(skip)]
    pub(super) queue_sum: u128,
    #[serde(skip)]
    pub(super) histogram: Histogram,
}

/// How much later than decided packets were delivered, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Half were at most this late.
    pub p50_ns: u64,
    /// 99 % were at most this late.
    pub p99_ns: u64,
    /// The latest.
    pub max_ns: u64,
}

impl Stats {
    /// The share of packets that chance took, of those that it could have taken.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        let exposed = self.packets_in - self.queue_dropped - self.blackholed - self.too_big;
        self.lost as f64 / exposed.max(1) as f64
    }

    /// Whether a measurement over this link may be believed: nothing failed, and 99 % of packets
    /// were at most `p99_ns` late.
    #[must_use]
    pub fn is_sound(&self, p99_ns: u64) -> bool {
        self.failed == 0 && self.lateness.p99_ns <= p99_ns
    }

    /// Fills in what is derived from sums.
    pub(super) fn summarise(&mut self, in_flight: usize) {
        self.in_flight = in_flight as u64;
        self.queue_mean = self.queue_sum as f64 / self.packets_in.max(1) as f64;
        self.lateness.p50_ns = self.histogram.quantile(0.50).min(self.lateness.max_ns);
        self.lateness.p99_ns = self.histogram.quantile(0.99).min(self.lateness.max_ns);
    }

    /// Copies without allocating.
    pub(super) fn copy_from(&mut self, other: &Self) {
        let mut histogram = std::mem::replace(&mut self.histogram, Histogram::empty());
        histogram.copy_from(&other.histogram);
        *self = Self { histogram, ..*other };
    }

    pub(super) fn delivered(&mut self, len: usize, late_ns: u64) {
        self.packets_out += 1;
        self.bytes_out += len as u64;
        self.lateness.max_ns = self.lateness.max_ns.max(late_ns);
        self.histogram.add(late_ns);
    }
}

/// Eight buckets to each doubling: quantiles within 12 %.
const SUB_BITS: u32 = 3;
const BUCKETS: usize = (64 - SUB_BITS as usize) << SUB_BITS;

/// Counts of nanoseconds in buckets that grow with the value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0 }
    }
}

impl Histogram {
    /// A placeholder without memory.
    fn empty() -> Self {
        Self { counts: Box::new([]), total: 0 }
    }

    fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// An upper bound of the values below this quantile; 0 when empty.
    fn quantile(&self, q: f64) -> u64 {
        let wanted = (self.total as f64 * q).ceil() as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|&count| {
            seen += count;
            seen >= wanted && wanted > 0
        });
        found.map_or(0, ceiling)
    }

    /// Copies without allocating.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.counts.copy_from_slice(&other.counts);
        self.total = other.total;
    }
}

fn bucket(value: u64) -> usize {
    let shift = (63 - (value | 1).leading_zeros()).saturating_sub(SUB_BITS);
    ((shift as usize) << SUB_BITS) + (value >> shift) as usize
}

/// The largest value of a bucket.
fn ceiling(bucket: usize) -> u64 {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let base = (bucket - (shift << SUB_BITS)) as u64;
    ((base + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_below_its_buckets_ceiling_by_an_eighth_at_most() {
        for value in (0..100_000).chain([1 << 40, (1 << 50) + 12_345]) {
            let ceiling = ceiling(bucket(value));
            assert!(ceiling >= value && ceiling - value <= value / 8, "{value} {ceiling}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut stats = Stats::default();
        (1..=1000).for_each(|n| stats.delivered(100, n * 1000));
        stats.summarise(3);
        assert!((500_000..565_000).contains(&stats.lateness.p50_ns), "{:?}", stats.lateness);
        assert!((990_000..=1_000_000).contains(&stats.lateness.p99_ns));
        assert_eq!((stats.lateness.max_ns, stats.in_flight), (1_000_000, 3));
        assert!(stats.is_sound(1_000_000) && !stats.is_sound(900_000));
    }
}
