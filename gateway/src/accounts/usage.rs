//! What an account uses at the moment: flows and bits. Atomics, because workers share accounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bauta_masque_io::clock;

/// How far a burst may run ahead of the rate.
const BURST: Duration = Duration::from_millis(100);

/// A burst this large always passes, however low the rate: one super-packet.
const BURST_BYTES: u64 = 65_536;

/// Live usage of one account.
#[derive(Debug, Default)]
pub struct Usage {
    flows: AtomicUsize,
    /// Bytes of this month that were counted before this start.
    carried: AtomicU64,
    /// Bytes counted by the buckets that belong to earlier months.
    past: AtomicU64,
    /// Client to Internet.
    pub up: Bucket,
    /// Internet to client.
    pub down: Bucket,
}

impl Usage {
    /// Sets both directions' rate, in bits a second.
    pub fn set_rate(&self, rate: Option<u64>) {
        self.up.rate.store(rate.unwrap_or(0), Relaxed);
        self.down.rate.store(rate.unwrap_or(0), Relaxed);
    }

    /// The rate of each direction, bits a second, if there is one.
    pub fn rate(&self) -> Option<u64> {
        Some(self.down.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    /// Bytes of this month, both ways together.
    pub fn used(&self) -> u64 {
        let past = self.past.load(Relaxed);
        self.carried.load(Relaxed).saturating_add(self.counted().saturating_sub(past))
    }

    fn counted(&self) -> u64 {
        self.up.passed.load(Relaxed).wrapping_add(self.down.passed.load(Relaxed))
    }

    /// Goes on from what was counted before this start.
    pub(super) fn carry(&self, bytes: u64) {
        self.carried.store(bytes, Relaxed);
    }

    /// A new month: nothing is used yet.
    pub(super) fn begin_month(&self) {
        self.past.store(self.counted(), Relaxed);
        self.carried.store(0, Relaxed);
    }

    /// One more flow, unless the account holds `limit` already. Ends with the guard.
    pub fn open_flow(self: &Arc<Self>, limit: usize) -> Option<FlowGuard> {
        let more = |n| (n < limit).then_some(n + 1);
        self.flows.fetch_update(Relaxed, Relaxed, more).ok().map(|_| FlowGuard(self.clone()))
    }
}

/// A flow in being.
#[derive(Debug)]
pub struct FlowGuard(Arc<Usage>);

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Relaxed);
    }
}

/// A token bucket without a lock: the time at which everything admitted so far will have been
/// sent at the rate (the generic cell rate algorithm).
#[derive(Debug)]
pub struct Bucket {
    /// Bits a second; 0: unlimited.
    rate: AtomicU64,
    /// Bytes admitted since the start.
    passed: AtomicU64,
    epoch: Instant,
    /// Nanoseconds after `epoch`.
    clear_at: AtomicU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            rate: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            epoch: clock::now(),
            clear_at: AtomicU64::new(0),
        }
    }
}

impl Bucket {
    /// Admits `bytes` at `now`, or says that they are beyond the rate.
    #[inline]
    pub fn admit(&self, now: Instant, bytes: usize) -> bool {
        let rate = self.rate.load(Relaxed);
        let admitted = rate == 0 || self.admit_limited(now, bytes as u64, rate);
        if admitted {
            self.passed.fetch_add(bytes as u64, Relaxed);
        }
        admitted
    }

    fn admit_limited(&self, now: Instant, bytes: u64, rate: u64) -> bool {
        let nanos = |bytes: u64| bytes.saturating_mul(8_000_000_000) / rate;
        let now = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        let limit = now + (BURST.as_nanos() as u64).max(nanos(BURST_BYTES));
        let cost = nanos(bytes);
        let later = |clear_at: u64| {
            let clear_at = clear_at.max(now) + cost;
            (clear_at <= limit).then_some(clear_at)
        };
        self.clear_at.fetch_update(Relaxed, Relaxed, later).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_rate_over_time() {
        let usage = Usage::default();
        usage.set_rate(Some(8_000_000));
        let start = clock::now();
        let mut admitted = 0;
        for ms in 0..1000 {
            for _ in 0..10 {
                if usage.up.admit(start + Duration::from_millis(ms), 1000) {
                    admitted += 1000;
                }
            }
        }
        assert!((1_000_000..=1_110_000).contains(&admitted), "{admitted}");
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let bucket = Bucket::default();
        assert!((0..1000).all(|_| bucket.admit(clock::now(), 65_535)));
    }

    #[test]
    fn flows_are_counted_and_given_back() {
        let usage = Arc::new(Usage::default());
        let one = usage.open_flow(2).unwrap();
        let _two = usage.open_flow(2).unwrap();
        assert!(usage.open_flow(2).is_none());
        drop(one);
        assert!(usage.open_flow(2).is_some());
    }
}
