//! Repair ahead of any report: symbols over the packets of late, as many as the losses of late
//! suggest, and the decoder that turns them into packets again.

use std::fmt;
use std::time::{Duration, Instant};

use bauta_fec::codec;
use bauta_fec::control::{Class, Controller, Settings, Traffic};
use bauta_fec::loss::BIN;
use bauta_fec::{Codec, Decoder, Encoder, Header};

use super::path::Path;
use super::wire::{self, Repair, WireError};
use super::{Bond, PathId, sequence};
use crate::packet::protocol::TCP;

/// Bytes of a symbol before the packet and after its length: the packet's `back`.
const BACK: usize = 2;
/// Repair symbols that may be owed at once.
const MAX_OWED: usize = 64;
/// A tail of packets is covered by a symbol, or as many as this if it is long, once none has followed
/// for some times what usually lies between two, at least and at most so long, microseconds.
const TAIL: usize = 3;
const TAIL_GAPS: f64 = 3.0;
const TAIL_PAUSE: (f64, f64) = (4_000.0, 12_000.0);
/// Where a path loses less than this by its nature, what it lost in bursts as it was begun on was its queue's doing.
const LITTLE: f64 = 0.001;
/// A path that carries less, bytes a second, carries probes and reports.
const IDLE: f64 = 10_000.0;
/// Packets over which their wait is averaged.
const WAITING_OVER: f64 = 64.0;
/// Packets a second are measured over this time, microseconds.
const SPAN: u64 = 50_000;

