//! Both ends of a flow, without a socket and without a clock of their own.

use std::time::{Duration, Instant};

use super::wire::Plan;

/// Packets in one train at most: what one GSO send may carry of 1,200 bytes.
pub(super) const TRAIN: u64 = 50;
/// Silence after which everything under way counts as lost.
const PATIENCE: Duration = Duration::from_millis(25);

/// The sending end.
#[derive(Debug)]
pub struct Outgoing {
    plan: Plan,
    next: u64,
    acked: u64,
    received: u64,
    heard: Instant,
    end: Instant,
    stalls: u64,
}

impl Outgoing {
    /// Begins now.
    pub fn new(plan: Plan, now: Instant) -> Self {
        let end = now + Duration::from_millis(plan.millis);
        Self { plan, next: 0, acked: 0, received: 0, heard: now, end, stalls: 0 }
    }

    /// What is sent.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Whether it has sent for its time.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }

    /// The next train as (first number, packets), if the window has room for a good one.
    pub fn train(&mut self, now: Instant) -> Option<(u64, u64)> {
        if self.is_over(now) {
            return None;
        }
        if self.next > self.acked && now >= self.heard + PATIENCE {
            self.acked = self.next;
            self.heard = now;
            self.stalls += 1;
        }
        let room = (self.acked + self.plan.window).saturating_sub(self.next);
        let least = TRAIN.min(self.plan.window.div_ceil(2)).max(1);
        (room >= least).then(|| (self.next, room.min(TRAIN)))
    }

    /// `count` packets have gone out.
    pub fn sent(&mut self, count: u64) {
        self.next += count;
    }

    /// The receiver has told how far it is.
    pub fn acknowledged(&mut self, next: u64, received: u64, now: Instant) {
        self.heard = now;
        self.acked = self.acked.max(next.min(self.next));
        self.received = self.received.max(received);
    }

    /// (sent, arrived as far as is known, times everything was given up)
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.next, self.received, self.stalls)
    }
}

/// The receiving end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming {
    /// The highest number seen, and one.
    pub next: u64,
    /// Packets that arrived.
    pub received: u64,
}

impl Incoming {
    /// A packet has arrived.
    pub fn data(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
        self.received += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(window: u64) -> (Outgoing, Instant) {
        let now = bauta_masque_io::clock::now();
        (Outgoing::new(Plan { size: 1200, window, millis: 1000, single: false }, now), now)
    }

    #[test]
    fn no_more_than_the_window_is_under_way() {
        let (mut flow, now) = flow(120);
        let mut sent = 0;
        while let Some((first, count)) = flow.train(now) {
            assert_eq!(first, sent);
            sent += count;
            flow.sent(count);
        }
        assert_eq!(sent, 100, "a rest of 20 waits for a whole train");
        flow.acknowledged(80, 80, now);
        assert_eq!(flow.train(now), Some((100, 50)));
    }

    #[test]
    fn a_window_smaller_than_a_train_goes_on_at_its_half() {
        let (mut flow, now) = flow(8);
        assert_eq!(flow.train(now), Some((0, 8)));
        flow.sent(8);
        flow.acknowledged(3, 3, now);
        assert_eq!(flow.train(now), None);
        flow.acknowledged(4, 4, now);
        assert_eq!(flow.train(now), Some((8, 4)));
    }

    #[test]
    fn what_is_lost_does_not_stop_a_flow() {
        let (mut flow, now) = flow(50);
        flow.sent(50);
        assert_eq!(flow.train(now), None);
        assert_eq!(flow.train(now + PATIENCE), Some((50, 50)));
        assert_eq!(flow.counts(), (50, 0, 1));
    }

    #[test]
    fn it_ends_when_its_time_is_over() {
        let (mut flow, now) = flow(50);
        assert_eq!(flow.train(now + Duration::from_secs(1)), None);
    }

    #[test]
    fn numbers_that_were_never_sent_are_not_believed() {
        let (mut flow, now) = flow(50);
        flow.sent(10);
        flow.acknowledged(1 << 60, 10, now);
        assert_eq!(flow.train(now), Some((10, 50)));
    }
}
