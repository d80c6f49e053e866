//! A bond and the connections under it: where [`Bond`] and QUIC meet, alike in gateway and client.

use std::time::{Duration, Instant};

use bauta_masque::bond::{Bond, Down, PathId, QuicStats};
use tracing::{debug, trace};

use crate::connection::HIGH_WATER;
use crate::{Carrier, ConnId, Connection, DatagramError, Endpoint};

/// How often QUIC's own counters are shown to the bond while there is traffic.
const STATS_INTERVAL: Duration = Duration::from_millis(5);
/// Datagrams that wait in a connection before the bond is told to hold back: the socket, not the
/// path, is what they wait for then.
const MAX_QUEUED: usize = 256;
/// How soon a path that was held back is looked at again.
const RETRY: Duration = Duration::from_millis(1);

/// Wherever connections are kept.
pub trait Connections {
    /// A connection by its number.
    fn get(&mut self, id: ConnId) -> Option<&mut Connection>;
    /// Marks it to be settled by the next flush.
    fn touch(&mut self, id: ConnId);
}

impl Connections for Endpoint {
    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        Self::get(self, id)
    }

    fn touch(&mut self, id: ConnId) {
        Self::touch(self, id);
    }
}

/// One connection of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The path that it is.
    pub path: PathId,
    /// The connection.
    pub conn: ConnId,
    /// The request stream on it.
    pub stream: u64,
    /// The longest HTTP Datagram Payload, once path MTU discovery has come to its end, bytes.
    known: Option<usize>,
    blocked: bool,
}

/// A bond and its connections.
#[derive(Debug)]
pub struct Bonded {
    /// The bond itself.
    pub bond: Bond,
    members: Vec<Member>,
    out: Vec<u8>,
    stats_due: Instant,
    /// Datagrams no connection took.
    pub unsent: u64,
}

impl Bonded {
    /// A bond with its first connection, path 0, a connection and the request stream on it, which is one
    /// of HTTP Datagram Payloads of up to `max_payload` bytes.
    pub fn new(
        mut bond: Bond,
        now: Instant,
        (conn, stream): (ConnId, u64),
        max_payload: usize,
    ) -> Self {
        bond.add_path(now, 0, max_payload);
        let member = Member { path: 0, conn, stream, known: None, blocked: false };
        let out = Vec::with_capacity(2048);
        Self { bond, members: vec![member], out, stats_due: now, unsent: 0 }
    }

    /// The connections.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Which path a stream is.
    #[inline]
    pub fn path_of(&self, conn: ConnId, stream: u64) -> Option<PathId> {
        let is = |m: &&Member| m.conn == conn && m.stream == stream;
        self.members.iter().find(is).map(|m| m.path)
    }

    /// The least path id that is free.
    pub fn free_path(&self) -> Option<PathId> {
        let free = |id: &PathId| self.members.iter().all(|m| m.path != *id);
        (0..bauta_masque::bond::MAX_PATHS as PathId).find(free)
    }

    /// Takes a connection in as `path`; `false` where the bond has no room for it.
    pub fn join(
        &mut self,
        now: Instant,
        path: PathId,
        (conn, stream): (ConnId, u64),
        max_payload: usize,
    ) -> bool {
        let joined = self.bond.add_path(now, path, max_payload);
        if joined {
            self.members.push(Member { path, conn, stream, known: None, blocked: false });
        }
        joined
    }

    /// Lets a stream go; whether it was part of the bond.
    pub fn leave(&mut self, now: Instant, conn: ConnId, stream: u64) -> bool {
        let Some(path) = self.path_of(conn, stream) else { return false };
        self.bond.path_down(now, path);
        self.bond.remove_path(now, path);
        self.members.retain(|m| m.path != path);
        true
    }

    /// The path's connection carries nothing for now, as somebody else has found out.
    pub fn link_down(&mut self, now: Instant, conn: ConnId) {
        for member in self.members.iter().filter(|m| m.conn == conn) {
            self.bond.path_down(now, member.path);
        }
    }

    /// It may carry again.
    pub fn link_up(&mut self, now: Instant, conn: ConnId) {
        for member in self.members.iter().filter(|m| m.conn == conn) {
            self.bond.path_up(now, member.path);
        }
    }

    /// Takes over what the connection knows of its path's MTU.
    pub fn learn(&mut self, conn: &(impl Carrier + ?Sized), stream: u64) {
        let is = |m: &&mut Member| m.conn == conn.id() && m.stream == stream;
        if let Some(member) = self.members.iter_mut().find(is) {
            learn(&mut self.bond, member, conn);
        }
    }

    /// The longest packet that fits every path of which path MTU discovery has come to its end; `None`
    /// where there is none yet.
    pub fn known_packet(&self) -> Option<usize> {
        let least = self.members.iter().filter_map(|m| m.known).min();
        least.map(|least| least.saturating_sub(1 + bauta_masque::bond::OVERHEAD))
    }