/// The sender's side.
pub(super) struct Outgoing {
    codec: Codec,
    encoder: Option<Box<dyn Encoder>>,
    controller: Controller,
    active: bool,
    owed: usize,
    /// Packets since the last symbol, and when the last of them was sent.
    bare: u32,
    source_at: u64,
    packets: f64,
    /// How long packets that get repair wait before they leave, lately, microseconds.
    waiting: f64,
    counted: u64,
    counted_at: u64,
    scratch: Vec<u8>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(super) fn new(codec: Codec, budget: Duration) -> Self {
        Self {
            codec,
            encoder: None,
            controller: Controller::new(Settings { budget, ..Settings::of(Class::Interactive) }),
            active: false,
            owed: 0,
            bare: 0,
            source_at: 0,
            packets: 0.0,
            waiting: 0.0,
            counted: 0,
            counted_at: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether symbols are being sent.
    pub(super) const fn is_active(&self) -> bool {
        self.active
    }

    /// Whether symbols wait to be sent.
    pub(super) const fn is_owing(&self) -> bool {
        self.owed > 0
    }

    /// Counts the fates of datagrams the peer has reported about.
    pub(super) fn record(&mut self, now: Instant, sent: u64, lost: u64, runs: u64) {
        let (runs, lost) = (runs.clamp(1, lost.max(1)), lost.min(sent));
        let (each, mut done) = (sent.min(4_096) as f64 / runs as f64, 0);
        let long = lost.div_ceil(runs);
        for n in 0..sent.min(4_096) {
            let within = n as f64 % each < long as f64;
            let lost = within && done < lost;
            done += u64::from(lost);
            self.controller.record(now, lost);
        }
    }

    /// What comes so much later than the newest is beyond repair, microseconds.
    pub(super) fn reach(&self) -> f64 {
        (codec::SPAN - codec::MAX_COVER) as f64 / self.packets.max(1.0) * 1e6
    }

    /// Whether several packets were lost at once just now.
    pub(super) fn is_bursty(&self, now: Instant) -> bool {
        self.controller.is_bursty(now)
    }

    /// Decides anew how much is sent; `worst` is [`Traffic::worst`].
    fn update(&mut self, now: Instant, micros: u64, sources: u64, rtt: f64, worst: f64) {
        let age = micros.saturating_sub(self.counted_at);
        if age >= SPAN {
            self.packets = sources.saturating_sub(self.counted) as f64 / age as f64 * 1e6;
            (self.counted, self.counted_at) = (sources, micros);
        }
        let traffic = Traffic {
            rtt: Duration::from_micros(rtt as u64),
            packets: self.packets.max(100.0),
            waiting: Duration::from_micros(self.waiting as u64),
            worst,
        };
        let plan = self.controller.update(now, traffic);
        self.active = plan.is_some();
        match plan {
            Some(plan) => {
                let encoder = self.encoder.get_or_insert_with(|| self.codec.encoder());
                encoder.set_cover(plan.cover.max(8));
            }
            None => (self.encoder, self.owed, self.bare) = (None, 0, 0),
        }
    }

    /// A packet was sent for the first time; whether it goes without repair. With a backlog behind
    /// it, a flow that fills the path has more from throughput than from a packet in time, and what
    /// is lost of it is sent again at once.
    pub(super) fn on_source(
        &mut self,
        now: u64,
        sequence: u64,
        back: u16,
        packet: &[u8],
        waited: u64,
        backlog: bool,
    ) -> bool {
        let Some(encoder) = &mut self.encoder else { return false };
        self.scratch.clear();
        self.scratch.extend_from_slice(&back.to_be_bytes());
        self.scratch.extend_from_slice(packet);
        if encoder.push(sequence, &self.scratch).is_err() {
            return false;
        }
        let light = backlog && is_tcp(packet);
        if !light {
            self.owed = (self.owed + self.controller.on_source()).min(MAX_OWED);
            (self.bare, self.source_at) = (self.bare + 1, now);
            self.waiting += (waited as f64 - self.waiting) / WAITING_OVER;
        }
        light
    }

    /// When what has no symbol behind it is a tail, if nothing follows.
    pub(super) fn tail_due(&self) -> Option<u64> {
        let pause = (TAIL_GAPS * 1e6 / self.packets).clamp(TAIL_PAUSE.0, TAIL_PAUSE.1);
        (self.bare > 0).then(|| self.source_at + pause as u64)
    }

    /// Nothing waits: whether there is a tail, and it gets its symbols.
    pub(super) fn on_idle(&mut self, now: u64) -> bool {
        let is_tail = self.tail_due().is_some_and(|due| due <= now);
        if is_tail {
            self.owed = self.owed.max((1 + self.bare as usize / 4).min(TAIL));
            self.bare = 0;
        }
        is_tail
    }
}

fn is_tcp(packet: &[u8]) -> bool {
    match packet.first().map(|b| b >> 4) {
        Some(4) => packet.get(9) == Some(&TCP),
        _ => packet.get(6) == Some(&TCP),
    }
}

/// The receiver's side.
pub(super) struct Incoming {
    window: Option<Box<dyn Decoder>>,
    block: Option<Box<dyn Decoder>>,
    scratch: Vec<u8>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { window: None, block: None, scratch: Vec::new() }
    }

    fn decoder(&mut self, window: bool) -> &mut Box<dyn Decoder> {
        let (slot, codec) = match window {
            true => (&mut self.window, Codec::Slc),
            false => (&mut self.block, Codec::Rs16),
        };
        slot.get_or_insert_with(|| codec.decoder())
    }

    /// Symbols that would restore everything that is covered.
    pub(super) fn deficit(&self) -> u16 {
        let of = |d: &Option<Box<dyn Decoder>>| d.as_ref().map_or(0, |d| d.deficit());
        of(&self.window).max(of(&self.block)).min(u16::MAX.into()) as u16
    }
}

impl Bond {
    pub(super) fn moment(&self, micros: u64) -> Instant {
        self.origin + Duration::from_micros(micros)
    }

    /// Whether repair is sent at all, and by a codec that was agreed upon.
    pub(super) fn repairs(&self) -> bool {
        self.config.repair && (self.config.agreed.slc || self.config.agreed.rs16)
    }

    /// Learns from what was reported of a path since the last time.
    pub(super) fn learn_losses(&mut self, now: u64) {
        let moment = self.moment(now);
        let repair = self.repairs();
        for at in 0..self.paths.len() {
            let (sent, lost, runs) = self.paths[at].take_fates();
            self.count_fates(sent, lost);
            if sent > 0 && repair {
                self.outgoing.record(moment, sent, lost, runs);
            }
            if self.paths[at].rate.take_settled().is_some_and(|loss| loss < LITTLE) {
                self.outgoing.controller.forget_bursts();
            }
        }
        if !repair {
            return;
        }
        self.plan_repair(now);
    }

    fn plan_repair(&mut self, now: u64) {
        let (moment, worst, rtt) = (self.moment(now), self.worst_loss(), self.round_trip());
        self.outgoing.update(moment, now, self.counters.sources_sent, rtt, worst);
    }

