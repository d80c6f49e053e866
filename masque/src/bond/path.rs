//! One path: what was sent on it and when, what the peer reported, and what arrived by it.

use super::fates::{Fates, Judged, Seen};
use super::rate::{Progress, Rate, WIRE};
use super::wire::PathFeedback;
use super::{PathId, QuicStats, sequence};

pub(super) mod silence;

/// Path numbers whose time of sending is remembered; a power of two.
const NUMBERS: usize = 8_192;
/// Packets a path may always send at once.
const BURST_PACKETS: f64 = 10.0;
/// Time's worth of rate that may be sent at once, seconds: timers are no finer than a millisecond.
const BURST_SECONDS: f64 = 0.002;
/// As much where packets wait for their turn and somebody came late to let them out, seconds: a
/// processor has other things to do, and what was not sent then is lost to the path.
const LATE_SECONDS: f64 = 0.006;
/// As much may be on its way as the rate explains in the round trips that reports take, and this
/// longer, microseconds, at first and later on; and so much in any case, bytes.
const STARTUP_SLACK: f64 = 15_000.0;
const SLACK: f64 = 60_000.0;
const LEAST_ROOM: f64 = 48_000.0;
/// Datagrams over which their length is averaged.
const MEAN_OVER: f64 = 64.0;
/// So long it is remembered how late a datagram arrived after later ones, at least, microseconds,
/// and by how much the next may be later still.
const LATE_SPAN: u64 = 10_000_000;
const LATE_MARGIN: f64 = 1.5;
/// So long what was measured of a path holds while it is used without numbers, microseconds.
const MEMORY: u64 = 60_000_000;
/// A round trip assumed before any is known, microseconds.
const FIRST_RTT: f64 = 100_000.0;
/// Bytes of a datagram assumed before any was sent.
const FIRST_LEN: f64 = 1_500.0;
/// Packets a round trip to begin with, and the least rate, bytes a second.
const FIRST_WINDOW: f64 = 32.0;
const FIRST_RATE: f64 = 1_250_000.0;

/// Why a report about a path is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lie;

#[derive(Debug)]
pub(super) struct Path {
    pub(super) id: PathId,
    pub(super) max_payload: usize,
    pub(super) blocked: bool,
    pub(super) alive: bool,
    /// Whether `alive` was taken away from outside.
    pub(super) held_down: bool,
    pub(super) standby: bool,
    pub(super) quic: QuicStats,
    pub(super) rate: Rate,
    /// The next path number, and the one above the highest the peer has reported.
    pub(super) next: u64,
    pub(super) reported: u64,
    pub(super) sent_bytes: u64,
    /// Bytes of a datagram on the wire, lately.
    mean_len: f64,
    /// When the last datagram with a path number left, and came.
    pub(super) numbered_at: u64,
    pub(super) heard_at: u64,
    /// When `reported` last rose.
    pub(super) progress_at: u64,
    pub(super) probed_at: u64,
    /// When it was taken in, or was revived last.
    pub(super) alive_since: u64,
    /// When it was given up last.
    pub(super) died_at: u64,
    /// When the peer is to be told that it is given up, if it has not been.
    pub(super) tell_at: Option<u64>,
    /// Whether silence alone is why it was given up, and how much longer silence has to last since
    /// that was wrong, microseconds.
    silenced: bool,
    caution: f64,
    caution_since: u64,
    /// How often QUIC's acknowledgements went on while reports stayed away.
    pub(super) unheard: u32,
    pub(super) srtt: f64,
    pub(super) rttvar: f64,
    /// The same of reports that came back by this path, 0 if none has.
    own_rtt: f64,
    pub(super) min_rtt: f64,
    /// Whether the first report is to tell of a queue that was there before it.
    queued: bool,
    progress: Progress,
    runs: u64,
    fates: Fates,
    /// Up to where fates were handed out.
    taken: Judged,
    /// The number above the highest of the report before this one, and when that was sent.
    before: (u64, u64),
    /// By how much datagrams were seen to arrive after later ones, at most, by two spans of time,
    /// microseconds.
    late: [f64; 2],
    late_since: u64,
    sent_at: Vec<u64>,
    tokens: f64,
    /// Whether something was to go out that had to wait for its turn.
    waits: bool,
    tokens_at: u64,
    pub(super) incoming: Incoming,
}

/// What arrived by a path.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    next: u64,
    received: u64,
    bytes: u64,
    runs: u64,
    pub(super) highest_at: u64,
}

