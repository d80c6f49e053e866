//! What arrives, and the reports about it.

use std::time::Instant;

use super::reorder::Arrival;
use super::wire::{self, Datagram, Feedback, Source, WireError};
use super::{Bond, MIN_INTERVAL, PathId, Received, sequence};

/// The least and the most time a packet waits for its predecessor, microseconds.
const PATIENCE: (f64, f64) = (200_000.0, 2_000_000.0);

/// When to report next.
#[derive(Debug, Default)]
pub(super) struct FeedbackState {
    pub(super) due: Option<u64>,
    last: u64,
    /// Paths the report of now has yet to go by, a bit each.
    left: u8,
    ranges: Vec<(u64, u64)>,
}

impl Bond {
    /// Takes an HTTP Datagram Payload that came by a path, Context ID onward.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        path: PathId,
        payload: &'a mut [u8],
    ) -> Received<'a> {
        let now = self.micros(now);
        let outcome = match wire::parse(payload, self.config.agreed.context) {
            Ok(Datagram::Plain) => return Received::Packet(payload),
            Ok(_) if !self.listening => Err(WireError::NotReady),
            Ok(Datagram::Source(header)) => match self.source(now, path, header, payload) {
                Ok(true) => return Received::Packet(&mut payload[header.at - 1..]),
                other => other.map(drop),
            },
            Ok(Datagram::Repair(header)) => self
                .count(now, path, header.number, payload.len())
                .and_then(|()| self.handle_repair(now, header, payload)),
            Ok(Datagram::Probe { number }) => self.count(now, path, number, payload.len()),
            Ok(Datagram::Feedback(feedback)) => self.handle_feedback(now, path, &feedback),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => Received::Taken,
            Err(error) => {
                self.counters.refused += u64::from(error != WireError::Duplicate);
                Received::Dropped(error)
            }
        }
    }

    /// Counts a datagram on its path and sees to it that it is reported.
    fn count(&mut self, now: u64, path: PathId, number: u16, len: usize) -> Result<(), WireError> {
        let path = self.path(path).ok_or(WireError::Path)?;
        let gap = path.incoming.count(now, number, len);
        path.heard_at = now;
        self.report_soon(now, gap);
        Ok(())
    }

    fn report_soon(&mut self, now: u64, gap: bool) {
        let interval = self.interval();
        let pause = if gap { interval / 2.0 } else { interval };
        let due = (self.feedback.last + pause as u64).max(now);
        self.feedback.due = Some(self.feedback.due.map_or(due, |d| d.min(due)));
    }

    /// How often to report, microseconds.
    pub(super) fn interval(&self) -> f64 {
        (self.round_trip() / 8.0).max(MIN_INTERVAL)
    }

    /// The least round trip of a path in use, microseconds.
    pub(super) fn round_trip(&self) -> f64 {
        let least =
            self.paths.iter().filter(|p| p.alive).map(|p| p.srtt).fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 100_000.0 }
    }

    /// How long a packet waits for its predecessor, microseconds.
    pub(super) fn patience(&self) -> u64 {
        let longest = self.paths.iter().map(|p| p.srtt.max(p.quic.rtt.as_secs_f64() * 1e6));
        let rtt = longest.fold(0.0, f64::max);
        (8.0 * rtt + 50_000.0).clamp(PATIENCE.0, PATIENCE.1) as u64
    }

    /// A numbered packet, its Context ID and header overwritten by a Context ID of 0: whether it
    /// may be delivered now.
    fn source(
        &mut self,
        now: u64,
        path: PathId,
        header: Source,
        payload: &mut [u8],
    ) -> Result<bool, WireError> {
        self.count(now, path, header.number, payload.len())?;
        let number = sequence::expand(header.sequence.into(), 24, self.reorder.next());
        payload[header.at - 1] = 0;
        let packet = &payload[header.at - 1..];
        let waiting = self.reorder.waiting();
        let (arrival, gap) = self.reorder.arrive(now, number, header.back, packet, &mut self.pool);
        if gap {
            self.report_soon(now, true);
        }
        if matches!(arrival, Arrival::Now | Arrival::Held) {
            self.feed_decoder(now, number, header.back, &payload[header.at..]);
        }
        match arrival {
            // Those that were released before it and have not been fetched go first.
            Arrival::Now if waiting > 0 => {
                let packet = &payload[header.at - 1..];
                self.reorder.queue_at(waiting, packet, &mut self.pool);
                Ok(false)
            }
            Arrival::Now => {
                self.counters.delivered += 1;
                Ok(true)
            }
            Arrival::Held => Ok(false),
            Arrival::Duplicate => Err(WireError::Duplicate),
            Arrival::Absurd => Err(WireError::Window),
        }
    }

    /// The next packet that may be delivered in order, a Context ID in front of it as in
    /// [`Received::Packet`]. It is gone at the next call.
    pub fn poll_deliver(&mut self, now: Instant) -> Option<&mut [u8]> {
        self.micros(now);
        let packet = self.reorder.pop()?;
        self.counters.delivered += 1;
        self.pool.put(std::mem::replace(&mut self.lent, packet));
        Some(&mut self.lent)
    }

    /// A report, when one is due: by the path that seems best, and by the next one too in case that
    /// is dead.
    pub(super) fn poll_feedback(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        if self.feedback.due.is_some_and(|due| due <= now) {
            self.feedback.left = match self.best(None) {
                Some(first) => {
                    let first = self.paths[first].id;
                    let second = self.best(Some(first)).map_or(0, |at| 1 << self.paths[at].id);
                    1 << first | second
                }
                // Where both ends have given everything up, one has to speak first.
                None => {
                    let open = self.paths.iter().filter(|p| !p.held_down);
                    open.fold(0, |left, p| left | 1 << p.id)
                }
            };
            self.feedback.last = now;
            // While packets are missed, reports go on: the last may have been lost.
            let more = self.reorder.settled() < self.reorder.next();
            let pause = self.round_trip().max(2.0 * MIN_INTERVAL) as u64;
            self.feedback.due = more.then_some(now + pause);
        }
        let left = std::mem::take(&mut self.feedback.left);
        let at = self.paths.iter().position(|p| left >> p.id & 1 == 1)?;
        self.feedback.left = left & !(1 << self.paths[at].id);
        self.write_feedback(now, out);
        self.paths[at].spend(out.len());
        Some(self.paths[at].id)
    }

    fn write_feedback(&mut self, now: u64, out: &mut Vec<u8>) {
        self.feedback.ranges.clear();
        let (mut next, mut at, mut room) =
            (self.reorder.next(), self.reorder.settled(), wire::MAX_RANGES);
        for (there, gone) in self.reorder.missing() {
            let len = crate::varint::len(there) + crate::varint::len(gone);
            if len > room {
                next = at + there;
                break;
            }
            (room, at) = (room - len, at + there + gone);
            self.feedback.ranges.push((there, gone));
        }
        let mut feedback = Feedback::EMPTY;
        feedback.clock = now as u32;
        feedback.settled = (self.reorder.settled() & 0xff_ffff) as u32;
        feedback.next = (next & 0xff_ffff) as u32;
        feedback.recovered = self.counters.recovered as u32;
        feedback.duplicates = self.reorder.duplicates as u32;
        feedback.given_up = self.reorder.given_up as u32;
        feedback.deficit = self.incoming.deficit();
        let paths = self.paths.iter().map(|p| p.incoming.feedback(p.id, now));
        let ranges = self.feedback.ranges.iter().copied();
        wire::put_feedback(self.config.agreed.context, &feedback, paths, ranges, out);
    }
}
