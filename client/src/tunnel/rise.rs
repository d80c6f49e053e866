//! From a connection to the session that carries this machine's packets.

use std::{net::IpAddr, time::Instant};

use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque_io::{ConnId, tcp::road::is_road};
use tracing::{info, warn};

use super::endpoints::link_of;
use super::fallback::{COMEBACK, link};
use super::session::MIN_IPV6;
use super::system::Wanted;
use super::{OVERLAP, Tunnel, lease_of};
use crate::liveness::Liveness;
use crate::stage::{Failure, Stage};
use crate::state::Lease;
use crate::status::Phase;

impl Tunnel<'_> {
    /// Moves sessions on that are on their way up, and lets retired ones go.
    pub(super) async fn advance(&mut self, now: Instant) -> Result<(), Failure> {
        let ids: Vec<ConnId> = self.sessions.list.iter().map(|s| s.conn).collect();
        for id in ids {
            let Self { endpoint, sessions, lanes, .. } = self;
            let Some(session) = sessions.get(id) else { continue };
            if session.retired.is_some_and(|end| now >= end) {
                if let Some(conn) = endpoint.get(id) {
                    conn.close(H3_NO_ERROR, b"");
                    endpoint.touch(id);
                }
                lanes.remove(id);
                sessions.remove(id);
                continue;
            }
            if let Some(conn) = endpoint.get(id)
                && (session.leave_site(conn, now) || session.look_on(conn, now))
            {
                endpoint.touch(id);
            }
            if let Some(conn) = endpoint.get(id)
                && session.is_mtu_known(conn, now)
            {
                let mtu = session.mtu(conn);
                if let Err(failure) = self.ask(id, mtu, now) {
                    self.lost(id, failure, now)?;
                }
                continue;
            }
            match session.becomes_ready(now) {
                Ok(true) => self.promote(id, now).await?,
                Ok(false) => {}
                Err(failure) => self.lost(id, failure, now)?,
            }
        }
        Ok(())
    }

    pub(super) fn ask(&mut self, id: ConnId, mtu: u16, now: Instant) -> Result<(), Failure> {
        self.v6 = self.settings.ipv6 && mtu >= MIN_IPV6;
        if !self.was_up {
            self.progress
                .done(Stage::PathMtu, format_args!("packets of {mtu} bytes fit the tunnel"));
        }
        if self.settings.ipv6 && !self.v6 {
            if !self.settings.ipv4 {
                return Err(Failure::new(
                    Stage::PathMtu,
                    format_args!(
                        "the path carries packets of {mtu} bytes only; IPv6 needs {MIN_IPV6}"
                    ),
                    "set `ipv4 = true`, or use another network",
                ));
            }
            self.progress.notice(format_args!(
                "the path carries packets of {mtu} bytes only and IPv6 needs {MIN_IPV6}: this tunnel is IPv4 alone"
            ));
        }
        let lease = self.lease();
        let families = (self.settings.ipv4, self.v6);
        let Self { endpoint, sessions, settings, .. } = self;
        let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
            return Ok(());
        };
        let asked = session.ask(conn, settings, families, lease, now);
        endpoint.touch(id);
        asked
    }

    /// The addresses held now, or last time.
    pub(super) fn lease(&self) -> Lease {
        match self.system.applied() {
            Some(applied) => lease_of(&applied.addresses),
            None => self.system.held().folder().lease(),
        }
    }

    /// Sending moves to `id`.
    pub(super) async fn promote(&mut self, id: ConnId, now: Instant) -> Result<(), Failure> {
        if !self.was_up {
            self.progress.done(Stage::ConnectIp, format_args!("by {}", self.settings.server));
        }
        self.apply(id).await?;
        if !is_road(id) {
            self.endpoint.set_main(link_of(id));
        }
        let old = self.sessions.current.replace(id);
        match old.and_then(|old| self.sessions.get(old)) {
            Some(old) => {
                old.retired = Some(now + OVERLAP);
                self.handovers += 1;
                info!(from = old.conn, to = id, "handed over to a fresh connection");
            }
            None if self.was_up => {
                self.reconnects += 1;
                info!("connected again");
            }
            None => {}
        }
        if let Some(session) = self.sessions.get(id) {
            session.liveness = Liveness::new(now, self.settings.keepalive);
        }
        if let Err(e) = self.system.held().keep_lease(self.lease()) {
            warn!(error = %e, "the addresses cannot be remembered");
        }
        self.backoff.reset();
        self.failure = None;
        // While TCP carries the tunnel QUIC is tried again.
        self.retry = is_road(id).then_some(now + COMEBACK);
        if !std::mem::replace(&mut self.was_up, true) {
            self.progress.up();
        }
        if self.phase != Phase::Up {
            (self.phase, self.since) = (Phase::Up, now);
        }
        Ok(())
    }

    /// Brings the machine to what the session `id` has been given.
    pub(super) async fn apply(&mut self, id: ConnId) -> Result<(), Failure> {
        let Self { endpoint, sessions, lanes, .. } = self;
        let (Some(session), Some(conn)) = (sessions.get(id), link(endpoint, lanes, id)) else {
            return Ok(());
        };
        let path = session.mtu(conn);
        let given = session.given.clone();
        // Below 1280 the kernel would take IPv6 from the interface; the session moves to one without it first.
        let has_v6 = given.addresses.iter().any(IpAddr::is_ipv6);
        let mtu = path.min(self.settings.mtu.unwrap_or(u16::MAX)).max(if has_v6 {
            MIN_IPV6
        } else {
            576
        });
        let wanted = Wanted {
            gateways: self.gateways.clone(),
            dns: if self.settings.dns.is_empty() { given.dns } else { self.settings.dns.clone() },
            search: given.search,
            addresses: given.addresses,
            routes: given.routes,
            mtu,
        };
        if wanted.addresses.is_empty() {
            // Everything was taken away: the stream is about to close, and until then nothing may change.
            return Ok(());
        }
        self.system.apply(wanted, &mut self.sessions.tun, self.progress).await
    }
}
