//! A token bucket, so that errors about a flood are not a second flood (RFC 4443 §2.4 f).

use std::time::{Duration, Instant};

/// Grants `burst` at once and `per_second` after that.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_token: Duration,
    burst: u32,
    tokens: u32,
    last: Option<Instant>,
}

impl RateLimit {
    /// A full bucket. A rate of 0 grants nothing once the burst is spent.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let per_token = match per_second {
            0 => Duration::MAX,
            n => (Duration::from_secs(1) / n).max(Duration::from_nanos(1)),
        };
        Self { per_token, burst, tokens: burst, last: None }
    }

    /// Takes one token, if there is one.
    pub fn allow(&mut self, now: Instant) -> bool {
        let last = *self.last.get_or_insert(now);
        let earned = now.saturating_duration_since(last).as_nanos() / self.per_token.as_nanos();
        if earned > 0 {
            let room = self.burst - self.tokens;
            if earned >= u128::from(room) {
                self.tokens = self.burst;
                self.last = Some(now);
            } else {
                self.tokens += earned as u32;
                self.last = Some(last + self.per_token * earned as u32);
            }
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_burst_then_the_rate() {
        let t0 = start();
        let mut limit = RateLimit::new(10, 3);
        let at = |ms| t0 + Duration::from_millis(ms);
        assert_eq!((0..5).filter(|_| limit.allow(at(0))).count(), 3);
        assert_eq!((0..1000).filter(|i| limit.allow(at(*i))).count(), 9);
        assert_eq!((0..9).filter(|_| limit.allow(at(60_000))).count(), 3);
    }

    #[test]
    fn time_that_runs_backwards_grants_nothing() {
        let t0 = start() + Duration::from_secs(9);
        let mut limit = RateLimit::new(10, 1);
        assert!(limit.allow(t0));
        assert!(!limit.allow(t0 - Duration::from_secs(5)));
    }

    #[test]
    fn a_rate_of_zero_grants_nothing() {
        let mut limit = RateLimit::new(0, 0);
        assert!(!limit.allow(start()) && !limit.allow(start() + Duration::from_secs(1 << 30)));
    }
}