impl Incoming {
    /// Counts a datagram; says whether numbers before it are missing.
    pub(super) fn count(&mut self, now: u64, number: u16, len: usize) -> bool {
        let number = sequence::expand(number.into(), 16, self.next);
        self.received += 1;
        self.bytes += len as u64;
        if number < self.next {
            return false;
        }
        let gap = number > self.next;
        self.runs += u64::from(gap);
        (self.next, self.highest_at) = (number + 1, now);
        gap
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn feedback(&self, path: PathId, now: u64) -> PathFeedback {
        PathFeedback {
            path,
            next: self.next as u32,
            received: self.received as u32,
            bytes: self.bytes as u32,
            runs: self.runs as u32,
            held: now.saturating_sub(self.highest_at).min(u32::MAX.into()) as u32,
        }
    }
}

impl Path {
    pub(super) fn new(id: PathId, max_payload: usize, limit: Option<f64>, now: u64) -> Self {
        Self {
            id,
            max_payload,
            blocked: false,
            alive: true,
            held_down: false,
            standby: false,
            quic: QuicStats::default(),
            rate: Rate::new(FIRST_RATE, limit),
            next: 0,
            reported: 0,
            sent_bytes: 0,
            mean_len: FIRST_LEN,
            numbered_at: 0,
            heard_at: 0,
            progress_at: now,
            probed_at: 0,
            alive_since: now,
            died_at: 0,
            tell_at: None,
            silenced: false,
            caution: 0.0,
            caution_since: now,
            unheard: 0,
            srtt: FIRST_RTT,
            rttvar: FIRST_RTT / 4.0,
            own_rtt: 0.0,
            min_rtt: f64::INFINITY,
            queued: false,
            progress: Progress::default(),
            runs: 0,
            fates: Fates::default(),
            taken: Judged::default(),
            before: (0, 0),
            late: [0.0; 2],
            late_since: now,
            sent_at: Vec::new(),
            tokens: BURST_PACKETS * 1_500.0,
            waits: false,
            tokens_at: now,
            incoming: Incoming::default(),
        }
    }

    /// Whether a report about this path has come.
    pub(super) fn is_measured(&self) -> bool {
        self.min_rtt.is_finite()
    }

    /// Goes on from what was known of it before, if that is not long ago, else begins anew; `carried`
    /// is what QUIC saw since, bytes a second.
    pub(super) fn restart(&mut self, carried: f64, limit: Option<f64>, now: u64) {
        self.progress_at = now;
        let age = now.saturating_sub(self.reported_at());
        if self.is_measured() && age < MEMORY && self.rate.resume(carried) {
            return;
        }
        self.rate = Rate::new(self.first_rate().max(carried), limit);
        self.min_rtt = f64::INFINITY;
    }

    /// Begins anew where `carried` bytes a second are all that goes through, and queue.
    pub(super) fn restart_full(&mut self, carried: f64, limit: Option<f64>, now: u64) {
        self.progress_at = now;
        self.rate = Rate::full(carried, limit);
        self.min_rtt = self.quic.min_rtt.as_secs_f64() * 1e6;
        self.queued = true;
    }

    /// Where to begin: a window of packets a round trip, or what went through without us.
    fn first_rate(&self) -> f64 {
        let rtt =
            if self.quic.rtt.is_zero() { FIRST_RTT } else { self.quic.rtt.as_secs_f64() * 1e6 };
        (FIRST_WINDOW * 1_500.0 / (rtt.max(1_000.0) / 1e6)).max(FIRST_RATE)
    }

    // Sending.

    fn refill(&mut self, now: u64) {
        let rate = self.rate.pace();
        let span = if self.waits { LATE_SECONDS } else { BURST_SECONDS };
        let most = (rate * span).max(BURST_PACKETS * 1_500.0);
        let age = now.saturating_sub(self.tokens_at) as f64 / 1e6;
        self.tokens = (self.tokens + rate * age).min(most);
        self.tokens_at = now;
    }

    /// Whether the path takes a datagram now.
    pub(super) fn is_ready(&mut self, now: u64) -> bool {
        self.refill(now);
        self.waits = self.tokens < 0.0;
        !self.waits && self.has_room()
    }

    /// Not more is on its way than the rate explains, should reports stay away.
    fn has_room(&self) -> bool {
        let span =
            if self.rate.is_eager() { self.srtt + STARTUP_SLACK } else { 2.0 * self.srtt + SLACK };
        (self.outstanding() as f64 * self.mean_len)
            < (self.rate.rate() * span / 1e6).max(LEAST_ROOM)
            && self.outstanding() < NUMBERS as u64
    }

