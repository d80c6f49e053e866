//! What a bond knows of itself.

use std::time::Duration;

/// Counters since the bond began, and what is true now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets taken from the caller.
    pub packets: u64,
    /// Packets that wait to be sent for the first time, now.
    pub queued_packets: usize,
    /// Bytes of them.
    pub queued_bytes: usize,
    /// Packets dropped before they were numbered: to signal congestion, or for want of room.
    pub queue_drops: u64,
    /// Packets marked with ECN Congestion Experienced instead.
    pub ecn_marks: u64,
    /// Packets sent with a number.
    pub sources_sent: u64,
    /// Packets sent again after they were missed.
    pub retransmissions: u64,
    /// Packets sent more than once ahead of any loss (sparse flows, redundant paths).
    pub copies: u64,
    /// Repair symbols sent.
    pub repair_sent: u64,
    /// Bytes of copies, retransmissions and repair symbols.
    pub repair_bytes: u64,
    /// Packets delivered to the caller.
    pub delivered: u64,
    /// Packets that only a repair symbol brought back.
    pub recovered: u64,
    /// Datagrams whose packet was there already.
    pub duplicates: u64,
    /// Packets given up: the residual loss.
    pub given_up: u64,
    /// Packets that wait for their predecessors, now.
    pub held_packets: usize,
    /// Datagrams from the peer that were refused.
    pub refused: u64,
    /// Reports from the peer that cannot be true.
    pub lies: u64,
    /// Whether packets are sent by number now, or plainly.
    pub numbered: bool,
}

/// One path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Whether it carries packets or could.
    pub alive: bool,
    /// Whether it is only kept warm.
    pub standby: bool,
    /// Datagrams sent with a path number.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Of those the peer has reported about, how many did not arrive, in parts per million, lately.
    pub loss_ppm: u32,
    /// Mean length of a run of losses, times 100.
    pub burst_x100: u32,
    /// What the peer sent on it and arrived here.
    pub received: u64,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Least round-trip time lately.
    pub min_rtt: Duration,
    /// Queueing delay on the way to the peer: one-way delay above its least.
    pub queue_delay: Duration,
    /// The rate packets are let out at, bits a second.
    pub rate: u64,
    /// The rate the peer last received at, bits a second.
    pub delivery_rate: u64,
}
