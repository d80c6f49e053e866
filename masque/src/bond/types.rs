//! What a bond is told and what it says.

use std::time::Duration;

use super::capsules::{CapsuleFlaw, CloseCode, Token};
use super::wire::{self, WireError};
use super::{Role, field};

/// The most paths a bond has at once.
pub const MAX_PATHS: usize = 8;

/// Bytes that the layer may add to a packet, beyond those of Context ID 0: what the tunnel's MTU is
/// lowered by while a bond is in use (see [`Bond::max_packet`](super::Bond::max_packet)).
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
    /// A rate that all paths together never exceed, repair included, bits a second of IP packets on
    /// the wire, headers reckoned at 80 bytes a datagram. `None` lets measurement decide alone.
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
    /// The defaults: measured rates below what was agreed upon, repair within 30 ms, 4 MiB of queue, a window of 8,192 packets.
    pub fn new(role: Role, agreed: field::Agreed, seed: u64) -> Self {
        Self {
            role,
            agreed,
            policy: Policy::Auto,
            cap: agreed.rate,
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
    /// It is longer than [`Bond::max_packet`](super::Bond::max_packet): answer with Packet Too Big.
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
    /// in [`Bond::poll_deliver`](super::Bond::poll_deliver).
    Packet(&'a mut [u8]),
    /// It was taken in; packets may wait in [`Bond::poll_deliver`](super::Bond::poll_deliver).
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
    /// How much round trips vary.
    pub rtt_var: Duration,
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
