//! The sessions side by side, and the way of packets between them and the interface.

use std::{io, time::Instant};

use bauta_masque::{
    bond::{Policy as Spread, capsules},
    capsule::{self, CapsuleParser, KNOWN_BONDED_IP},
    connect_ip::{DropReason, Event as IpEvent, Verdict},
    datagram::{CONTEXT_ID_ZERO, H3_REQUEST_CANCELLED},
    filter::Policy,
    fragment,
};
use bauta_masque_io::{
    App, Carrier, Closed, ConnId, Connection, DatagramBuf, DatagramError, Event,
    connection::HIGH_WATER,
    tun::{TunBatch, TunQueue},
};

use super::bonding;
use super::endpoints::Endpoints;
use super::{
    fallback::Lanes,
    session::{MIN_IPV6, Session},
};
use crate::{
    headers,
    stage::{Failure, Stage},
    status::Traffic,
};

/// Packets that may wait in a connection before the interface is read again: what is beyond waits in the
/// interface's own queue, where the kernel sees it.
const MAX_QUEUED: usize = 256;
/// Bytes read from a stream at once.
const CHUNK: usize = 16 * 1024;
/// The longest HTTP Datagram payload where capsules carry packets, bytes.
const MAX_CAPSULE_PAYLOAD: usize = 65_535;

/// What the tunnel has to act upon after a batch of events.
pub(super) enum Note {
    Established(ConnId),
    Settings(ConnId),
    /// What the gateway has given has changed.
    Given(ConnId),
    PathMtu(ConnId),
    Migrated,
    /// The session is over, its connection may live.
    Failed(ConnId, Failure),
    Closed(ConnId, Closed),
    /// A session was accepted without a bond, on a connection whose rate nobody controls then.
    Ordinary(ConnId),
    /// Its bond is closed.
    Unbonded(ConnId),
    /// What is known of the paths has changed.
    Paths,
    /// A request to join was granted.
    MayJoin(ConnId, u64),
    /// It was not, or its stream is over.
    LegEnded(ConnId, u64),
}

/// A stream that is to join a bond, or has.
pub(super) struct Joining {
    pub(super) conn: ConnId,
    pub(super) stream: u64,
    parser: CapsuleParser,
}

impl Joining {
    pub(super) fn new(conn: ConnId, stream: u64) -> Joining {
        Joining { conn, stream, parser: CapsuleParser::new(KNOWN_BONDED_IP) }
    }
}

/// All sessions: one that sends, others that come or go.
pub(super) struct Sessions {
    pub(super) now: Instant,
    pub(super) list: Vec<Session>,
    /// The session that packets are sent on.
    pub(super) current: Option<ConnId>,
    pub(super) tun: Option<TunQueue>,
    pub(super) traffic: Traffic,
    pub(super) notes: Vec<Note>,
    pub(super) joining: Vec<Joining>,
    /// How packets are spread over paths.
    pub(super) spread: Spread,
    /// A bond may have something to send.
    pub(super) soiled: bool,
    pub(super) policy: Policy,
    batch: TunBatch,
    pub(super) chunk: Box<[u8]>,
}

