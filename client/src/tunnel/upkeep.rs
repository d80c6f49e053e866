//! Looks after the current session: whether it lives, whether it is worn, whether the network has changed.

use std::{net::IpAddr, time::Instant};

use tracing::{debug, info, warn};

use super::session::{MIN_IPV6, Step};
use super::{Tunnel, lease_of};
use crate::connect::{Connector, PATIENCE, RETRY};
use crate::liveness::{Action, MIN_SILENCE};
use crate::stage::Failure;
use crate::tcp::Transport;
use crate::{quic, watch};

impl Tunnel<'_> {
    /// Looks after the current session: whether it lives, and whether it is time to move on.
    pub(super) fn watch(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(id) = self.sessions.current else { return Ok(()) };
        let Self { endpoint, sessions, settings, .. } = self;
        let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
            return Ok(());
        };
        session.liveness.received(now, conn.packets_received());
        let widened = settings.ipv6 && session.may_ask_for_v6(conn);
        if widened {
            info!(mtu = session.mtu(conn), "the path carries IPv6 after all; asking for it");
            let held = lease_of(&session.given.addresses);
            session.ask_again(conn, (settings.ipv4, true), held);
        }
        let worn = conn.packets_protected() >= settings.packet_limit / 4 * 3;
        let narrow =
            session.given.addresses.iter().any(IpAddr::is_ipv6) && session.mtu(conn) < MIN_IPV6;
        match session.liveness.action(now, conn.rtt()) {
            Action::None => {}
            Action::Ping => {
                conn.ping();
                endpoint.touch(id);
            }
            Action::Dead if session.has_other_paths() => {
                self.succeed(now);
                return Ok(());
            }
            Action::Dead => {
                let failure = Failure::silent(session.peer, MIN_SILENCE);
                return self.lost(id, failure, now);
            }
        }
        let leaving = session.leaving;
        if widened {
            endpoint.touch(id);
            self.v6 = true;
        }
        if (worn || narrow || leaving) && !self.is_connecting() && self.retry.is_none() {
            debug!(worn, narrow, leaving, "moving to a fresh connection");
            self.retry = Some(now);
        }
        Ok(())
    }

    /// Whether a session is on its way up.
    pub(super) fn is_connecting(&self) -> bool {
        self.connector.is_some() || self.sessions.list.iter().any(|s| s.step < Step::Ready)
    }

    pub(super) fn connect(&mut self, now: Instant) -> Result<(), Failure> {
        if self.retry.is_some_and(|at| now >= at) && !self.is_connecting() {
            self.retry = None;
            let patience = if self.was_up { RETRY } else { PATIENCE };
            self.race(now);
            if self.settings.transport == Transport::Tcp {
                return Ok(());
            }
            let mark = self.mark(None);
            let Some(link) = self.endpoint.main() else { return Ok(()) };
            let gateways = link.gateways(&self.gateways);
            let connector = Connector::new(now, gateways, &self.settings.sni, patience);
            self.connector = Some(connector.marked(mark));
        }
        let Self { connector, endpoint, quic, .. } = self;
        let (Some(connector), Some(link)) = (connector, endpoint.main()) else { return Ok(()) };
        if let Err(failure) = connector.advance(now, &mut link.endpoint, quic) {
            self.connector = None;
            self.endpoint.rotate();
            if !self.was_up {
                return self.without_quic(failure, now);
            }
            self.again(&failure, now);
        }
        Ok(())
    }

    /// Addresses or routes of the machine have changed: the connection moves along, or is tried again at once.
    pub(super) fn network_changed(&mut self, now: Instant) -> Result<(), Failure> {
        if self.is_multipath() {
            self.refresh_links(now)?;
            if self.sessions.current.is_none() && self.retry.is_some() {
                self.backoff.reset();
                self.retry = Some(now);
            }
            return Ok(());
        }
        let peer =
            self.sessions.current().map(|s| s.peer).or_else(|| self.gateways.first().copied());
        let Some(local) = peer.and_then(|peer| watch::source(peer, Some(self.settings.mark)))
        else {
            return Ok(());
        };
        if self.local != Some(local) && self.local.is_some() {
            info!("the local address has changed; moving the connection");
            match quic::marked_socket(self.settings) {
                Ok(socket) => self.endpoint.rebind(socket),
                Err(failure) => warn!(%failure, "no socket to move to"),
            }
            self.migrations += 1;
            for session in &mut self.sessions.list {
                session.liveness.moved(now);
            }
        }
        self.local = Some(local);
        if self.sessions.current.is_none() && self.retry.is_some() {
            self.backoff.reset();
            self.retry = Some(now);
        }
        Ok(())
    }
}
