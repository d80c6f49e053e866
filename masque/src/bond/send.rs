//! What leaves, in the order of its urgency: reports, what was lost, copies of what must not wait,
//! probes, and new packets.

use std::collections::VecDeque;
use std::time::Instant;

use super::cap::Cap;
use super::path::Path;
use super::store::{Fate, Sent};
use super::wire::{self, Source};
use super::{Bond, PathId, Policy, Queued};

/// Over this time the copies of a packet are spread, microseconds: longer than most bursts of loss,
/// shorter than an interactive flow notices.
const COPY_SPREAD: u64 = 8_000;
/// The chance at which losing all copies of a packet is aimed.
const COPY_RISK: f64 = 2e-5;
/// The most copies of a packet.
const MAX_COPIES: u64 = 4;
/// Loss below which nothing is copied ahead.
const COPY_FROM: f64 = 0.003;
/// So long a queue, in seconds of the path's rate, is a backlog: half a round trip, at least and at
/// most.
const BACKLOG: (f64, f64) = (0.008, 0.025);
/// For so long after nothing waited a flow is taken to wait for what it misses, microseconds.
const STALLED_FOR: u64 = 4_000_000;
/// What a flow has on its way at most, as receivers usually let it, bytes.
const WINDOW: f64 = 3e6;
/// The strain from which on what was lost twice is sent again with a copy.
const STRAINED: f64 = 0.5;
/// Round trips in which what is lost again and again has come for sure.
const AGAIN_TRIPS: f64 = 4.6;
/// How long packets of a flow may wait, in round trips: where much is lost, a flow in order needs
/// a window for the time in which something is sent again, and again where that is lost too.
const TARGET: f64 = 0.4;
const TARGET_LOSSY: f64 = 3.0;
/// What is sent again where so much is lost is followed by a copy, and by several where much is lost
/// of a sudden and no repair is under way yet; so long after each other, microseconds.
const AGAIN_FROM: f64 = 0.02;
const AGAIN_AFTER: u64 = 3_000;
const AGAIN_SUDDEN: u64 = 2;
/// The most copies that wait; beyond, packets go without.
const MAX_PENDING: usize = 1_024;

/// Copies of packets that are yet to be sent.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pending: VecDeque<(u64, u64)>,
}

impl Copies {
    pub(super) fn due(&self) -> Option<u64> {
        self.pending.front().map(|(due, _)| *due)
    }

    fn push(&mut self, due: u64, sequence: u64) {
        if self.pending.len() < MAX_PENDING {
            let at = self.pending.partition_point(|(d, _)| *d <= due);
            self.pending.insert(at, (due, sequence));
        }
    }
}

