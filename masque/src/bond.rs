//! The resilience layer of a CONNECT-IP tunnel: rate control, repair and several paths, agreed
//! upon with the peer and specified byte by byte in `masque/EXTENSIONS.md`.
//!
//! A [`Bond`] is one end of one tunnel, and both ends are alike. Between the tunnel's session
//! ([`ConnectIp`](crate::connect_ip::ConnectIp)) and its QUIC connections it is called so:
//!
//! ```text
//!            handle_packet ─▶ ┌──────┐ ─▶ poll_transmit ─▶ conn.send_datagram(stream, &[], bytes)
//!   packets                   │ Bond │ ─▶ poll_capsule  ─▶ conn.send_body(stream, bytes)
//!            Received,     ◀─ │      │ ◀─ handle_datagram ◀─ Event::Datagram
//!            poll_deliver     └──────┘ ◀─ handle_capsule  ◀─ connect_ip::Event::Bond
//! ```
//!
//! 1. Both ends [negotiate](field) by a header field. Whoever gets no such field makes no `Bond`.
//! 2. [`Bond::new`], then [`Bond::add_path`] with id 0 for the connection the request came by.
//! 3. A batch of packets for the peer, already judged by
//!    [`encapsulate`](crate::connect_ip::ConnectIp::encapsulate): while [`Bond::is_bypassed`] says
//!    so, send them behind Context ID 0 as if there were no bond; else [`Bond::handle_packet`].
//! 4. After each batch of anything drain [`Bond::poll_transmit`], [`Bond::poll_capsule`],
//!    [`Bond::poll_deliver`] and [`Bond::poll_event`], then arm a timer for [`Bond::poll_timeout`].
//! 5. Once a batch or every few milliseconds [`Bond::handle_path_stats`] with what QUIC counted.
//!
//! No call allocates in steady state; memory is bounded by [`Config`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bauta_fec::Codec;
use bytes::Bytes;

mod cap;
pub mod capsules;
mod classify;
mod control;
mod fates;
pub mod field;
mod path;
mod plain;
mod pool;
mod queue;
mod rate;
mod receive;
mod reorder;
mod repair;
mod report;
mod schedule;
mod send;
mod sequence;
mod stats;
mod store;
pub mod tokens;
mod types;
pub mod wire;

pub use crate::session::Role;
pub use stats::{PathReport, Report};
pub use types::{
    BondError, Config, Down, Event, MAX_PACKET, MAX_PATHS, OVERHEAD, PathId, Policy, Queued,
    QuicStats, Received,
};

use cap::Cap;
use capsules::BondCapsule;
use path::Path;
use pool::Pool;
use queue::Queue;
use reorder::Reorder;
use send::Copies;
use store::Store;

/// Feedback is sent no more often than this while all is well, microseconds.
const MIN_INTERVAL: f64 = 5_000.0;
/// A packet that could not be brought over in this time is given up by its sender, microseconds.
const ABANDON_AFTER: u64 = 3_000_000;

/// One end of a tunnel's resilience layer.
#[derive(Debug)]
pub struct Bond {
    config: Config,
    origin: Instant,
    /// The latest moment anybody told, microseconds since the origin.
    now: u64,
    /// Whether we know that the peer takes the context's datagrams, and whether it may send them.
    ready: bool,
    listening: bool,
    closed: bool,
    /// Whether packets are sent by number.
    numbered: bool,
    clean: plain::Clean,
    paths: Vec<Path>,
    pool: Pool,
    queue: Queue,
    store: Store,
    /// What the peer has not reported below `missing` is looked at again at `judge_due`.
    judge_due: Option<u64>,
    missing: u64,
    copies: Copies,
    /// When nothing waited last.
    idle_at: u64,
    cap: Option<Cap>,
    outgoing: repair::Outgoing,
    incoming: repair::Incoming,
    reorder: Reorder,
    feedback: receive::FeedbackState,
    peer_clock: u64,
    peer_recovered: u32,
    /// Up to this number, what is reported for the first time was overtaken by others.
    overtaken: u64,
    stale: u32,
    lent: Vec<u8>,
    capsules: VecDeque<(PathId, Bytes)>,
    events: VecDeque<Event>,
    statuses: [(u64, u64); MAX_PATHS],
    lies: u32,
    counters: Report,
}

