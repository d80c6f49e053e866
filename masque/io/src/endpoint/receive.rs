//! From the socket to the connection that a datagram belongs to.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use quiche::{ConnectionId, RecvInfo, Type};
use tracing::{debug, trace};

use super::gate::Shows;
use super::{App, ConnId, Endpoint, Foreign};
use crate::cid::{self, Cid, LOCAL_CID_LEN};
use crate::steer;
use crate::udp::Transmit;

/// Batches taken from the socket in one turn, so that TUN and timers have theirs.
const BATCHES_A_TURN: usize = 4;
/// Bytes taken from the socket in one turn: what waits longer behind them, acknowledgements of the
/// tunnels' own flows above all, lets those flows run dry.
const BYTES_A_TURN: usize = 192 << 10;
/// Bytes decrypted before the app is told of them: one message's worth, which is then still in the
/// processor's cache.
const DRIVE_EVERY: usize = 60_000;
/// The smallest UDP payload that may carry a client's first Initial (RFC 9000 section 14.1), bytes.
const MIN_INITIAL: usize = 1200;
/// The smallest datagram answered with a stateless reset, which has to be shorter than what it
/// answers (RFC 9000 section 10.3.3), bytes.
const MIN_RESETTABLE: usize = 43;
/// Stateless resets sent in one turn at most: a flood of unknown packets is not to be answered.
pub(super) const RESETS_A_TURN: usize = 8;

impl Endpoint {
    /// Takes a bounded number of batches from the socket and tells `app` what they brought.
    pub fn handle_readable(&mut self, now: Instant, app: &mut impl App) {
        let Some(mut batch) = self.batch.take() else { return };
        let port = self.local.port();
        let (mut resets, mut taken) = (RESETS_A_TURN, 0);
        self.foreign_resets = RESETS_A_TURN;
        for _ in 0..BATCHES_A_TURN {
            match self.socket.try_recv(&mut batch) {
                Ok(_) => app.received(crate::clock::now()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    debug!(%error, "UDP receive");
                    break;
                }
            }
            let mut bytes = 0;
            batch.for_each(|d| {
                let to = match (self.server.is_some(), d.to) {
                    (true, Some(ip)) => SocketAddr::new(ip, port),
                    _ => self.local,
                };
                self.route(d.payload, d.from, to, &mut resets);
                bytes += d.payload.len();
                if bytes >= DRIVE_EVERY {
                    bytes = 0;
                    self.drive_heard(app);
                }
            });
            self.drive_heard(app);
            taken += batch.bytes();
            if taken >= BYTES_A_TURN {
                break;
            }
        }
        self.batch = Some(batch);
        self.mind_gate(now);
    }

    /// Takes a datagram that a sibling received for this endpoint.
    pub fn handle_foreign(&mut self, mut datagram: Foreign, app: &mut impl App) {
        let mut resets = self.foreign_resets;
        self.route(&mut datagram.payload, datagram.from, datagram.to, &mut resets);
        self.foreign_resets = resets;
        self.drive_heard(app);
    }

    /// Lets each connection that was heard from say what it was told.
    pub(super) fn drive_heard(&mut self, app: &mut impl App) {
        for at in 0..self.heard.len() {
            let id = self.heard[at];
            self.touch(id);
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.drive(&self.h3, app);
            }
        }
        self.heard.clear();
    }

    pub(super) fn route(
        &mut self,
        payload: &mut [u8],
        from: SocketAddr,
        to: SocketAddr,
        resets: &mut usize,
    ) {
        let Some(&first) = payload.first() else { return };
        let id = if first & 0x80 == 0 {
            self.by_short_header(payload, from, to, resets)
        } else {
            self.by_long_header(payload, from, to)
        };
        let Some(id) = id else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let Err(error) = conn.quic.recv(payload, RecvInfo { from, to })
            && error != quiche::Error::Done
        {
            trace!(conn = id, %error, "a packet was refused");
            self.drop_garbage(id);
        }
        if self.heard.last() != Some(&id) {
            self.heard.push(id);
        }
    }

    fn by_short_header(
        &mut self,
        payload: &[u8],
        from: SocketAddr,
        to: SocketAddr,
        resets: &mut usize,
    ) -> Option<ConnId> {
        let dcid = payload.get(1..=LOCAL_CID_LEN)?;
        let cid = Cid::new(dcid)?;
        if let Some(id) = self.cids.get(&cid) {
            return Some(*id);
        }
        if self.server.is_none() {
            // A stateless reset carries a random id: only the connection can tell by its token.
            return self.conns.values().find(|c| c.peer() == Some(from)).map(|c| c.id);
        }
        let owner = steer::worker_of(dcid, self.config.workers);
        if owner != self.config.worker {
            self.foreign.push(Foreign { worker: owner, from, to, payload: payload.to_vec() });
        } else if *resets > 0 && payload.len() >= MIN_RESETTABLE {
            *resets -= 1;
            self.send_reset(&cid, from, to);
        }
        None
    }

    /// Ends a connection of a former life: the peer learns at once instead of timing out.
    fn send_reset(&self, cid: &Cid, from: SocketAddr, to: SocketAddr) {
        let Some(token) =
            self.config.reset_key.as_ref().and_then(|key| cid::reset_token(key, cid.as_slice()))
        else {
            return;
        };
        let mut packet = [0; MIN_RESETTABLE - 1];
        let (noise, tail) = packet.split_at_mut(MIN_RESETTABLE - 17);
        cid::random(noise);
        noise[0] = noise[0] & 0x3f | 0x40;
        tail.copy_from_slice(&token.to_be_bytes());
        self.send_plain(&packet, from, to);
    }

    fn by_long_header(
        &mut self,
        payload: &mut [u8],
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<ConnId> {
        let header = quiche::Header::from_slice(payload, LOCAL_CID_LEN).ok()?;
        let dcid = Cid::new(&header.dcid)?;
        if let Some(id) = self.cids.get(&dcid) {
            return Some(*id);
        }
        self.server.as_ref()?;
        if let Some(shows) = Shows::of(payload) {
            self.gate.count(from, shows);
        }
        if !quiche::version_is_supported(header.version) {
            if header.ty != Type::VersionNegotiation
                && payload.len() >= MIN_INITIAL
                && self.door.may_answer(crate::clock::now())
            {
                self.negotiate_version(&header.scid, &header.dcid, from, to);
            }
            return None;
        }
        // The kernel's steering agrees with this; a ring's queue need not.
        let owner = steer::worker_of(&header.dcid, self.config.workers);
        let stays = self.config.accepts_anywhere && header.ty == Type::Initial;
        if owner != self.config.worker && !stays {
            self.foreign.push(Foreign { worker: owner, from, to, payload: payload.to_vec() });
            return None;
        }
        if header.ty != Type::Initial || payload.len() < MIN_INITIAL {
            return None;
        }
        self.admit(&header, dcid, from, to)
    }

    fn negotiate_version(
        &self,
        scid: &ConnectionId<'_>,
        dcid: &ConnectionId<'_>,
        from: SocketAddr,
        to: SocketAddr,
    ) {
        let mut out = [0; 128];
        if let Ok(n) = quiche::negotiate_version(scid, dcid, &mut out) {
            self.send_plain(&out[..n], from, to);
        }
    }

    pub(super) fn send_plain(&self, contents: &[u8], dst: SocketAddr, src: SocketAddr) {
        let src = (!src.ip().is_unspecified()).then_some(src.ip());
        let _ = self.socket.try_send(&Transmit { dst, src, segment_size: None, contents });
    }
}
