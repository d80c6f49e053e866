//! Sessions with a bond under them: packets into it, out of it, and over its connections.

use std::time::Instant;

use bauta_masque::bond::capsules::Token;
use bauta_masque::bond::field::{self, Agreed, Offer};
use bauta_masque::bond::{Bond, Config, Event, Policy, Queued, Received, Role};
use bauta_masque::connect_ip::Verdict;
use bauta_masque_io::bonded::Bonded;
use bauta_masque_io::{ConnId, Connection, DatagramBuf, Header, cid};

use super::endpoints::Endpoints;
use super::session::Session;
use super::sessions::{Note, Sessions};
use crate::config::Settings;
use crate::headers;
use crate::interfaces::{MAX_PATHS, Paths};

/// Packets that may wait in a bond before the interface is read no further: its own queue management
/// drops some long before, so that senders slow down.
const MAX_WAITING: usize = 2048;

/// What this client offers.
pub(super) fn offer(settings: &Settings, join: bool) -> Option<Offer> {
    let paths = if settings.paths == Paths::Routed { 1 } else { MAX_PATHS as u8 };
    settings.resilience.then(|| Offer { paths, join, rate: settings.rate, ..Offer::default() })
}

/// What was agreed upon by an answer's header, and how many workers the gateway has.
pub(super) fn agreed(offer: &Offer, headers: &[Header]) -> Option<(Agreed, u16)> {
    let answer = Offer::parse(headers::field(headers, field::NAME)?.as_bytes())?;
    Some((offer.agree(&answer)?, answer.workers))
}

/// A session's bond.
pub(super) struct Layer {
    pub(super) bonded: Bonded,
    /// The latest token by which a connection may join, and when it came.
    pub(super) token: Option<(Token, Instant)>,
    /// Workers of the gateway; 0: unknown.
    pub(super) workers: u16,
    pub(super) paths: u8,
}

impl Session {
    /// Puts a bond under the session, with the connection it was made by as its first path.
    pub(super) fn bond(
        &mut self,
        conn: &Connection,
        (agreed, workers): (Agreed, u16),
        spread: Policy,
        now: Instant,
    ) {
        let mut seed = [0; 8];
        cid::random(&mut seed);
        let mut config = Config::new(Role::Client, agreed, u64::from_ne_bytes(seed));
        config.policy = spread;
        let stream = self.stream.unwrap_or_default();
        let max = conn.max_datagram_payload(stream).unwrap_or(0);
        let bonded = Bonded::new(Bond::new(config, now), now, (self.conn, stream), max);
        self.max_packet = bonded.bond.max_packet();
        let paths = agreed.paths;
        self.layer = Some(Box::new(Layer { bonded, token: None, workers, paths }));
    }

    /// Whether packets may go behind Context ID 0 at once.
    #[inline]
    pub(super) fn is_bypassed(&self) -> bool {
        let Some(layer) = &self.layer else { return true };
        layer.bonded.is_bypassed(self.conn, self.stream.unwrap_or_default())
    }

    /// Gives a packet to the bond; whether it was taken.
    #[inline]
    pub(super) fn give_bond(&mut self, now: Instant, packet: &[u8]) -> bool {
        let Some(layer) = &mut self.layer else { return false };
        layer.bonded.bond.handle_packet(now, packet) == Queued::Taken
    }

    /// Whether the bond takes more packets for now.
    pub(super) fn bond_has_room(&self) -> bool {
        let Some(layer) = &self.layer else { return true };
        layer.bonded.bond.report().queued_packets < MAX_WAITING
    }

    /// Whether another of the bond's paths than the session's own is alive.
    pub(super) fn has_other_paths(&self) -> bool {
        let Some(layer) = &self.layer else { return false };
        layer.bonded.members().iter().any(|m| {
            m.conn != self.conn
                && layer.bonded.bond.path_report(m.path).is_some_and(|report| report.alive)
        })
    }
}

impl Sessions {
    /// The session that a stream belongs to, as its own or as one that has joined its bond.
    pub(super) fn index_of(&self, conn: ConnId, stream: u64) -> Option<usize> {
        let own = self.list.iter().position(|s| s.conn == conn && s.stream == Some(stream));
        own.or_else(|| {
            self.list.iter().position(|s| {
                s.layer.as_ref().is_some_and(|l| l.bonded.path_of(conn, stream).is_some())
            })
        })
    }

    /// A datagram for a session with a bond.
    pub(super) fn take_bonded(
        &mut self,
        at: usize,
        conn: ConnId,
        stream: u64,
        mut payload: DatagramBuf,
    ) {
        let now = self.now;
        let Some(session) = self.list.get_mut(at) else { return };
        let Some(layer) = &mut session.layer else { return };
        let Some(path) = layer.bonded.path_of(conn, stream) else { return };
        let whole = payload.len();
        match layer.bonded.bond.handle_datagram(now, path, payload.bytes_mut()) {
            Received::Packet(packet) => {
                let kept = packet.len();
                payload.advance(whole - kept);
                self.inside(at, payload);
            }
            Received::Taken => {}
            Received::Dropped(_) => self.traffic.down_dropped += 1,
        }
    }

    /// A packet from the gateway, a Context ID in front of it.
    #[inline]
    fn inside(&mut self, at: usize, mut payload: DatagramBuf) {
        let Self { now, list, tun, traffic, policy, .. } = self;
        let Some(session) = list.get_mut(at) else { return };
        match session.ip.handle_datagram(*now, payload.bytes_mut(), policy) {
            Verdict::Forward(packet) => {
                let len = packet.len();
                traffic.down_packets += 1;
                traffic.down_bytes += len as u64;
                if let Some(tun) = tun {
                    payload.advance(payload.len() - len);
                    tun.queue(payload);
                }
            }
            Verdict::Reply(icmp) => {
                traffic.icmp_errors += 1;
                session.give_bond(*now, &icmp.packet);
            }
            Verdict::Drop(_) => traffic.down_dropped += 1,
        }
    }

    /// Hands over all that the bonds let out, takes in all they have put in order, and returns when to
    /// come back.
    pub(super) fn pump(&mut self, endpoints: &mut Endpoints) -> Option<Instant> {
        let now = self.now;
        let mut due: Option<Instant> = None;
        for at in 0..self.list.len() {
            let Some(mut layer) = self.list[at].layer.take() else { continue };
            while let Some(payload) = layer.bonded.bond.poll_deliver(now) {
                self.inside(at, DatagramBuf::copy_of(payload));
            }
            due = due.into_iter().chain(layer.bonded.transmit(now, endpoints)).min();
            let conn = self.list[at].conn;
            let mut closed = false;
            while let Some(event) = layer.bonded.bond.poll_event() {
                Bonded::log(&event);
                match event {
                    Event::Token(token) => layer.token = Some((token, now)),
                    Event::Closed(_) => closed = true,
                    Event::PathDown(..) | Event::PathUp(_) | Event::Joined(_) => {
                        self.notes.push(Note::Paths);
                    }
                    Event::Ready => {}
                }
            }
            let before = self.list[at].max_packet;
            self.list[at].max_packet = layer.bonded.bond.max_packet();
            if before != self.list[at].max_packet {
                self.notes.push(Note::PathMtu(conn));
            }
            if closed {
                self.notes.push(Note::Unbonded(conn));
            } else {
                self.list[at].layer = Some(layer);
            }
        }
        due
    }
}
