//! The lab's clock. The lab is a measuring device: it reads the kernel's monotonic clock itself.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    // CLOCK_MONOTONIC cannot fail on Linux; 0 would show at once as absurd lateness.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let (seconds, nanos) = (t.tv_sec().unsigned_abs(), t.tv_nsec().unsigned_abs());
        seconds * 1_000_000_000 + nanos
    })
}

/// A moment by which something must have happened.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: u64,
    within: Duration,
}

impl Deadline {
    /// The moment `within` from now.
    #[must_use]
    pub fn after(within: Duration) -> Self {
        let nanos = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        Self { at: now_ns().saturating_add(nanos), within }
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        now_ns() >= self.at
    }

    /// The span it was made with, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.within.as_secs_f64()
    }
}

/// Calls `probe` every few milliseconds until it says `Some`, or `within` has passed.
pub fn poll_until<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if deadline.passed() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