impl Sessions {
    pub(super) fn new(now: Instant) -> Sessions {
        Sessions {
            now,
            list: Vec::new(),
            current: None,
            tun: None,
            traffic: Traffic::default(),
            notes: Vec::new(),
            joining: Vec::new(),
            spread: Spread::default(),
            soiled: false,
            policy: Policy::default(),
            batch: TunBatch::new(),
            chunk: vec![0; CHUNK].into(),
        }
    }

    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.list.iter_mut().find(|s| s.conn == conn)
    }

    pub(super) fn current(&self) -> Option<&Session> {
        self.list.iter().find(|s| Some(s.conn) == self.current)
    }

    pub(super) fn remove(&mut self, conn: ConnId) {
        self.list.retain(|s| s.conn != conn);
        if self.current == Some(conn) {
            self.current = None;
        }
    }

    /// Whether the current connection takes packets; without one they wait in the interface.
    pub(super) fn may_send(&self, endpoint: &mut Endpoints, lanes: &mut Lanes) -> bool {
        let Some(session) = self.current() else { return false };
        if let Some(lane) = lanes.get(session.conn) {
            return lane.road.queued(0) < HIGH_WATER;
        }
        let Some(conn) = endpoint.get(session.conn) else { return false };
        let queued = session.stream.map_or(0, |stream| conn.queued(stream));
        if queued >= HIGH_WATER {
            return false;
        }
        if !session.is_bypassed() {
            return session.bond_has_room();
        }
        conn.datagrams_queued() < MAX_QUEUED
    }

    /// Sends one batch from the interface; `false` when there was none. An error means that the interface is
    /// gone.
    pub(super) fn send_batch(
        &mut self,
        endpoint: &mut Endpoints,
        lanes: &mut Lanes,
    ) -> io::Result<bool> {
        let (Some(id), Some(tun)) = (self.current, self.tun.as_mut()) else { return Ok(false) };
        match tun.try_recv(&mut self.batch) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
        if let Some(lane) = lanes.get(id) {
            self.forward(&mut lane.road);
        } else if let Some(conn) = endpoint.get(id) {
            self.forward(conn);
            endpoint.touch(id);
        }
        Ok(true)
    }

    /// Sends the batch on `conn`.
    fn forward(&mut self, conn: &mut impl Carrier) {
        let id = conn.id();
        let Some(tun) = self.tun.as_mut() else { return };
        let Some(session) = self.list.iter_mut().find(|s| s.conn == id) else { return };
        let traffic = &mut self.traffic;
        let mut road = Road { now: self.now, session, conn, tun, traffic, fits: usize::MAX };
        let mut max = road.max_payload();
        if road.session.overflows {
            let context = CONTEXT_ID_ZERO.len();
            road.fits = max.saturating_sub(context);
            max = max.max(usize::from(MIN_IPV6) + context);
        }
        for packet in self.batch.drain() {
            let Some(packet) = road.send(packet, max) else { continue };
            let mtu = max.saturating_sub(CONTEXT_ID_ZERO.len());
            let each = |piece: &mut [u8]| {
                road.send(DatagramBuf::copy_of(piece), max);
            };
            if fragment::fragment_v4(packet.as_ref(), mtu, each).is_none() {
                road.traffic.up_dropped += 1;
            }
        }
        road.session.liveness.sent(self.now);
        self.soiled = true;
    }

    fn arrived(&mut self, conn: &mut impl Carrier, stream: u64, mut payload: DatagramBuf) {
        let is = |s: &&mut Session| s.conn == conn.id() && s.stream == Some(stream);
        if let Some(session) = self.list.iter_mut().find(is) {
            let Some(due) = session.keep(payload) else { return };
            payload = due;
        }
        if let Some(at) = self.index_of(conn.id(), stream)
            && self.list[at].layer.is_some()
        {
            self.soiled = true;
            return self.take_bonded(at, conn.id(), stream, payload);
        }
        let Self { now, list, tun, traffic, policy, .. } = self;
        let Some(session) = list.iter_mut().find(|s| s.conn == conn.id()) else { return };
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
                let stream = session.stream.unwrap_or(0);
                if session.datagrams {
                    let _ = conn.send_datagram(stream, &CONTEXT_ID_ZERO, &icmp.packet);
                } else if conn.queued(stream) < HIGH_WATER {
                    let capsule = capsule::encode_datagram_capsule(&CONTEXT_ID_ZERO, &icmp.packet);
                    conn.send_body(stream, capsule, false);
                }
            }
            Verdict::Drop(_) => traffic.down_dropped += 1,
        }
    }

    pub(super) fn data(&mut self, conn: &mut impl Carrier, stream: u64) {
        if self.joining.iter().any(|j| (j.conn, j.stream) == (conn.id(), stream)) {
            return self.joined_data(conn, stream);
        }
        loop {
            let n = conn.recv_body(stream, &mut self.chunk);
            if n == 0 {
                return;
            }
            let Some(session) =
                self.list.iter_mut().find(|s| s.conn == conn.id() && s.stream == Some(stream))
            else {
                continue;
            };
            // The next session holds the addresses now: what takes them from this one must not stop its last
            // packets. And the body of a refusal is a page of the website.
            if session.retired.is_some() || session.step < super::session::Step::Accepted {
                continue;
            }
            if let Err(e) = session.ip.handle_stream(self.now, &self.chunk[..n]) {
                conn.reset(stream, e.code());
                conn.stop(stream, e.code());
                let failure = Failure::new(
                    Stage::Addresses,
                    format_args!("the gateway breaks the protocol: {e}"),
                    "update the client or the gateway; if it is neither's, report it",
                );
                return self.notes.push(Note::Failed(conn.id(), failure));
            }
            self.events(conn);
        }
    }

    fn events(&mut self, conn: &mut impl Carrier) {
        let id = conn.id();
        while let Some(event) = self.get(id).and_then(|s| s.ip.poll_event()) {
            if let IpEvent::DatagramCapsule(payload) = event {
                let stream = self.get(id).and_then(|s| s.stream).unwrap_or(0);
                self.arrived(conn, stream, DatagramBuf::copy_of(&payload));
                continue;
            }
            if let IpEvent::Bond { kind, value } = event {
                self.bond_capsule(conn, kind, &value);
                continue;
            }
            let now = self.now;
            let Some(session) = self.get(id) else { return };
            let changed = session.told(event, now);
            session.transmit(conn);
            let (stream, early) = (session.stream.unwrap_or(0), session.take_kept());
            if changed {
                self.notes.push(Note::Given(id));
            }
            for packet in early {
                self.arrived(conn, stream, packet);
            }
        }
    }

    /// Capsules on a stream that is to join a bond, or has.
    fn joined_data(&mut self, conn: &mut impl Carrier, stream: u64) {
        let id = conn.id();
        loop {
            let n = conn.recv_body(stream, &mut self.chunk);
            let joining = self.joining.iter_mut().find(|j| (j.conn, j.stream) == (id, stream));
            let Some(joining) = joining.filter(|_| n > 0) else { return };
            let mut found = Vec::new();
            let mut each = |capsule: capsule::Capsule<'_>| {
                if capsules::TYPES.contains(&capsule.kind) {
                    found.push((capsule.kind, capsule.value.to_vec()));
                }
            };
            let mut fine = joining.parser.push(&self.chunk[..n], &mut each).is_ok();
            for (kind, value) in found {
                if let Ok(capsules::BondCapsule::Close(_)) = capsules::parse(kind, &value) {
                    fine = false;
                }
                let Some(at) = self.index_of(id, stream).filter(|_| fine) else { continue };
                let Some(layer) = &mut self.list[at].layer else { continue };
                let path = layer.bonded.path_of(id, stream).unwrap_or_default();
                fine = layer.bonded.bond.handle_capsule(self.now, path, kind, &value).is_ok();
                self.soiled = true;
            }
            if !fine {
                conn.reset(stream, H3_REQUEST_CANCELLED);
                conn.stop(stream, H3_REQUEST_CANCELLED);
                return self.notes.push(Note::LegEnded(id, stream));
            }
        }
    }

    fn bond_capsule(&mut self, conn: &mut impl Carrier, kind: u64, value: &[u8]) {
        let (id, now) = (conn.id(), self.now);
        let Some(layer) = self.get(id).and_then(|s| s.layer.as_mut()) else { return };
        let taken = layer.bonded.bond.handle_capsule(now, 0, kind, value);
        self.soiled = true;
        if let Err(e) = taken {
            let failure = Failure::new(
                Stage::ConnectIp,
                format_args!("the gateway breaks the protocol: {e}"),
                "update the client or the gateway, or set `resilience = false`",
            );
            self.notes.push(Note::Failed(id, failure));
        }
    }

    fn answered(&mut self, conn: &mut Connection, stream: u64, list: &[bauta_masque_io::Header]) {
        let now = self.now;
        let status = headers::status(list);
        if self.joining.iter().any(|j| (j.conn, j.stream) == (conn.id(), stream)) {
            match status {
                100..=199 => {}
                200..=299 => self.notes.push(Note::MayJoin(conn.id(), stream)),
                _ => self.notes.push(Note::LegEnded(conn.id(), stream)),
            }
            return;
        }
        let spread = self.spread;
        let Some(session) = self.get(conn.id()).filter(|s| s.stream == Some(stream)) else {
            return;
        };
        match status {
            100..=199 => {}
            200..=299 => {
                session.accepted(now);
                let agreed = session.offer.and_then(|offer| bonding::agreed(&offer, list));
                match agreed {
                    Some(agreed) if session.datagrams => {
                        session.bond(conn, agreed, spread, now);
                        self.soiled = true;
                    }
                    _ if conn.is_without_window() => self.notes.push(Note::Ordinary(conn.id())),
                    _ => {}
                }
            }
            _ => {
                let failure = Failure::status(status, headers::field(list, "proxy-status"));
                conn.reset(stream, H3_REQUEST_CANCELLED);
                conn.stop(stream, H3_REQUEST_CANCELLED);
                self.notes.push(Note::Failed(conn.id(), failure));
            }
        }
    }

    fn ended(&mut self, conn: &Connection, stream: u64, how: &str) {
        if self.joining.iter().any(|j| (j.conn, j.stream) == (conn.id(), stream)) {
            return self.notes.push(Note::LegEnded(conn.id(), stream));
        }
        let Some(session) = self.get(conn.id()).filter(|s| s.stream == Some(stream)) else {
            return;
        };
        if session.retired.is_some() {
            return;
        }
        let failure = Failure::new(
            Stage::ConnectIp,
            format_args!("the gateway {how} the tunnel"),
            "it may be restarting, or the account's limits are reached; its log says more",
        );
        self.notes.push(Note::Failed(conn.id(), failure));
    }
}

