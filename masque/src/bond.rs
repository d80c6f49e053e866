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

use bytes::Bytes;

pub mod capsules;
pub mod field;
mod stats;
pub mod tokens;
pub mod wire;

pub use crate::session::Role;
pub use stats::{PathReport, Report};

use capsules::{BondCapsule, CapsuleFlaw, CloseCode, Token};
use wire::{Datagram, WireError};

/// The most paths a bond has at once.
pub const MAX_PATHS: usize = 8;

/// Bytes that the layer may add to a packet, beyond those of Context ID 0: what the tunnel's MTU is
/// lowered by while a bond is in use (see [`Bond::max_packet`]).
pub const OVERHEAD: usize = wire::MAX_OVERHEAD;

/// A path's number, the same at both ends: 0 for the connection of the first request, any other is
/// chosen by the client.
pub type PathId = u8;

/// How packets are spread over several paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// By what is measured, and never worse than the better path.
    #[default]
    Auto,
    /// All paths carry packets.
    Aggregate,
    /// The best path carries packets; the others are kept warm.
    Failover,
    /// Every packet goes over the two best paths.
    Redundant,
}

/// How a bond behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// What both ends agreed upon.
    pub agreed: field::Agreed,
    /// How packets are spread over several paths.
    pub policy: Policy,
    /// A rate the sum of all that is sent never exceeds, repair included, bits a second of UDP
    /// payload; `None` lets measurement decide alone.
    pub cap: Option<u64>,
    /// Whether repair is sent at all. Rate control and ordering work without.
    pub repair: bool,
    /// The delay repair may add to a packet before it is given up as lost to an interactive flow.
    pub budget: Duration,
    /// The most bytes of packets that wait to be sent.
    pub max_queue: usize,
    /// The most packets kept for retransmission, and held in order at the receiver; a power of two.
    /// Worst-case memory is this times [`MAX_PACKET`], twice.
    pub window: u32,
    /// Where random choices (codec seeds, the spread of probes) begin.
    pub seed: u64,
}

/// The longest packet a bond takes, bytes.
pub const MAX_PACKET: usize = 9_216;

impl Config {
    /// The defaults: measured rates, repair within 30 ms, 4 MiB of queue, a window of 8,192 packets.
    pub fn new(role: Role, agreed: field::Agreed, seed: u64) -> Self {
        Self {
            role,
            agreed,
            policy: Policy::Auto,
            cap: None,
            repair: true,
            budget: Duration::from_millis(30),
            max_queue: 4 << 20,
            window: 8_192,
            seed,
        }
    }
}

/// What a bond did with a packet it was given to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It waits, or was dropped later in favour of others; the counters know.
    Taken,
    /// It is longer than [`Bond::max_packet`]: answer with Packet Too Big.
    TooLong,
    /// The queue is full; it was dropped.
    Full,
    /// No path is alive; it was dropped.
    NoPath,
}

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A Context ID and a packet, ready for
    /// [`ConnectIp::handle_datagram`](crate::connect_ip::ConnectIp::handle_datagram); more may wait
    /// in [`Bond::poll_deliver`].
    Packet(&'a mut [u8]),
    /// It was taken in; packets may wait in [`Bond::poll_deliver`].
    Taken,
    /// It was dropped and counted.
    Dropped(WireError),
}

/// What QUIC knows of a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuicStats {
    /// Packets sent.
    pub sent: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Bytes acknowledged, or the nearest thing counted.
    pub acked_bytes: u64,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time.
    pub min_rtt: Duration,
    /// The congestion window, bytes.
    pub cwnd: u64,
    /// Datagrams handed over and not sent yet.
    pub queued: usize,
}

/// Why a path is not used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Nothing sent on it was acknowledged for too long.
    Silence,
    /// The owner said so: the operating system's link went down, or the connection closed.
    Link,
    /// The peer said so.
    Peer,
}

/// What a bond tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The context is registered at both ends.
    Ready,
    /// Client: a token with which one more connection may join this bond.
    Token(Token),
    /// Client: the gateway took the path in.
    Joined(PathId),
    /// A path died; what it had not acknowledged goes over the others.
    PathDown(PathId, Down),
    /// A path that was down works again.
    PathUp(PathId),
    /// The peer closed the bond, or its behaviour did. The tunnel goes on with Context ID 0 on path
    /// 0 if that one lives.
    Closed(CloseCode),
}

/// The peer broke a rule of the extension: abort the request stream with [`BondError::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BondError {
    /// A capsule cannot be read.
    #[error("malformed bond capsule: {0}")]
    Capsule(#[from] CapsuleFlaw),
    /// A capsule that this end may not be sent, or not now.
    #[error("a bond capsule of type {0:#x} is not allowed here")]
    Unexpected(u64),
}

impl BondError {
    /// The HTTP/3 error code to abort the stream with.
    pub const fn code(&self) -> u64 {
        crate::datagram::H3_MESSAGE_ERROR
    }
}

#[derive(Debug)]
struct Path {
    id: PathId,
    max_payload: usize,
    blocked: bool,
    alive: bool,
}

/// One end of a tunnel's resilience layer.
#[derive(Debug)]
pub struct Bond {
    config: Config,
    paths: Vec<Path>,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    capsules: VecDeque<(PathId, Bytes)>,
    events: VecDeque<Event>,
    report: Report,
}

