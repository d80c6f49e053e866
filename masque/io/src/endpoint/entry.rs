//! From a first Initial to a connection, a Retry, or nothing.

use std::net::SocketAddr;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::door::{Entry, Subnet};
use super::gate::Change;
use super::gate::program::assemble;
use super::{App, ConnId, DoorStats, Endpoint, largest_payload};
use crate::cid::Cid;
use crate::clock;
use crate::tls::shed_handshake;

/// Room for a Retry packet: its header, two connection ids, the token, the integrity tag; bytes.
const RETRY: usize = 256;

impl Endpoint {
    /// What was done to those who asked for a connection, since the start.
    pub fn door_stats(&self) -> DoorStats {
        self.door.stats
    }

    /// Lets the sender of a first Initial in, or not.
    pub(super) fn admit(
        &mut self,
        header: &quiche::Header<'_>,
        dcid: Cid,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<ConnId> {
        if self.conns.len() >= self.config.max_connections {
            debug!(limit = self.config.max_connections, "no room for another connection");
            return None;
        }
        let now = clock::now();
        let token = header.token.as_deref().unwrap_or_default();
        let original = self.door.check(now, from, dcid.as_slice(), token);
        match self.door.knock(now, from, original.is_some()) {
            Entry::Accept => self.accept(now, dcid, original, from, to),
            Entry::Retry => {
                self.retry(now, header, from, to);
                None
            }
            Entry::Drop => None,
        }
    }

    /// Asks for proof of the address. The id chosen now leads the answer to this worker.
    fn retry(&self, now: Instant, header: &quiche::Header<'_>, from: SocketAddr, to: SocketAddr) {
        let chosen = self.draw_cid();
        let Some(token) = self.door.token(now, from, chosen.as_slice(), &header.dcid) else {
            return;
        };
        let mut out = [0; RETRY];
        let (scid, dcid) = (&header.scid, &header.dcid);
        if let Ok(n) =
            quiche::retry(scid, dcid, &chosen.to_quic(), &token, header.version, &mut out)
        {
            self.send_plain(&out[..n], from, to);
        }
    }

    /// Begins a connection; `original` is the id it was asked for with before a Retry.
    fn accept(
        &mut self,
        now: Instant,
        dcid: Cid,
        original: Option<Cid>,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<ConnId> {
        // After a Retry the client speaks to the id chosen then.
        let scid = if original.is_some() { dcid } else { self.draw_cid() };
        let token = self.reset_token(&scid)?;
        // After a Retry the first id, which may be a mark, is the one in the token.
        let first = original.unwrap_or(dcid);
        let tunnel = self.tunnels.as_mut().is_some_and(|t| (t.is_tunnel)(first.as_slice()));
        let config = match &mut self.tunnels {
            Some(tunnels) if tunnel => &mut tunnels.quic,
            _ => self.server.as_mut()?,
        };
        config.set_stateless_reset_token(Some(token));
        config.set_max_send_udp_payload_size(largest_payload(from));
        let odcid = original.map(Cid::to_quic);
        let accepted =
            quiche::accept_with_buf_factory(&scid.to_quic(), odcid.as_ref(), to, from, config);
        let mut quic = match accepted {
            Ok(quic) => quic,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                return None;
            }
        };
        shed_handshake(quic.as_mut());
        let cids = [scid, dcid];
        let id = self.insert(quic, if original.is_some() { &cids[..1] } else { &cids });
        let source = Subnet::of(from);
        if let Some(conn) = self.conns.get_mut(&id) {
            (conn.source, conn.shaking) = (Some(source), true);
            if tunnel {
                conn.without_window();
            }
        }
        self.door.entered(now, id, source);
        Some(id)
    }

    /// Looks at how many come, and has the kernel turn away what cannot be answered, or nothing.
    pub(super) fn mind_gate(&mut self, now: Instant) {
        let was_narrow = self.gate.is_narrow();
        let change = self.gate.handle_timeout(now);
        if change == Change::None {
            return;
        }
        let drops = self.socket.drops().unwrap_or(self.drops);
        if was_narrow {
            self.door.stats.filtered += u64::from(drops.wrapping_sub(self.drops));
        } else {
            info!("more Initials come than can be answered: most are dropped by a socket filter");
        }
        self.drops = drops;
        let set = match self.gate.rules() {
            Some(rules) => self.socket.filter(Some(&assemble(rules))),
            None => {
                info!("the flood of Initials is over: the socket filter is gone");
                self.socket.filter(None)
            }
        };
        if let Err(error) = set {
            warn!(%error, "the kernel refuses the socket filter");
        }
        self.door.stats.filtering = self.gate.is_narrow();
    }

    /// Drops a connection whose first packet was none: nobody heard of it, and nobody will.
    pub(super) fn drop_garbage(&mut self, id: ConnId) {
        let conn = self.conns.get(&id);
        if !conn.is_some_and(|conn| conn.shaking && conn.quic.stats().recv == 0) {
            return;
        }
        if let Some(conn) = self.conns.remove(&id) {
            self.door.stats.garbage += 1;
            self.unlist(&conn);
        }
    }

    /// Drops connections whose handshake takes too long.
    pub(super) fn drop_overdue(&mut self, now: Instant, app: &mut impl App) {
        while let Some(id) = self.door.overdue(now) {
            if self.conns.get(&id).is_some_and(|conn| conn.shaking) {
                self.door.stats.timed_out += 1;
                self.remove(id, app);
            }
        }
    }

    /// Forgets everything that leads to a connection that is gone.
    pub(super) fn unlist(&mut self, conn: &crate::Connection) {
        for cid in &conn.cids {
            self.cids.remove(cid);
        }
        if let Some(at) = conn.armed {
            self.timers.remove(&(at, conn.id));
        }
        if conn.shaking {
            self.door.settled();
        }
        if let Some(source) = conn.source {
            self.door.left(source);
        }
    }
}
