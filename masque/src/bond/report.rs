//! What the peer's reports, and its silence, tell the sender.

use super::capsules::CloseCode;
use super::path::silence::WARM_PROBE;
use super::store::Fate;
use super::wire::{Feedback, WireError};
use super::{Bond, Down, PathId, QuicStats, sequence};

/// Untrue reports after which a bond is closed.
const MAX_LIES: u32 = 32;
/// Reports in a row that seem older than one before, after which that one is not believed.
const STALE: u32 = 16;
/// Silence of the reports after which QUIC's acknowledgements are looked at, and after which the peer
/// is deaf if they went on so many times, microseconds.
const DOUBT_HEARING: u64 = 1_000_000;
const DEAF_AFTER: u64 = 5_000_000;
const DEAF_AT: u32 = 4;
/// The share of the budget for which repair may bring a packet back before it is sent again.
const GRACE: f64 = 0.6;
/// The share of the least round trip within which what was sent again cannot be reported.
const TOO_SOON: f64 = 0.75;

impl Bond {
    /// Takes a report in that came by a path.
    pub(super) fn handle_feedback(
        &mut self,
        now: u64,
        by: PathId,
        feedback: &Feedback<'_>,
    ) -> Result<(), WireError> {
        // It may be late by this one, and known by another.
        if let Some(entry) = feedback.paths().find(|entry| entry.path == by)
            && let Some(path) = self.path(by)
        {
            path.note_own(now, &entry);
        }
        let settled = sequence::expand(feedback.settled.into(), 24, self.store.settled());
        let next = sequence::expand(feedback.next.into(), 24, self.store.settled());
        let clock = sequence::expand(feedback.clock.into(), 32, self.peer_clock);
        if clock < self.peer_clock && self.stale < STALE {
            self.stale += 1;
            return Err(WireError::Window);
        }
        self.stale = 0;
        if next > self.store.next() || settled > next {
            return self.lie();
        }
        self.peer_clock = clock;
        for entry in feedback.paths() {
            let Some(path) = self.path(entry.path) else { continue };
            match path.report(now, clock, &entry) {
                // What it brought over before is news too, by a slower path.
                Ok(true) if path.has_recovered() => self.revive_path(now, entry.path),
                Ok(true) => self.reconsider(now, entry.path),
                Ok(false) => {}
                Err(_) => return self.lie(),
            }
        }
        // What came since the last report and was not brought back by repair was overtaken.
        let recovered = std::mem::replace(&mut self.peer_recovered, feedback.recovered);
        self.overtaken = if recovered == feedback.recovered { self.missing } else { 0 };
        (self.store.settled()..settled).for_each(|n| self.arrived(now, n));
        self.store.settle(settled, &mut self.pool);
        self.judge_due = None;
        let mut at = settled;
        for (there, gone) in feedback.missing() {
            if there.saturating_add(gone) > next - at {
                return self.lie();
            }
            (at..at + there).for_each(|n| self.arrived(now, n));
            at += there;
            (at..at + gone).for_each(|n| self.judge(now, n));
            at += gone;
        }
        (at..next).for_each(|n| self.arrived(now, n));
        self.learn_losses(now);
        self.missing = next;
        Ok(())
    }

    fn lie(&mut self) -> Result<(), WireError> {
        self.lies += 1;
        self.counters.lies += 1;
        if self.lies == MAX_LIES {
            self.close(CloseCode::Lying);
        }
        Err(WireError::Range)
    }

    /// The peer has a packet. If it missed it before, that tells by how much packets are overtaken.
    fn arrived(&mut self, now: u64, sequence: u64) {
        if sequence < self.overtaken
            && let Some(sent) = self.store.get(sequence)
        {
            let (first, origin, number, at) = (sent.first, sent.origin, sent.number, sent.at);
            let (times, sparse) = (sent.times, sent.sparse);
            if let Some(path) = self.path(origin) {
                if times == 1 {
                    path.note_arrival(now, number, at);
                } else if times == 2 && !sparse && now < at + (path.min_rtt * TOO_SOON) as u64 {
                    // It was sent again for nothing.
                    path.note_arrival(now, 0, first);
                }
            }
        }
        self.store.done(sequence, &mut self.pool);
    }