impl Bond {
    /// A bond without paths. A client registers the context at once.
    pub fn new(config: Config, now: Instant) -> Self {
        let codec = if config.agreed.slc { Codec::Slc } else { Codec::Rs16 };
        let mut bond = Self {
            origin: now,
            now: 0,
            ready: false,
            listening: config.role == Role::Client,
            closed: false,
            numbered: false,
            clean: plain::Clean::default(),
            paths: Vec::new(),
            pool: Pool::default(),
            queue: Queue::new(config.seed, config.max_queue),
            store: Store::new(config.window),
            judge_due: None,
            missing: 0,
            copies: Copies::default(),
            idle_at: 0,
            cap: config.cap.map(Cap::new),
            outgoing: repair::Outgoing::new(codec, config.budget),
            incoming: repair::Incoming::new(),
            reorder: Reorder::new(config.window),
            feedback: receive::FeedbackState::default(),
            peer_clock: 0,
            peer_recovered: 0,
            overtaken: 0,
            stale: 0,
            lent: Vec::new(),
            capsules: VecDeque::new(),
            events: VecDeque::new(),
            statuses: [(0, 0); MAX_PATHS],
            lies: 0,
            counters: Report::default(),
            config,
        };
        if bond.config.role == Role::Client {
            bond.push_capsule(0, &BondCapsule::Assign(bond.config.agreed.context));
        }
        bond
    }

    fn micros(&mut self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.origin).as_micros() as u64 + 1;
        self.now = self.now.max(micros);
        self.now
    }

    fn path(&mut self, id: PathId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.id == id)
    }

    /// The longest packet that fits every path, bytes: the tunnel's MTU.
    pub fn max_packet(&self) -> usize {
        let least = self.paths.iter().map(|p| p.max_payload).min().unwrap_or(0);
        least.saturating_sub(1 + OVERHEAD).min(MAX_PACKET)
    }

    /// Whether packets go to the only path directly, behind Context ID 0, with nothing of ours
    /// around them. Changes only in a call to a `handle_*` method.
    pub fn is_bypassed(&self) -> bool {
        !self.numbered
            && self.config.cap.is_none()
            && self.paths.len() == 1
            && self.queue.packets == 0
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.send_due(),
            self.feedback.due,
            self.copy_due(),
            self.tail_due(),
            self.reorder.deadline(self.patience()),
            self.silence_due(),
            self.judge_due,
        ];
        let first = due.into_iter().flatten().min()?;
        Some(self.origin + Duration::from_micros(first))
    }

    /// The moment of [`poll_timeout`](Self::poll_timeout) has come: drain everything afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.micros(now);
        self.reorder.expire(now, self.patience(), &mut self.pool);
        self.watch_silence(now);
        self.tell_of_the_dead(now);
        self.judge_again(now);
        let since = now.saturating_sub(ABANDON_AFTER);
        self.store.abandon(since, &mut self.pool);
        self.consider_plain(now);
    }

    /// Counters and estimates, for `status` and the metrics.
    pub fn report(&self) -> Report {
        Report {
            queued_packets: self.queue.packets,
            queued_bytes: self.queue.bytes,
            queue_drops: self.queue.drops,
            ecn_marks: self.queue.marks,
            duplicates: self.reorder.duplicates,
            given_up: self.reorder.given_up,
            held_packets: self.reorder.held,
            numbered: self.numbered,
            ..self.counters
        }
    }

    /// The same for one path.
    pub fn path_report(&self, id: PathId) -> Option<PathReport> {
        let path = self.paths.iter().find(|p| p.id == id)?;
        let micros =
            |m: f64| if m.is_finite() { Duration::from_micros(m as u64) } else { Duration::ZERO };
        Some(PathReport {
            alive: path.alive,
            standby: path.standby,
            sent: path.next,
            sent_bytes: path.sent_bytes,
            loss_ppm: (path.rate.loss() * 1e6) as u32,
            burst_x100: (path.burst() * 100.0) as u32,
            received: path.incoming.received(),
            rtt: if path.is_measured() { micros(path.srtt) } else { path.quic.rtt },
            min_rtt: if path.is_measured() { micros(path.min_rtt) } else { path.quic.min_rtt },
            queue_delay: micros(path.rate.queue()),
            rate: (path.rate.rate() * 8.0) as u64,
            delivery_rate: (path.rate.delivery() * 8.0) as u64,
        })
    }
}
