//! When a refusal leaves. The work that comes before it is the same for all as far as can be
//! ([`Accounts::pretend`](crate::accounts::Accounts::pretend)); the microseconds by which it still differs vanish because
//! the answer waits for the next of a row of moments that only the request's arrival decides.
//!
//! A runtime's own timer would not do: it sleeps for whole milliseconds from when it begins to wait, so that what
//! came before would be seen in when it wakes. A thread of its own sleeps until the moment itself.

use std::collections::BTreeMap;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bauta_masque_io::clock;
use tokio::sync::oneshot;
use tracing::warn;

/// How far those moments lie apart: many times the work that comes before.
const STEP: Duration = Duration::from_millis(1);
/// How late the kernel may wake the thread, nanoseconds; 50,000 without asking.
const SLACK: u64 = 1;

/// Waits until the answer may leave to a request that came at `arrived` and asked for what is not to be had.
pub(crate) async fn turn(arrived: Instant) {
    let at = next(arrived, clock::now());
    let rung = BELL.as_ref().map(|bell| bell.wait(at));
    let heard = match rung {
        Some(rung) => rung.await.is_ok(),
        None => false,
    };
    if !heard {
        tokio::time::sleep_until(at.into()).await;
    }
}

/// The first of the moments after `now`.
fn next(arrived: Instant, now: Instant) -> Instant {
    let steps = now.saturating_duration_since(arrived).as_micros() / STEP.as_micros() + 1;
    u32::try_from(steps).map_or(now, |steps| arrived + STEP * steps)
}

/// The one bell of the process; `None` where there is no thread for it.
static BELL: LazyLock<Option<&'static Bell>> = LazyLock::new(|| {
    let bell: &'static Bell = Box::leak(Box::default());
    let begun = thread::Builder::new().name("bell".into()).spawn(|| bell.ring());
    begun.inspect_err(|error| warn!(%error, "no thread that times refusals")).ok().map(|_| bell)
});

/// Who waits for which moment.
#[derive(Default)]
struct Waiting {
    list: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    next: u64,
}

/// Wakes each at its moment.
#[derive(Default)]
struct Bell {
    waiting: Mutex<Waiting>,
    sooner: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, at: Instant) -> oneshot::Receiver<()> {
        let (ring, rung) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.list.insert((at, number), ring);
        let first = waiting.list.first_key_value().is_some_and(|(key, _)| *key == (at, number));
        drop(waiting);
        if first {
            self.sooner.notify_one();
        }
        rung
    }

    fn ring(&self) {
        // Without it the bell is late, for all alike.
        let _ = nix::sys::prctl::set_timerslack(SLACK);
        let mut waiting = self.lock();
        loop {
            let now = clock::now();
            while let Some(first) = waiting.list.first_entry()
                && first.key().0 <= now
            {
                // Who has given up waiting hears nothing.
                let _ = first.remove().send(());
            }
            let first = waiting.list.first_key_value().map(|((at, _), _)| *at);
            waiting = match first {
                None => self.sooner.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let slept =
                        self.sooner.wait_timeout(waiting, at.saturating_duration_since(now));
                    slept.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
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

    #[tokio::test]
    async fn none_leaves_before_its_moment_and_all_leave() {
        let arrived = clock::now();
        let turns = (0..100).map(|i| {
            let arrived = arrived + Duration::from_micros(37 * i);
            tokio::spawn(async move {
                turn(arrived).await;
                clock::now() - arrived
            })
        });
        for turn in turns.collect::<Vec<_>>() {
            assert!(turn.await.unwrap() >= STEP);
        }
    }
}
