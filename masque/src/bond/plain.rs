//! Whether packets are numbered: from the first on until a path has proven clean, and again where it
//! loses packets or queues them.

use super::{Bond, QuicStats};

/// Loss above which packets are numbered, and below which no more.
const NUMBER_ABOVE: f64 = 0.003;
const PLAIN_BELOW: f64 = 0.001;
/// Losses in a row of plain packets after which they are numbered.
const NUMBER_AT_LOSSES: u64 = 3;
/// Time without loss after which packets go plainly, at first and at most, microseconds. It
/// doubles each time it proves to have been too short.
const CLEAN: (u64, u64) = (2_000_000, 64_000_000);
/// Packets that have to have gone through without loss as well.
const CLEAN_PACKETS: u64 = 1_000;
/// So many packets without a loss prove it sooner, in this time at least, microseconds, where it has not
/// been believed too soon before.
const PROVEN_PACKETS: u64 = 65_536;
const PROVEN: u64 = 500_000;
/// Time over which plain packets' losses are counted, microseconds.
const PLAIN_SPAN: u64 = 500_000;
/// A queue on the path: so much above the least round trip, and this share of it, for so long,
/// microseconds. What varies by more than it lasts is jitter.
const BLOAT: f64 = 5_000.0;
const BLOAT_SHARE: f64 = 0.125;
const BLOAT_SPAN: u64 = 400_000;
/// On a path with a shorter round trip, microseconds, packets wait for processes and not for links, on a
/// longer one a flow needs more than a queue costs; and less than this, bytes a second, makes no
/// queue of its own.
const BLOAT_RTT: std::ops::RangeInclusive<f64> = 3_000.0..=150_000.0;
const BLOAT_RATE: f64 = 125_000.0;
/// Bytes that may be on their way for a path to be worth its numbers: half of what can be.
const BLOAT_WINDOW: f64 = 4_096.0 * 1_400.0;
/// So long a queue that stayed whatever was sent is somebody else's, microseconds: flows inside the
/// tunnel share the path with it best if they see it themselves.
const SHARED: u64 = 60_000_000;
/// The share of its rate from which a path is taken to be full.
const BUSY: f64 = 0.7;

/// Since when a direction has been clean, and what was counted then.
#[derive(Debug, Default)]
pub(super) struct Clean {
    since: u64,
    wait: u64,
    /// Datagrams since, and those of them that were lost.
    sent: u64,
    lost: u64,
    plain_since: u64,
    plain_sent: u64,
    plain_lost: u64,
    plain_bytes: u64,
    /// What went through plainly, bytes a second.
    rate: f64,
    /// Since when packets have queued on the path, and until when that is taken for others' doing.
    bloated: Option<u64>,
    shared_until: u64,
    /// Whether that is why packets are numbered.
    filled: bool,
}

impl Bond {
    /// Packets are sent by number from the first on, until a path has proven clean.
    pub(super) fn number(&mut self, now: u64) {
        if self.start_numbers(now) {
            let (limit, several, carried) = (self.limit(), self.paths.len() > 1, self.clean.rate);
            for path in &mut self.paths {
                path.restart(carried, limit, now);
                if several {
                    path.rate.hurry();
                }
            }
        }
    }

    /// Packets are numbered as they queue on the only path, which is full then.
    fn number_full(&mut self, now: u64) {
        if self.start_numbers(now) {
            let (limit, carried) = (self.limit(), self.clean.rate);
            self.paths.iter_mut().for_each(|path| path.restart_full(carried, limit, now));
            self.clean.filled = true;
        }
    }

    fn start_numbers(&mut self, now: u64) -> bool {
        if !self.ready || self.numbered {
            return false;
        }
        self.numbered = true;
        let early = now < self.clean.since + 5 * self.clean.wait;
        let wait = if early { self.clean.wait * 2 } else { CLEAN.0 };
        self.clean.wait = wait.clamp(CLEAN.0, CLEAN.1);
        (self.clean.since, self.clean.sent, self.clean.lost) = (now, 0, 0);
        self.clean.bloated = None;
        true
    }

