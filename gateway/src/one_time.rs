//! When a refusal leaves. The work that comes before it is the same for all as far as can be
//! ([`Accounts::pretend`](crate::accounts::Accounts::pretend)); the microseconds by which it still differs vanish because
//! the answer waits for the next of a row of moments that only the request's arrival decides.

use std::time::{Duration, Instant};

use bauta_masque_io::clock;

/// How far those moments lie apart: many times the work that comes before.
const STEP: Duration = Duration::from_millis(1);

/// Waits until the answer may leave to a request that came at `arrived` and asked for what is not to be had.
pub(crate) async fn turn(arrived: Instant) {
    tokio::time::sleep_until(next(arrived, clock::now()).into()).await;
}

/// The first of the moments after `now`.
fn next(arrived: Instant, now: Instant) -> Instant {
    let steps = now.saturating_duration_since(arrived).as_micros() / STEP.as_micros() + 1;
    u32::try_from(steps).map_or(now, |steps| arrived + STEP * steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_any_length_below_a_step_ends_at_one_moment() {
        let arrived = clock::now();
        for micros in [0, 1, 60, 999] {
            assert_eq!(next(arrived, arrived + Duration::from_micros(micros)), arrived + STEP);
        }
        assert_eq!(next(arrived, arrived + STEP), arrived + 2 * STEP);
        assert_eq!(next(arrived, arrived - STEP), arrived + STEP);
        let late = arrived + Duration::from_secs(1 << 40);
        assert_eq!(next(arrived, late), late);
    }
}