/// One session's way out, borrowed for a batch.
struct Road<'a, C> {
    now: Instant,
    session: &'a mut Session,
    conn: &'a mut C,
    tun: &'a mut TunQueue,
    traffic: &'a mut Traffic,
    /// The longest packet that goes in a datagram, bytes.
    fits: usize,
}

impl<C: Carrier> Road<'_, C> {
    fn max_payload(&self) -> usize {
        if self.session.max_packet > 0 {
            return self.session.max_packet + 1;
        }
        match self.session.stream.and_then(|s| self.conn.max_datagram_payload(s)) {
            Some(max) if self.session.datagrams => max,
            _ => MAX_CAPSULE_PAYLOAD,
        }
    }

    /// Sends a packet, answers it, or drops it; gives it back when it has to be fragmented first.
    #[inline]
    fn send(&mut self, mut packet: DatagramBuf, max: usize) -> Option<DatagramBuf> {
        match self.session.ip.encapsulate(self.now, packet.bytes_mut(), max) {
            Verdict::Forward(_) => {
                let len = packet.len() as u64;
                let stream = self.session.stream.unwrap_or(0);
                let fits = packet.len() <= self.fits;
                let sent = if fits && !self.session.is_bypassed() {
                    let taken = self.session.give_bond(self.now, packet.as_ref());
                    taken.then_some(()).ok_or(DatagramError::Full)
                } else if fits && self.session.datagrams {
                    self.conn.send_buf(stream, &CONTEXT_ID_ZERO, packet)
                } else {
                    let packet = packet.as_ref();
                    let capsule = capsule::encode_datagram_capsule(&CONTEXT_ID_ZERO, packet);
                    self.conn.send_body(stream, capsule, false);
                    Ok::<(), DatagramError>(())
                };
                if sent.is_ok() {
                    self.traffic.up_packets += 1;
                    self.traffic.up_bytes += len;
                } else {
                    self.traffic.up_dropped += 1;
                }
            }
            Verdict::Reply(icmp) => {
                self.traffic.icmp_errors += 1;
                self.tun.queue_packet(&icmp.packet);
            }
            Verdict::Drop(DropReason::NeedsFragmentation) => return Some(packet),
            Verdict::Drop(_) => self.traffic.up_dropped += 1,
        }
        None
    }
}

impl App for Sessions {
    fn received(&mut self, now: Instant) {
        self.now = now;
    }

    fn datagram(&mut self, conn: &mut Connection, stream: u64, payload: DatagramBuf) {
        self.arrived(conn, stream, payload);
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        let id = conn.id();
        if self.visited(conn, &event) {
            return;
        }
        match event {
            Event::Established => self.notes.push(Note::Established(id)),
            Event::Settings => self.notes.push(Note::Settings(id)),
            Event::Headers { stream, headers, .. } => self.answered(conn, stream, &headers),
            Event::Data { stream } => self.data(conn, stream),
            Event::Finished { stream } => self.ended(conn, stream, "ended"),
            Event::Reset { stream, .. } | Event::Stopped { stream, .. } => {
                self.ended(conn, stream, "aborted");
            }
            Event::PathMtu { .. } => self.notes.push(Note::PathMtu(id)),
            Event::Migrated => self.notes.push(Note::Migrated),
            Event::GoAway => {
                if let Some(session) = self.get(id) {
                    session.leaving = true;
                }
            }
            Event::Closed(closed) => self.notes.push(Note::Closed(id, closed)),
            Event::Writable { .. } => {}
        }
    }
}