    /// Datagrams on their way, as far as is known.
    pub(super) fn outstanding(&self) -> u64 {
        self.next - self.reported
    }

    /// When it takes a single one, microseconds; now or later.
    pub(super) fn open_at(&self, now: u64) -> u64 {
        match self.has_room() {
            true => now.max(self.tokens_at + (-self.tokens / self.rate.pace() * 1e6) as u64),
            false => now + 5_000,
        }
    }

    /// When it is worth while to come back with many, microseconds; now or later.
    pub(super) fn ready_at(&self, now: u64) -> u64 {
        // Filled for a millisecond at once, so that timers do not fire for single packets.
        let wanted = (self.rate.pace() * 0.001).min(BURST_PACKETS * 750.0) - self.tokens;
        if self.tokens >= 0.0 {
            return if self.has_room() { now } else { now + 5_000 };
        }
        self.tokens_at + (wanted.max(0.0) / self.rate.pace() * 1e6) as u64 + 1
    }

    /// How long a packet takes up the path, microseconds.
    pub(super) fn packet_time(&self) -> f64 {
        self.mean_len / self.rate.rate().max(1.0) * 1e6
    }

    /// A datagram of `len` bytes goes out without a path number.
    pub(super) fn spend(&mut self, len: usize) {
        self.tokens -= (len as u64 + WIRE) as f64;
    }

    /// A datagram goes out with the next path number; its length follows by
    /// [`sent`](Self::sent).
    pub(super) fn number(&mut self, now: u64) -> u64 {
        if self.sent_at.is_empty() {
            self.sent_at.resize(NUMBERS, 0);
        }
        if self.next == self.reported {
            self.progress_at = now;
        }
        self.numbered_at = now;
        let number = self.next;
        self.sent_at[number as usize % NUMBERS] = now;
        self.next += 1;
        number
    }

    pub(super) fn sent(&mut self, len: usize) {
        self.sent_bytes += len as u64;
        self.mean_len += ((len as u64 + WIRE) as f64 - self.mean_len) / MEAN_OVER;
        self.spend(len);
    }

    pub(super) fn sent_at(&self, number: u64) -> Option<u64> {
        let known = number < self.next && self.next - number <= NUMBERS as u64;
        known.then(|| self.sent_at[number as usize % NUMBERS])
    }

    // Reports.

    /// Takes in what the peer reports: whether anything is new. `clock` is when it was written, by
    /// the peer's clock.
    pub(super) fn report(&mut self, now: u64, clock: u64, of: &PathFeedback) -> Result<bool, Lie> {
        let next = sequence::expand(of.next.into(), 32, self.reported);
        if next > self.next {
            return Err(Lie);
        }
        self.before = (self.reported, self.reported_at());
        if next <= self.reported {
            return Ok(false);
        }
        let received = sequence::expand(of.received.into(), 32, self.progress.received);
        let bytes = sequence::expand(of.bytes.into(), 32, self.progress.bytes);
        // Copies made by the network are counted too, within reason.
        if received > 2 * next + 64 || bytes > 2 * self.sent_bytes + 100_000 {
            return Err(Lie);
        }
        let arrived = clock.saturating_sub(of.held.into());
        self.runs = sequence::expand(of.runs.into(), 32, self.runs);
        let sent_at = self.sent_at(next - 1);
        let may_be_late = self.is_reordered() || self.rate.is_jittery();
        let late = if may_be_late { self.reordering() } else { 0.0 };
        let known = Seen { sent_at: sent_at.unwrap_or(0), next, received, runs: self.runs };
        self.fates.report(known, late);
        let judged = self.fates.judged();
        self.progress = Progress { next, received, bytes, arrived, judged };
        (self.reported, self.progress_at, self.unheard) = (next, now, 0);
        self.grow_bold(now);
        let Some(sent_at) = sent_at else { return Ok(true) };
        let rtt = now.saturating_sub(sent_at).saturating_sub(of.held.into()).max(1) as f64;
        self.note_rtt(rtt);
        let delay = arrived as f64 - sent_at as f64;
        if std::mem::take(&mut self.queued) {
            self.rate.expect_delay(delay - (rtt - self.min_rtt).max(0.0));
        }
        self.rate.on_report(self.progress, delay, self.next, self.min_rtt);
        Ok(true)
    }

