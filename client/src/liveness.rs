//! Whether the gateway still answers: what was sent and not answered, and for how long.

use std::time::{Duration, Instant};

/// The shortest silence that counts as death.
pub const MIN_SILENCE: Duration = Duration::from_secs(3);
/// Probe timeouts (about 3 RTT each) of silence that count as death on slow paths.
const RTTS: u32 = 12;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Send something that is answered.
    Ping,
    /// The connection is dead.
    Dead,
}

/// Watches one connection. Pure: told what happened and when.
#[derive(Debug)]
pub struct Liveness {
    keepalive: Duration,
    heard: Instant,
    received: u64,
    /// The first thing sent since something was last heard.
    unanswered: Option<Instant>,
    pinged: Option<Instant>,
}

impl Liveness {
    /// A connection that has just been heard from.
    pub fn new(now: Instant, keepalive: Duration) -> Liveness {
        Liveness { keepalive, heard: now, received: 0, unanswered: None, pinged: None }
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// `received` packets have been received in all.
    pub fn received(&mut self, now: Instant, received: u64) {
        if received > self.received {
            *self = Liveness { received, ..Liveness::new(now, self.keepalive) };
        }
    }

    /// The connection moved to another path: give it the whole time again, and ask it at once.
    pub fn moved(&mut self, now: Instant) {
        self.heard = now.checked_sub(self.keepalive).unwrap_or(now);
        self.unanswered = None;
        self.pinged = None;
    }

    /// What to do at `now` on a path with this round-trip time.
    pub fn action(&mut self, now: Instant, rtt: Duration) -> Action {
        let patience = patience(rtt);
        if self.unanswered.is_some_and(|since| now >= since + patience) {
            return Action::Dead;
        }
        // What was sent may not ask for an answer; a ping does. One early, so that death is certain at the end.
        let idle = now >= self.heard + self.keepalive;
        let doubtful = self.unanswered.is_some_and(|since| now >= since + patience / 3);
        let recent = self.pinged.is_some_and(|at| now < at + patience / 3);
        if (idle || doubtful) && !recent {
            self.pinged = Some(now);
            self.sent(now);
            return Action::Ping;
        }
        Action::None
    }

    /// When to ask again.
    pub fn timeout(&self, rtt: Duration) -> Instant {
        let step = patience(rtt) / 3;
        match self.unanswered {
            Some(since) => (self.pinged.unwrap_or(since) + step).min(since + step * 3),
            None => self.heard + self.keepalive,
        }
    }
}

fn patience(rtt: Duration) -> Duration {
    MIN_SILENCE.max(rtt * RTTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bauta_masque_io::clock;

    const RTT: Duration = Duration::from_millis(40);
    const KEEPALIVE: Duration = Duration::from_secs(15);

    #[test]
    fn an_idle_connection_is_pinged_and_lives_when_answered() {
        let start = clock::now();
        let mut l = Liveness::new(start, KEEPALIVE);
        assert_eq!(l.action(start + KEEPALIVE / 2, RTT), Action::None);
        let at = start + KEEPALIVE;
        assert_eq!(l.timeout(RTT), at);
        assert_eq!(l.action(at, RTT), Action::Ping);
        assert_eq!(l.action(at, RTT), Action::None);
        l.received(at + RTT, 1);
        assert_eq!(l.action(at + MIN_SILENCE * 2, RTT), Action::None);
    }

    #[test]
    fn silence_after_sending_is_death_after_three_seconds() {
        let start = clock::now();
        let mut l = Liveness::new(start, KEEPALIVE);
        l.sent(start);
        l.sent(start + MIN_SILENCE / 2);
        assert_eq!(l.action(start + MIN_SILENCE / 3, RTT), Action::Ping);
        assert_eq!(l.action(start + MIN_SILENCE, RTT), Action::Dead);
    }

    #[test]
    fn a_slow_path_is_given_more_time() {
        let start = clock::now();
        let rtt = Duration::from_secs(1);
        let mut l = Liveness::new(start, KEEPALIVE);
        l.sent(start);
        assert_ne!(l.action(start + MIN_SILENCE, rtt), Action::Dead);
        assert_eq!(l.action(start + rtt * RTTS, rtt), Action::Dead);
    }

    #[test]
    fn a_moved_connection_is_asked_at_once_and_given_its_time() {
        let start = clock::now();
        let mut l = Liveness::new(start, KEEPALIVE);
        l.sent(start);
        let moved = start + MIN_SILENCE / 2;
        l.moved(moved);
        assert_eq!(l.action(moved, RTT), Action::Ping);
        assert_ne!(l.action(start + MIN_SILENCE, RTT), Action::Dead);
        assert_eq!(l.action(moved + MIN_SILENCE, RTT), Action::Dead);
    }

    #[test]
    fn following_the_timer_reaches_the_verdict() {
        let mut now = clock::now();
        let end = now + KEEPALIVE + MIN_SILENCE + RTT;
        let mut l = Liveness::new(now, KEEPALIVE);
        loop {
            now = now.max(l.timeout(RTT));
            assert!(now <= end);
            if l.action(now, RTT) == Action::Dead {
                break;
            }
        }
    }
}