    /// Whether a packet may go behind Context ID 0 on this stream, with nothing of the bond's about it.
    #[inline]
    pub fn is_bypassed(&self, conn: ConnId, stream: u64) -> bool {
        self.bond.is_bypassed()
            && matches!(self.members.as_slice(), [m] if m.conn == conn && m.stream == stream)
    }

    /// Whether the bond should be shown QUIC's counters again: also of what goes past it.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.stats_due
    }

    /// Hands over what the bond lets out, datagrams and capsules, and returns when to come back.
    pub fn transmit(&mut self, now: Instant, conns: &mut impl Connections) -> Option<Instant> {
        if self.bond.poll_timeout().is_some_and(|at| at <= now) {
            self.bond.handle_timeout(now);
        }
        let stats = now >= self.stats_due;
        for member in &mut self.members {
            let Some(conn) = conns.get(member.conn) else { continue };
            if stats {
                self.bond.handle_path_stats(now, member.path, conn.bond_stats());
                learn(&mut self.bond, member, conn);
            }
            let blocked = conn.datagrams_queued() >= MAX_QUEUED;
            if blocked != member.blocked {
                member.blocked = blocked;
                self.bond.set_blocked(member.path, blocked);
            }
        }
        if stats {
            self.stats_due = now + STATS_INTERVAL;
        }
        while let Some(path) = self.bond.poll_transmit(now, &mut self.out) {
            let Some(member) = self.members.iter_mut().find(|m| m.path == path) else { continue };
            let Some(conn) = conns.get(member.conn) else {
                self.bond.path_down(now, path);
                continue;
            };
            match conn.send_datagram(member.stream, &[], &self.out) {
                Ok(()) if conn.datagrams_queued() >= MAX_QUEUED => {
                    member.blocked = true;
                    self.bond.set_blocked(path, true);
                }
                Ok(()) => {}
                Err(DatagramError::TooLarge { max }) => {
                    self.unsent += 1;
                    self.bond.set_max_payload(path, max);
                }
                Err(error) => {
                    self.unsent += 1;
                    trace!(path, ?error, "a datagram was not taken");
                }
            }
            conns.touch(member.conn);
        }
        while let Some((path, capsule)) = self.bond.poll_capsule() {
            // Where the path itself is gone, any other carries what is to be said about it.
            let own = self.members.iter().find(|m| m.path == path);
            let Some(member) = own.or(self.members.first()) else { continue };
            let Some(conn) = conns.get(member.conn) else { continue };
            if conn.queued(member.stream) < HIGH_WATER {
                conn.send_body(member.stream, capsule, false);
                conns.touch(member.conn);
            }
        }
        let retry = self.members.iter().any(|m| m.blocked).then(|| now + RETRY);
        self.bond.poll_timeout().into_iter().chain(retry).min()
    }

    /// Says what became of the paths, for whoever reads logs.
    pub fn log(event: &bauta_masque::bond::Event) {
        use bauta_masque::bond::Event;
        match event {
            Event::PathDown(path, why) => match why {
                Down::Silence => debug!(path, "a path has fallen silent"),
                Down::Link => debug!(path, "a path is down"),
                Down::Peer => debug!(path, "the peer has given a path up"),
            },
            Event::PathUp(path) => debug!(path, "a path works again"),
            Event::Joined(path) => debug!(path, "a path has joined"),
            Event::Closed(code) => debug!(?code, "the bond is closed"),
            Event::Ready => debug!("the bond is ready"),
            Event::Token(_) => {}
        }
    }
}

fn learn(bond: &mut Bond, member: &mut Member, conn: &(impl Carrier + ?Sized)) {
    if let Some(max) = conn.max_datagram_payload(member.stream) {
        bond.set_max_payload(member.path, max);
        member.known = conn.path_mtu_settled().then_some(max);
    }
}

impl Connection {
    /// What a bond wants to know of QUIC's counters.
    pub fn bond_stats(&self) -> QuicStats {
        let stats = self.quic.stats();
        let path = self.quic.path_stats().find(|p| p.active);
        QuicStats {
            sent: stats.sent as u64,
            lost: stats.lost as u64,
            acked_bytes: stats.acked_bytes,
            rtt: path.as_ref().map_or(Duration::ZERO, |p| p.rtt),
            min_rtt: path.as_ref().and_then(|p| p.min_rtt).unwrap_or(Duration::ZERO),
            rtt_var: path.as_ref().map_or(Duration::ZERO, |p| p.rttvar),
            cwnd: path.as_ref().map_or(0, |p| p.cwnd as u64),
            queued: self.quic.dgram_send_queue_len(),
        }
    }
}