    /// Takes in what QUIC counted, and gives back what it had before: its round trip is the best that
    /// is known as long as nothing has been reported.
    pub(super) fn note_quic(&mut self, stats: QuicStats) -> QuicStats {
        if !self.is_measured() && !stats.rtt.is_zero() {
            self.srtt = stats.rtt.as_secs_f64() * 1e6;
            self.rttvar = self.srtt / 4.0;
        }
        std::mem::replace(&mut self.quic, stats)
    }

    fn note_rtt(&mut self, rtt: f64) {
        if self.min_rtt.is_infinite() {
            (self.srtt, self.rttvar) = (rtt, rtt / 4.0);
        }
        self.min_rtt = self.min_rtt.min(rtt);
        self.rttvar += ((self.srtt - rtt).abs() - self.rttvar) / 16.0;
        self.srtt += (rtt - self.srtt) / 8.0;
    }

    /// Datagrams judged since the last call: how many were sent, how many of them lost, in how many
    /// runs.
    pub(super) fn take_fates(&mut self) -> (u64, u64, u64) {
        let now = self.fates.judged();
        let was = std::mem::replace(&mut self.taken, now);
        (now.sent - was.sent, now.lost - was.lost, now.runs - was.runs)
    }

    /// When the highest that is reported was sent, microseconds.
    fn reported_at(&self) -> u64 {
        self.reported.checked_sub(1).and_then(|highest| self.sent_at(highest)).unwrap_or(0)
    }

    /// A datagram with `number` that was sent at `at` has arrived since the report before this one.
    /// Where that one spoke of later ones, it was overtaken by them.
    pub(super) fn note_arrival(&mut self, now: u64, number: u64, at: u64) {
        let (next, highest_at) = self.before;
        if number < next && at < highest_at {
            self.note_late(now, (highest_at - at) as f64);
        }
    }

    /// A datagram was overtaken by others that were sent `by` microseconds after it.
    fn note_late(&mut self, now: u64, by: f64) {
        if now > self.late_since + LATE_SPAN {
            let old = now > self.late_since + 2 * LATE_SPAN;
            self.late = [if old { 0.0 } else { self.late[1] }, 0.0];
            self.late_since = now;
        }
        self.late[1] = self.late[1].max(by.min(self.srtt));
    }

    /// Whether packets have overtaken each other lately.
    pub(super) fn is_reordered(&self) -> bool {
        self.lateness() > 0.0
    }

    fn lateness(&self) -> f64 {
        self.late[0].max(self.late[1])
    }

    /// Mean length of a run of losses so far; 1 if unknown.
    pub(super) fn burst(&self) -> f64 {
        let Judged { lost, runs, .. } = self.fates.judged();
        if runs == 0 { 1.0 } else { (lost as f64 / runs as f64).max(1.0) }
    }

    /// How much later than expected a packet may arrive and not be lost, microseconds.
    pub(super) fn reordering(&self) -> f64 {
        let least = (self.min_rtt.min(FIRST_RTT) / 32.0).clamp(500.0, 5_000.0);
        least + (3.0 * self.rate.jitter()).max(LATE_MARGIN * self.lateness())
    }

    /// From when on the datagram with `number` sent `at` is lost if it, or its repair within
    /// `grace` microseconds, is not reported: at once (0) if what was sent well after it arrived,
    /// else by the clock, as nothing may have been sent after it (RFC 8985). `None` as long as
    /// nothing sent later has arrived.
    pub(super) fn lost_at(&self, number: u64, at: u64, grace: f64, interval: f64) -> Option<u64> {
        let highest = self.reported.checked_sub(1).filter(|highest| *highest > number)?;
        let highest_at = self.sent_at(highest)?;
        let late = self.reordering() + grace;
        if highest >= number + 3 && at as f64 + late <= highest_at as f64 {
            return Some(0);
        }
        Some(at + (self.srtt + 4.0 * self.rttvar.min(self.srtt / 8.0) + late + interval) as u64)
    }

    /// A report came by this path itself: how long one takes that finds no shorter way back.
    pub(super) fn note_own(&mut self, now: u64, of: &PathFeedback) {
        let next = sequence::expand(of.next.into(), 32, self.reported);
        let Some(at) = next.checked_sub(1).and_then(|highest| self.sent_at(highest)) else {
            return;
        };
        let rtt = now.saturating_sub(at).saturating_sub(of.held.into()) as f64;
        self.own_rtt += if self.own_rtt == 0.0 { rtt } else { (rtt - self.own_rtt) / 8.0 };
    }

    /// One-way delay expected now, microseconds, by a clock common to all paths.
    pub(super) fn delay(&self) -> f64 {
        self.rate.expected_delay()
    }
}