impl Bond {
    /// A bond without paths.
    pub fn new(config: Config, _now: Instant) -> Self {
        Self {
            config,
            paths: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            capsules: VecDeque::new(),
            events: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Adds a path whose connection carries HTTP Datagram Payloads of `max_payload` bytes. Ids
    /// above [`MAX_PATHS`] and ids in use are refused with `false`.
    pub fn add_path(&mut self, _now: Instant, id: PathId, max_payload: usize) -> bool {
        if usize::from(id) >= MAX_PATHS || self.paths.iter().any(|p| p.id == id) {
            return false;
        }
        self.paths.push(Path { id, max_payload, blocked: false, alive: true });
        true
    }

    /// Takes a path out for good; its id may be used again.
    pub fn remove_path(&mut self, _now: Instant, id: PathId) {
        self.paths.retain(|p| p.id != id);
    }

    /// The operating system or QUIC says that the path carries nothing now.
    pub fn path_down(&mut self, _now: Instant, id: PathId) {
        if let Some(path) = self.paths.iter_mut().find(|p| p.id == id && p.alive) {
            path.alive = false;
            self.events.push_back(Event::PathDown(id, Down::Link));
        }
    }

    /// It may carry packets again.
    pub fn path_up(&mut self, _now: Instant, id: PathId) {
        if let Some(path) = self.paths.iter_mut().find(|p| p.id == id && !p.alive) {
            path.alive = true;
            self.events.push_back(Event::PathUp(id));
        }
    }

    /// The longest HTTP Datagram Payload of the path's connection has changed.
    pub fn set_max_payload(&mut self, id: PathId, max_payload: usize) {
        if let Some(path) = self.paths.iter_mut().find(|p| p.id == id) {
            path.max_payload = max_payload;
        }
    }

    /// Whether the path's connection takes no datagrams for now (its queue is full).
    pub fn set_blocked(&mut self, id: PathId, blocked: bool) {
        if let Some(path) = self.paths.iter_mut().find(|p| p.id == id) {
            path.blocked = blocked;
        }
    }

    /// The longest packet that fits every path, bytes: the tunnel's MTU.
    pub fn max_packet(&self) -> usize {
        let least = self.paths.iter().map(|p| p.max_payload).min().unwrap_or(0);
        least.saturating_sub(1 + OVERHEAD).min(MAX_PACKET)
    }

    /// Whether packets go to the only path directly, behind Context ID 0, with nothing of ours
    /// around them. Changes only in a call to a `handle_*` method.
    pub fn is_bypassed(&self) -> bool {
        self.config.cap.is_none() && self.paths.len() == 1
    }

    /// Takes a packet for the peer.
    pub fn handle_packet(&mut self, _now: Instant, packet: &[u8]) -> Queued {
        if packet.len() > self.max_packet() {
            return Queued::TooLong;
        }
        if self.queued_bytes + packet.len() > self.config.max_queue {
            return Queued::Full;
        }
        self.queued_bytes += packet.len();
        self.queue.push_back(packet.to_vec());
        Queued::Taken
    }

    /// Writes the next HTTP Datagram Payload, Context ID included, into `out` (cleared before) and
    /// says by which path it goes. `None` when nothing may be sent now.
    pub fn poll_transmit(&mut self, _now: Instant, out: &mut Vec<u8>) -> Option<PathId> {
        let path = self.paths.iter().find(|p| p.alive && !p.blocked)?;
        let packet = self.queue.pop_front()?;
        self.queued_bytes -= packet.len();
        out.clear();
        out.push(0);
        out.extend_from_slice(&packet);
        Some(path.id)
    }

    /// Takes an HTTP Datagram Payload that came by a path, Context ID onward.
    pub fn handle_datagram<'a>(
        &mut self,
        _now: Instant,
        _path: PathId,
        payload: &'a mut [u8],
    ) -> Received<'a> {
        match wire::parse(payload, self.config.agreed.context) {
            Ok(Datagram::Plain) => Received::Packet(payload),
            Ok(_) => Received::Dropped(WireError::NotReady),
            Err(error) => Received::Dropped(error),
        }
    }

    /// The next packet that may be delivered in order, a Context ID in front of it as in
    /// [`Received::Packet`]. It is gone at the next call.
    pub fn poll_deliver(&mut self, _now: Instant) -> Option<&mut [u8]> {
        None
    }

    /// What QUIC counted on a path.
    pub fn handle_path_stats(&mut self, _now: Instant, _id: PathId, _stats: QuicStats) {}

    /// A capsule of one of [`capsules::TYPES`] that came on the path's request stream.
    pub fn handle_capsule(
        &mut self,
        _now: Instant,
        _path: PathId,
        kind: u64,
        value: &[u8],
    ) -> Result<(), BondError> {
        match capsules::parse(kind, value)? {
            BondCapsule::Close(code) => self.events.push_back(Event::Closed(code)),
            BondCapsule::Token(token) if self.config.role == Role::Client => {
                self.events.push_back(Event::Token(token));
            }
            _ => {}
        }
        Ok(())
    }

    /// The next capsule, whole, for the request stream of a path.
    pub fn poll_capsule(&mut self) -> Option<(PathId, Bytes)> {
        self.capsules.pop_front()
    }

    /// Gateway: sends the client a token, made by [`tokens::Tokens::issue`], with which a further
    /// connection may join.
    pub fn send_token(&mut self, token: Token) {
        self.push_capsule(0, &BondCapsule::Token(token));
    }

    /// Closes the bond; the tunnel itself goes on.
    pub fn close(&mut self, code: CloseCode) {
        self.push_capsule(0, &BondCapsule::Close(code));
    }

    fn push_capsule(&mut self, path: PathId, capsule: &BondCapsule) {
        let mut out = Vec::new();
        capsules::encode(capsule, &mut out);
        self.capsules.push_back((path, out.into()));
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The moment of [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Counters and estimates, for `status` and the metrics.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The same for one path.
    pub fn path_report(&self, id: PathId) -> Option<PathReport> {
        self.paths
            .iter()
            .find(|p| p.id == id)
            .map(|p| PathReport { alive: p.alive, ..PathReport::default() })
    }
}