    /// Watches the losses of plain packets and their queue, as QUIC counts them.
    pub(super) fn watch_plain(&mut self, now: u64, before: &QuicStats, stats: &QuicStats) {
        let clean = &mut self.clean;
        clean.plain_sent += stats.sent.saturating_sub(before.sent);
        clean.plain_lost += stats.lost.saturating_sub(before.lost);
        clean.plain_bytes += stats.acked_bytes.saturating_sub(before.acked_bytes);
        if self.numbered {
            return;
        }
        let loss = clean.plain_lost as f64 / clean.plain_sent.max(1) as f64;
        if clean.plain_lost >= NUMBER_AT_LOSSES && loss > NUMBER_ABOVE {
            return self.number(now);
        }
        if now > clean.plain_since + PLAIN_SPAN {
            let span = (now - clean.plain_since) as f64 / 1e6;
            clean.rate = (clean.plain_bytes as f64 / span).max(clean.rate * 0.8);
            (clean.plain_since, clean.plain_sent, clean.plain_lost) = (now, 0, 0);
            clean.plain_bytes = 0;
        }
        let jittery = self.paths.iter().any(|p| p.rate.is_jittery());
        let shared = now < clean.shared_until;
        if shared || jittery || !queues(stats) || !is_manageable(stats, clean.rate) {
            clean.bloated = None;
        } else if now > *clean.bloated.get_or_insert(now) + BLOAT_SPAN {
            self.number_full(now);
        }
    }

    /// Counts what became of numbered datagrams.
    pub(super) fn count_fates(&mut self, sent: u64, lost: u64) {
        self.clean.sent += sent;
        self.clean.lost += lost;
    }

    /// Goes back to plain packets when a single path has been clean for long enough. One that had
    /// a queue keeps it short as long as it is full, and nothing is lost to others.
    pub(super) fn consider_plain(&mut self, now: u64) {
        let [path] = &self.paths[..] else { return };
        // Where packets overtake each other, numbers keep them in order.
        if !self.numbered || path.is_reordered() {
            return;
        }
        let Clean { sent, lost, .. } = self.clean;
        let (rate, carried) = (path.rate.rate(), path.rate.delivery());
        let lossy = lost as f64 > PLAIN_BELOW * (sent as f64).max(2_000.0);
        let age = now.saturating_sub(self.clean.since);
        let proven = lost == 0 && sent >= PROVEN_PACKETS && self.clean.wait <= CLEAN.0;
        let over = age > self.clean.wait && sent >= CLEAN_PACKETS || proven && age > PROVEN;
        let crowded = path.rate.is_crowded();
        let full =
            carried > BUSY * rate && !path.rate.is_starting() && is_manageable(&path.quic, carried);
        let filled = self.clean.filled && lost == 0 && !crowded && full;
        if lossy || over && filled {
            (self.clean.since, self.clean.sent, self.clean.lost) = (now, 0, 0);
        } else if over || crowded && sent >= CLEAN_PACKETS {
            (self.numbered, self.clean.filled) = (false, false);
            (self.clean.since, self.clean.rate) = (now, carried);
            (self.clean.plain_since, self.clean.plain_sent) = (now, 0);
            (self.clean.plain_lost, self.clean.plain_bytes) = (0, 0);
            if crowded {
                self.clean.shared_until = now + SHARED;
            }
        }
    }
}

/// Whether packets stand in a queue, as QUIC's round trips tell.
fn queues(stats: &QuicStats) -> bool {
    let [rtt, least, varies] =
        [stats.rtt, stats.min_rtt, stats.rtt_var].map(|d| d.as_secs_f64() * 1e6);
    least > 0.0 && rtt - least > BLOAT.max(BLOAT_SHARE * least) + 4.0 * varies
}

/// Whether a queue behind `rate` bytes a second is the path's, and one that can be kept short.
fn is_manageable(stats: &QuicStats, rate: f64) -> bool {
    let least = stats.min_rtt.as_secs_f64();
    BLOAT_RTT.contains(&(least * 1e6)) && rate >= BLOAT_RATE && rate * least < BLOAT_WINDOW
}