    /// What the path loses that loses most of several in use: flows in order wait for each loss, however few packets
    /// of all take that path.
    fn worst_loss(&self) -> f64 {
        let several = self.paths.len() > 1;
        let carries = |p: &&Path| p.alive && !p.rate.is_starting() && p.rate.delivery() > IDLE;
        let used = self.paths.iter().filter(|p| several && carries(p));
        used.map(|p| p.rate.loss()).fold(0.0, f64::max)
    }

    /// QUIC lost that share of its packets before the first of ours: repair is under way from then on.
    pub(super) fn expect_losses(&mut self, now: u64, share: f64) {
        if !self.repairs() {
            return;
        }
        let moment = self.moment(now);
        let lost = (share * f64::from(BIN)).round().max(1.0) as u64;
        self.outgoing.record(moment, BIN.into(), lost, lost);
        self.plan_repair(now);
    }

    /// A repair symbol that is owed.
    pub(super) fn poll_repair(&mut self, now: u64, out: &mut Vec<u8>) -> Option<PathId> {
        if self.outgoing.owed == 0 {
            return None;
        }
        let at = self.choose(now, 0)?;
        let path: &mut Path = &mut self.paths[at];
        self.outgoing.owed -= 1;
        let window = self.outgoing.codec == Codec::Slc;
        let encoder = self.outgoing.encoder.as_mut()?;
        if !window {
            encoder.close();
        }
        let (header, symbol) = encoder.repair()?;
        let number = path.number(now);
        let of = Repair {
            number: number as u16,
            window,
            base: (header.base & 0xff_ffff) as u32,
            span: header.cover,
            row: header.key,
            at: 0,
        };
        wire::put_repair(self.config.agreed.context, &of, out);
        out.extend_from_slice(symbol);
        path.sent(out.len());
        self.outgoing.bare = 0;
        self.counters.repair_sent += 1;
        self.counters.repair_bytes += out.len() as u64;
        Some(path.id)
    }

    /// Gives a packet that arrived to the decoders.
    pub(super) fn feed_decoder(&mut self, now: u64, sequence: u64, back: u16, packet: &[u8]) {
        if !(self.config.agreed.slc || self.config.agreed.rs16) {
            return;
        }
        let incoming = &mut self.incoming;
        incoming.scratch.clear();
        incoming.scratch.extend_from_slice(&back.to_be_bytes());
        incoming.scratch.extend_from_slice(packet);
        let scratch = std::mem::take(&mut incoming.scratch);
        if self.config.agreed.slc {
            let _ = incoming.decoder(true).source(sequence, &scratch);
        }
        if self.config.agreed.rs16 && (!self.config.agreed.slc || incoming.block.is_some()) {
            let _ = incoming.decoder(false).source(sequence, &scratch);
        }
        self.incoming.scratch = scratch;
        self.recover(now);
    }

    /// Takes a repair symbol.
    pub(super) fn handle_repair(
        &mut self,
        now: u64,
        header: Repair,
        payload: &[u8],
    ) -> Result<(), WireError> {
        let agreed = self.config.agreed;
        if header.window && !agreed.slc || !header.window && !agreed.rs16 {
            return Err(WireError::Range);
        }
        let base = sequence::expand(header.base.into(), 24, self.reorder.next());
        let of = Header { base, cover: header.span, key: header.row };
        let decoder = self.incoming.decoder(header.window);
        decoder.repair(&of, &payload[header.at..]).map_err(|_| WireError::Range)?;
        self.recover(now);
        Ok(())
    }

    /// Takes what the decoders brought back as if it had arrived.
    fn recover(&mut self, now: u64) {
        let Self { incoming, reorder, pool, counters, .. } = self;
        let Incoming { window, block, scratch } = incoming;
        for decoder in [window, block].into_iter().flatten() {
            while let Some((sequence, bytes)) = decoder.poll() {
                let Some((back, packet)) = bytes.split_first_chunk::<BACK>() else { continue };
                if packet.is_empty() || !reorder.is_wanted(sequence) {
                    continue;
                }
                scratch.clear();
                scratch.push(0);
                scratch.extend_from_slice(packet);
                let back = u16::from_be_bytes(*back);
                if reorder.insert(now, sequence, back, scratch, pool) {
                    counters.recovered += 1;
                }
            }
        }
    }
}
