//! What became of the datagrams of a path, told from its counters alone: how many were lost, once
//! those that others overtook have had the time to arrive.

use std::collections::VecDeque;

/// Reports that are kept at most while what they miss may still come.
const PENDING: usize = 64;
/// Over this time it is forgotten that fewer are missing than were counted as lost, microseconds:
/// how many packets are under way behind later ones varies, and is no loss.
const FORGET: f64 = 10e6;

/// Runs of losses from which their mean length is known, and the most it is taken to be.
const ENOUGH_RUNS: u64 = 20;
const MAX_BURST: f64 = 8.0;

/// A path's counters as one report gave them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// When the highest was sent, microseconds.
    pub(super) sent_at: u64,
    /// One above the highest that arrived.
    pub(super) next: u64,
    /// How many arrived.
    pub(super) received: u64,
    /// Gaps in the order of arrival.
    pub(super) runs: u64,
}

impl Seen {
    fn missing(&self) -> u64 {
        self.next.saturating_sub(self.received)
    }
}

/// Sums over the datagrams that are judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) runs: u64,
}

impl Judged {
    /// Mean length of a run of losses since `before`, if there were enough of them to tell.
    pub(super) fn burst_since(&self, before: &Self) -> Option<f64> {
        let runs = self.runs.saturating_sub(before.runs);
        let lost = self.lost.saturating_sub(before.lost);
        (runs >= ENOUGH_RUNS).then(|| (lost as f64 / runs as f64).clamp(1.0, MAX_BURST))
    }
}

#[derive(Debug, Default)]
pub(super) struct Fates {
    pending: VecDeque<Seen>,
    judged: Judged,
    judged_at: u64,
    /// As many were missing when losses were counted last.
    level: f64,
}

impl Fates {
    /// What is known by now.
    pub(super) const fn judged(&self) -> Judged {
        self.judged
    }

    /// Takes a report in. A datagram may arrive up to `late` microseconds after those that were sent
    /// behind it: so long nothing is judged.
    pub(super) fn report(&mut self, seen: Seen, late: f64) {
        if self.pending.len() == PENDING {
            self.judge();
        }
        self.pending.push_back(seen);
        let due = seen.sent_at.saturating_sub(late as u64);
        while self.pending.front().is_some_and(|first| first.sent_at <= due) {
            self.judge();
        }
    }

    /// Judges what the oldest report speaks of: missing is what was missing in every report since.
    fn judge(&mut self) {
        let missing = self.pending.iter().map(Seen::missing).min();
        let (Some(missing), Some(seen)) = (missing, self.pending.pop_front()) else { return };
        let sent = seen.next.saturating_sub(self.judged.sent);
        let fresh = (missing as f64 - self.level).clamp(0.0, sent as f64);
        let age = seen.sent_at.saturating_sub(self.judged_at) as f64;
        let surplus = (self.level - missing as f64).max(0.0);
        self.level += fresh - surplus * (age / FORGET).min(1.0);
        self.judged.sent += sent;
        self.judged.lost += fresh.round() as u64;
        self.judged.runs = self.judged.runs.max(seen.runs);
        self.judged_at = seen.sent_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at: u64, next: u64, missing: u64) -> Seen {
        Seen { sent_at: at * 1_000, next, received: next - missing, runs: 0 }
    }

    #[test]
    fn without_reordering_each_report_is_believed_at_once() {
        let mut fates = Fates::default();
        fates.report(seen(1, 100, 3), 0.0);
        assert_eq!(fates.judged(), Judged { sent: 100, lost: 3, runs: 0 });
        fates.report(seen(2, 200, 8), 0.0);
        assert_eq!(fates.judged(), Judged { sent: 200, lost: 8, runs: 0 });
    }

    #[test]
    fn what_was_overtaken_is_not_lost() {
        let mut fates = Fates::default();
        for n in 1..1_000 {
            // Between 10 and 30 are on their way behind later ones, but for a moment now and then.
            let under_way = if n % 4 == 0 { 10 } else { 10 + n * 7_919 % 20 };
            fates.report(seen(n * 5, 100 + n * 20, under_way), 25_000.0);
        }
        let judged = fates.judged();
        assert!(judged.sent > 19_000 && judged.lost <= 10, "{judged:?}");
    }

    #[test]
    fn losses_among_the_overtaken_are_found() {
        let mut fates = Fates::default();
        for n in 1..1_000 {
            let under_way = if n % 4 == 0 { 10 } else { 10 + n * 7_919 % 20 };
            fates.report(seen(n * 5, 100 + n * 20, under_way + n), 25_000.0);
        }
        let lost = fates.judged().lost;
        assert!((980..1_010).contains(&lost), "{lost}");
    }
}
