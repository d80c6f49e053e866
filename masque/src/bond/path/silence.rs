//! A path of which nothing is heard: when it is in doubt, given up, and believed in again.

use super::Path;
use crate::bond::Down;

/// Datagrams without a report after which silence means that a path is dead, and the time between
/// the probes that make them so many, microseconds.
const DOUBT_AFTER: u64 = 5;
const DOUBT_PROBE: u64 = 3_000;
/// So long a silent path is probed each half round trip, then ever less often, microseconds.
const EAGER_SILENCE: u64 = 1_000_000;
/// A warm path is probed this often, microseconds.
pub(in crate::bond) const WARM_PROBE: u64 = 100_000;
/// So much later than usual nothing is late yet, microseconds.
const MARGIN: f64 = 5_000.0;
/// Where a silent path proved to be alive, it is waited for this much longer than the proof took, at
/// most so long, microseconds; half of it is forgotten over so much time.
const CAUTION_GAIN: f64 = 1.5;
const MAX_CAUTION: f64 = 40_000.0;
const CAUTION_SPAN: u64 = 10_000_000;

impl Path {
    /// Whether something has arrived that was sent after the path was given up.
    pub(in crate::bond) fn has_recovered(&self) -> bool {
        self.reported_at() > self.died_at
    }

    /// How much later than usual is late, microseconds.
    fn margin(&self) -> f64 {
        (4.0 * self.rttvar).max(MARGIN) + self.caution
    }

    /// It carries nothing any more.
    pub(in crate::bond) fn give_up(&mut self, now: u64, why: Down) {
        (self.alive, self.died_at, self.silenced) = (false, now, why == Down::Silence);
        self.tell_at = self.silenced.then_some(now + self.srtt as u64);
    }

    /// Whether silence was no sign of death: what was overdue when it was given up has been reported
    /// since, no later than it takes, and what was sent after that is not overdue yet. Then it carries
    /// packets again, and the next silence has to last for longer: somebody on the way is slow at
    /// times.
    pub(in crate::bond) fn reconsider(&mut self, now: u64, interval: f64, clock: u64) -> bool {
        let overdue = self.next > self.reported
            && self.overdue_at(interval, clock).is_none_or(|due| due <= now);
        // By a slower path comes what was true before it died.
        let usual = self.min_rtt + self.rate.queue() + MARGIN + self.caution;
        let stale = now.saturating_sub(self.reported_at()) as f64 > usual;
        if self.alive || !self.silenced || self.held_down || overdue || stale {
            return false;
        }
        (self.alive, self.tell_at) = (true, None);
        let late = now.saturating_sub(self.died_at) as f64;
        self.caution = (self.caution + CAUTION_GAIN * late).min(MAX_CAUTION);
        self.caution_since = now;
        true
    }

    /// Reports come: what was learned from mistakes is forgotten over time.
    pub(super) fn grow_bold(&mut self, now: u64) {
        if now > self.caution_since + CAUTION_SPAN {
            (self.caution, self.caution_since) = (self.caution / 2.0, now);
        }
    }

    /// Silence after which what is on its way is in doubt, microseconds. `interval` is the peer's
    /// between reports.
    pub(in crate::bond) fn patience(&self, interval: f64) -> f64 {
        self.srtt + self.margin() + interval + self.rate.queue()
    }

    /// When what is on its way is in doubt: the first datagram not reported has been on its way for
    /// longer than [`patience`](Self::patience), and a report that was written at `clock`, by the
    /// peer's, should have known it. Without one the reports may have been lost, not the datagram:
    /// then they get the time to come by this path, and where packets come by it, a report may wait among
    /// them, for a round trip at most. News of it by a slower path is no sign of life.
    pub(in crate::bond) fn doubt_at(&self, interval: f64, clock: u64) -> Option<u64> {
        let enough = self.alive && self.outstanding() >= DOUBT_AFTER;
        self.overdue_at(interval, clock).filter(|_| enough)
    }

    fn overdue_at(&self, interval: f64, clock: u64) -> Option<u64> {
        let first = self.sent_at(self.reported)?.max(self.alive_since);
        let known = clock as f64 > first as f64 + self.delay() + self.margin();
        let due = |longer: f64| first + (self.patience(interval) + longer) as u64 + 1;
        if known {
            return Some(due(0.0));
        }
        let due = due((self.own_rtt - self.srtt).max(0.0));
        let queued = self.heard_at + (interval + self.margin()) as u64;
        Some(queued.clamp(due, due + self.srtt as u64))
    }

    /// The pause between two probes of a silent path: short while another one could take over,
    /// so that there is soon enough unreported to be sure.
    pub(in crate::bond) fn probe_pause(&self, now: u64, several: bool) -> u64 {
        let silence = self.silence(now);
        match several && self.alive {
            true => DOUBT_PROBE,
            // Bursts of loss take reports too, and what waits for one may be all there is to send.
            false if silence < EAGER_SILENCE => {
                (silence / 2).min((self.srtt / 2.0).max(5_000.0) as u64).max(2_000)
            }
            false => (silence / 2).min(500_000),
        }
    }

    /// The pause between two probes of a path that carries nothing else, shorter as long as nothing is known of it.
    pub(in crate::bond) fn warm_pause(&self) -> u64 {
        if self.is_measured() { WARM_PROBE } else { WARM_PROBE / 4 }
    }

    /// About when the peer wrote its last report of news, microseconds: what was sent before has had
    /// its way still, whatever happened then.
    pub(in crate::bond) fn heard_of(&self) -> u64 {
        self.progress_at.saturating_sub((self.srtt / 2.0) as u64)
    }

    /// Whether reports are overdue.
    pub(in crate::bond) fn is_silent(&self, now: u64, interval: f64) -> bool {
        self.silence(now) as f64 > self.patience(interval)
    }

    /// For how long nothing of what was sent has been reported, microseconds.
    pub(in crate::bond) fn silence(&self, now: u64) -> u64 {
        if self.next == self.reported { 0 } else { now.saturating_sub(self.progress_at) }
    }
}