    /// The peer misses a packet: whether it is lost, or on its way still.
    fn judge(&mut self, now: u64, sequence: u64) {
        let interval = self.interval();
        let Some(sent) = self.store.get(sequence).filter(|s| s.fate == Fate::Flight) else {
            return;
        };
        let (id, number, at) = (sent.path, sent.number, sent.at);
        // Where repair is under way it gets its chance first.
        let first = sent.times == 1 && !sent.sparse && !sent.light && self.outgoing.is_active();
        let grace = if first { self.config.budget.as_secs_f64() * GRACE * 1e6 } else { 0.0 };
        let path = self.paths.iter().find(|p| p.id == id && p.alive);
        let lost_at = path.map_or(Some(0), |p| p.lost_at(number, at, grace, interval));
        match lost_at {
            Some(due) if due <= now => self.store.lose(sequence),
            Some(due) => self.judge_due = Some(self.judge_due.map_or(due, |d| d.min(due))),
            None => {}
        }
    }

    /// Looks again at what the last report missed.
    pub(super) fn judge_again(&mut self, now: u64) {
        if self.judge_due.is_none_or(|due| due > now) {
            return;
        }
        self.judge_due = None;
        (self.store.settled()..self.missing).for_each(|n| self.judge(now, n));
    }

    /// When silence is to be looked at.
    pub(super) fn silence_due(&self) -> Option<u64> {
        if !self.is_minding() {
            return None;
        }
        let interval = self.interval();
        let several = self.paths.len() > 1;
        let fallback = self.has_fallback();
        let of = |p: &super::path::Path| {
            let silent = (p.next > p.reported).then(|| {
                let first = p.progress_at + p.patience(interval) as u64 + 1;
                first.max(p.probed_at + p.probe_pause(self.now, fallback))
            });
            let doubt = p.doubt_at(interval, self.peer_clock).filter(|_| fallback);
            let warm = several && self.numbered && !p.is_silent(self.now, interval);
            let warm = warm.then(|| p.numbered_at + WARM_PROBE);
            silent.into_iter().chain(warm).chain(doubt).chain(p.tell_at).min()
        };
        self.paths.iter().filter(|p| !p.held_down && !p.blocked).filter_map(of).min()
    }

    /// Declares dead what is silent, if there is another path.
    pub(super) fn watch_silence(&mut self, now: u64) {
        let interval = self.interval();
        for at in 0..self.paths.len() {
            if !self.has_fallback() {
                return;
            }
            if self.paths[at].doubt_at(interval, self.peer_clock).is_some_and(|due| due <= now) {
                let id = self.paths[at].id;
                self.lose_path(now, id, Down::Silence);
            }
        }
    }

    /// Whether another path could take over from one that dies.
    pub(super) fn has_fallback(&self) -> bool {
        self.paths.iter().filter(|p| p.alive).count() > 1
    }

    /// A peer whose QUIC acknowledges what its bond never reports does not speak our language.
    pub(super) fn watch_deafness(&mut self, now: u64, id: PathId, before: &QuicStats) {
        if !self.is_minding() {
            return;
        }
        let Some(path) = self.path(id) else { return };
        let silence = path.silence(now);
        if silence > DOUBT_HEARING && path.quic.acked_bytes > before.acked_bytes {
            path.unheard += 1;
        }
        if silence > DEAF_AFTER && path.unheard >= DEAF_AT {
            self.close(CloseCode::Protocol);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::field::Offer;
    use super::super::{Bond, Config, Role};

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment does")]
    fn no_report_is_waited_for_where_nothing_is_numbered() {
        let now = Instant::now();
        let mut bond = Bond::new(Config::new(Role::Client, Offer::default().agreed(), 1), now);
        assert!(bond.add_path(now, 0, 1_400));
        // A probe that was never reported.
        bond.paths[0].number(1);
        assert_eq!(bond.poll_timeout(), None);
        bond.numbered = true;
        assert!(bond.poll_timeout().is_some());
    }
}
