//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// The longest wait.
pub const MAX_WAIT: Duration = Duration::from_secs(15);

/// Waits of 0, 0.5, 1, 2, 4, 8, 15, 15 … s, each up to a quarter shorter by chance, so that the clients of a
/// restarted gateway do not come back at the same moment.
#[derive(Debug)]
pub struct Backoff {
    attempt: u32,
    random: u64,
}

impl Backoff {
    /// A fresh sequence whose jitter follows from `seed`.
    pub fn new(seed: u64) -> Backoff {
        Backoff { attempt: 0, random: seed }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let attempt = self.attempt;
        self.attempt = attempt.saturating_add(1);
        if attempt == 0 {
            return Duration::ZERO;
        }
        let full =
            Duration::from_millis(500).saturating_mul(1 << (attempt - 1).min(8)).min(MAX_WAIT);
        full.mul_f64(1.0 - self.draw() / 4.0)
    }

    /// Attempts made since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// A number in 0..1 (SplitMix64).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_at_once_and_the_rest_double_up_to_the_bound() {
        let mut backoff = Backoff::new(1);
        assert_eq!(backoff.next_wait(), Duration::ZERO);
        for full in [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0] {
            let wait = backoff.next_wait().as_secs_f64();
            assert!(wait <= full && wait >= full * 0.75, "{wait} of {full}");
        }
    }

    #[test]
    fn a_success_begins_anew_and_no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(2);
        (0..10_000).for_each(|_| assert!(backoff.next_wait() <= MAX_WAIT));
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::ZERO);
    }

    #[test]
    fn jitter_follows_from_the_seed_alone() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..5).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }
}