impl Bond {
    /// Takes a packet for the peer.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Queued {
        let now = self.micros(now);
        if packet.len() > self.max_packet() {
            return if self.paths.is_empty() { Queued::NoPath } else { Queued::TooLong };
        }
        self.counters.packets += 1;
        match self.queue.push(now, packet, &mut self.pool) {
            true => Queued::Taken,
            false => Queued::Full,
        }
    }

    /// Writes the next HTTP Datagram Payload, Context ID included, into `out` (cleared before) and
    /// says by which path it goes. `None` when nothing may be sent now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<PathId> {
        let now = self.micros(now);
        out.clear();
        // Reports are few and go at once; what they take is made up for by the rest.
        let open = self.cap.as_mut().is_none_or(|cap| cap.is_open(now));
        let path = if open { self.poll_any(now, out) } else { self.poll_feedback(now, out) }?;
        if let Some(cap) = &mut self.cap {
            cap.spend(out.len());
        }
        Some(path)
    }

    fn poll_any(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        if !self.is_minding() {
            return self.poll_feedback(now, out).or_else(|| self.poll_plain(now, out));
        }
        self.poll_feedback(now, out)
            .or_else(|| self.poll_lost(now, out))
            .or_else(|| self.poll_copy(now, out))
            .or_else(|| self.poll_repair(now, out))
            .or_else(|| self.poll_probe(now, out))
            .or_else(|| self.poll_new(now, out))
    }

    /// Whether numbered packets are sent, or some that were have yet to be reported. Else nothing but
    /// reports and plain packets goes out, and no answer is missed.
    pub(super) fn is_minding(&self) -> bool {
        self.numbered || self.store.settled() != self.store.next()
    }

    /// Without numbers: by the first path that lives.
    fn poll_plain(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        let at = self.paths.iter().position(|p| p.alive && !p.blocked)?;
        if self.queue.packets == 0 {
            return None;
        }
        let (target, interval) = self.patience_of_queue();
        let popped = self.queue.pop(now, target, interval, &mut self.pool)?;
        out.push(0);
        out.extend_from_slice(&popped.packet);
        self.pool.put(popped.packet);
        self.paths[at].spend(out.len());
        Some(self.paths[at].id)
    }

    /// How long packets of a flow may wait, and how long the flow has to react: about what lets one
    /// TCP flow fill the path, microseconds.
    fn patience_of_queue(&self) -> (u64, u64) {
        let rtt = self.paths.iter().filter(|p| p.alive).map(|p| p.srtt).fold(0.0, f64::max);
        let lossy = self.paths.iter().any(|p| p.rate.loss() > COPY_FROM);
        let factor = if lossy { TARGET_LOSSY } else { TARGET };
        let target = (rtt * factor).clamp(5_000.0, 200_000.0) + self.spread();
        (target as u64, (2.0 * rtt).max(100_000.0) as u64)
    }

    fn poll_lost(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        let sequence = self.store.first_lost()?;
        let at = self.choose(now, 0)?;
        self.store.pop_lost();
        self.counters.retransmissions += 1;
        let (sparse, times) = self.store.get(sequence).map_or((false, 0), |s| (s.sparse, s.times));
        let late = times > 1 && self.strain(at) > STRAINED;
        let spare = sparse || late || !self.is_backlogged(at);
        let sent = self.write_again(now, at, sequence, out)?;
        self.counters.repair_bytes += sent as u64;
        if spare && self.config.repair {
            let copies = match self.paths[at].rate.loss() > AGAIN_FROM {
                true => 1,
                false if self.outgoing.is_bursty(self.moment(now)) => AGAIN_SUDDEN,
                false => 0,
            };
            (1..=copies).for_each(|n| self.copies.push(now + AGAIN_AFTER * n, sequence));
        }
        Some(self.paths[at].id)
    }

    fn poll_copy(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        while self.copies.due()? <= now {
            let (_, sequence) = *self.copies.pending.front()?;
            if self.store.get(sequence).is_none() {
                self.copies.pending.pop_front();
                continue;
            }
            let last = self.store.get(sequence)?.path;
            let other = self.best(Some(last)).filter(|at| self.paths[*at].is_measured());
            let at = match other {
                Some(at) if self.paths[at].is_ready(now) && !self.paths[at].blocked => at,
                _ => self.choose(now, 0)?,
            };
            self.copies.pending.pop_front();
            self.counters.copies += 1;
            let sent = self.write_again(now, at, sequence, out)?;
            self.counters.repair_bytes += sent as u64;
            return Some(self.paths[at].id);
        }
        None
    }

    /// Writes a packet that was sent before; returns the length.
    fn write_again(
        &mut self,
        now: u64,
        at: usize,
        sequence: u64,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let path = &mut self.paths[at];
        let sent = self.store.get(sequence)?;
        let number = path.number(now);
        sent.fate = Fate::Flight;
        (sent.path, sent.number, sent.at) = (path.id, number, now);
        sent.times = sent.times.saturating_add(1);
        let header = Source {
            number: number as u16,
            sequence: (sequence & 0xff_ffff) as u32,
            back: sent.back,
            copy: true,
            sparse: sent.sparse,
            at: 0,
        };
        wire::put_source(self.config.agreed.context, &header, out);
        out.extend_from_slice(&sent.packet);
        path.sent(out.len());
        Some(out.len())
    }

    /// Asks for a report where one is overdue, and keeps warm what is not in use.
    fn poll_probe(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        let interval = self.interval();
        let several = self.paths.len() > 1;
        let fallback = self.has_fallback();
        let context = self.config.agreed.context;
        for path in self.paths.iter_mut().filter(|p| !p.held_down && !p.blocked) {
            let silent = path.is_silent(now, interval);
            let pause = if silent {
                path.probe_pause(now, fallback)
            } else if several {
                path.warm_pause()
            } else {
                continue;
            };
            let since = if silent { path.probed_at } else { path.numbered_at };
            if now < since + pause {
                continue;
            }
            path.probed_at = now;
            let number = path.number(now);
            wire::put_probe(context, number as u16, out);
            path.sent(out.len());
            return Some(path.id);
        }
        None
    }

    fn poll_new(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        if self.queue.packets == 0 {
            self.idle_at = now;
            return self.finish(now, out);
        }
        if self.store.is_full() {
            return None;
        }
        let alive = self.paths.iter().filter(|p| p.alive).count().max(1);
        let share = self.queue.bytes as f64 / alive as f64;
        self.paths.iter_mut().for_each(|p| p.rate.press(share, p.srtt));
        let at = self.choose(now, self.queue.bytes)?;
        if !self.numbered {
            return self.poll_plain(now, out);
        }
        let (target, interval) = self.patience_of_queue();
        let Some(popped) = self.queue.pop(now, target, interval, &mut self.pool) else {
            return self.finish(now, out);
        };
        let sequence = self.store.next();
        let last = self.queue.follow(popped.bucket, sequence);
        let back = last.and_then(|l| u16::try_from(sequence - l).ok()).unwrap_or(0);
        let path = &mut self.paths[at];
        let number = path.number(now);
        let header = Source {
            number: number as u16,
            sequence: (sequence & 0xff_ffff) as u32,
            back,
            copy: false,
            sparse: popped.sparse,
            at: 0,
        };
        wire::put_source(self.config.agreed.context, &header, out);
        out.extend_from_slice(&popped.packet);
        path.sent(out.len());
        let id = path.id;
        let backlog = !self.stalls(now) && self.is_backlogged(at);
        let light =
            self.outgoing.on_source(now, sequence, back, &popped.packet, popped.waited, backlog);
        self.store.push(Sent {
            packet: popped.packet,
            back,
            sparse: popped.sparse,
            light,
            fate: Fate::Flight,
            path: id,
            number,
            at: now,
            first: now,
            origin: id,
            times: 1,
        });
        self.counters.sources_sent += 1;
        self.plan_copies(now, at, sequence, popped.sparse);
        Some(id)
    }

    /// Nothing waits any more: a tail gets its repair.
    fn finish(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        if self.outgoing.on_idle(now) { self.poll_repair(now, out) } else { None }
    }

    /// Whether more waits than would keep the path busy while a packet is sent again.
    fn is_backlogged(&self, at: usize) -> bool {
        let path = &self.paths[at];
        let span = (path.srtt / 2e6).clamp(BACKLOG.0, BACKLOG.1);
        self.queue.bytes as f64 > path.rate.rate() * span
    }

    /// Whether flows stand still for what is sent again, rather than for their turn: lately nothing
    /// waited. Of many flows some always do.
    fn stalls(&self, now: u64) -> bool {
        now < self.idle_at + STALLED_FOR / self.queue.flows().max(1) as u64
    }

    /// How much of the windows of the flows that wait is on its way over the path, at its rate, while
    /// something is sent again and again.
    fn strain(&self, at: usize) -> f64 {
        let path = &self.paths[at];
        let needed = path.rate.rate() * AGAIN_TRIPS * path.srtt / 1e6;
        needed / (WINDOW * self.queue.flows().max(1) as f64)
    }

    fn plan_copies(&mut self, now: u64, at: usize, sequence: u64, sparse: bool) {
        if self.config.policy == Policy::Redundant && self.paths.len() > 1 {
            self.copies.push(now, sequence);
            return;
        }
        let loss = self.paths[at].rate.loss();
        if !sparse || loss < COPY_FROM || !self.config.repair {
            return;
        }
        let sent = (COPY_RISK.ln() / loss.min(0.5).ln()).ceil() as u64;
        let copies = sent.saturating_sub(1).clamp(1, MAX_COPIES);
        for n in 1..=copies {
            self.copies.push(now + COPY_SPREAD * n / copies, sequence);
        }
    }

    /// From when on a declared cap lets something out, microseconds.
    pub(super) fn open_at(&self) -> u64 {
        self.cap.as_ref().map_or(0, Cap::open_at)
    }

    /// When there will be something to send that waits for its turn only.
    pub(super) fn send_due(&self) -> Option<u64> {
        if self.queue.packets == 0 && !self.store.has_lost() && !self.outgoing.is_owing() {
            return None;
        }
        let ready = |p: &Path| if self.numbered { p.ready_at(self.now) } else { 0 };
        self.usable_at(ready)
    }

    /// When a tail gets its repair: there is none while packets wait.
    pub(super) fn tail_due(&self) -> Option<u64> {
        let quiet = self.queue.packets == 0 && self.is_minding();
        let due = self.outgoing.tail_due().filter(|_| quiet)?;
        Some(due.max(self.open_at()))
    }

    /// When a copy that is due may leave.
    pub(super) fn copy_due(&self) -> Option<u64> {
        let due = self.copies.due().filter(|_| self.is_minding())?;
        Some(due.max(self.usable_at(|p| p.open_at(self.now))?))
    }

    /// When the first of the paths may carry something, a moment from now at the earliest; `None` if
    /// none may.
    fn usable_at(&self, each: impl Fn(&Path) -> u64) -> Option<u64> {
        let usable = self.paths.iter().filter(|p| p.alive && !p.blocked);
        let due = usable.map(each).min()?;
        Some(due.max(self.open_at()).max(self.now + 50))
    }
}
