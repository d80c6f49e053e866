//! The ways to the gateway: QUIC first, TCP beside it where that is silent, and back.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bauta_masque_io::clock;
use tracing::debug;

use super::{Actor, Pending};
use crate::{
    connect::{self, Connector},
    dial::over_tcp::{Comeback, HEAD_START, Lane},
    resolve::resolve,
    stage::{Failure, Stage},
    tcp::Transport,
};

/// What is done over TCP beside QUIC.
#[derive(Default)]
pub(super) struct OverTcp {
    /// When an attempt is to be made.
    pub(super) due: Option<Instant>,
    pub(super) attempt: Option<Pending<Lane>>,
    /// Where new flows go while no QUIC connection is there.
    pub(super) lane: Option<Rc<Lane>>,
    /// When QUIC is tried again.
    comeback: Option<Comeback>,
    /// Why QUIC did not come up, while TCP is being tried.
    instead_of: Option<Failure>,
}

impl OverTcp {
    fn is_trying(&self) -> bool {
        self.due.is_some() || self.attempt.is_some()
    }
}

impl Actor {
    /// Flows wait, and no QUIC connection is there.
    pub(super) fn find_way(&mut self, now: Instant) {
        if self.over_tcp.lane.as_ref().is_some_and(|lane| lane.is_closed()) {
            self.over_tcp.lane = None;
        }
        let connecting = self.connector.is_some() || self.resolving.is_some();
        if let Some(lane) = &self.over_tcp.lane {
            for (open, deadline) in self.waiting.drain(..) {
                tokio::task::spawn_local(lane.clone().serve(open, deadline));
            }
            let comeback = self.over_tcp.comeback.get_or_insert_with(|| Comeback::new(now));
            if self.settings.transport == Transport::Auto && !connecting && comeback.is_due(now) {
                self.connector = Some(self.connector(now));
            }
        } else if self.over_tcp.is_trying() || self.resolving.is_some() {
            // It will be told.
        } else if !connecting {
            self.connect(now);
        } else if self.settings.transport == Transport::Auto {
            self.over_tcp.due = Some(now + HEAD_START);
        }
    }

    /// QUIC has failed: TCP is what is left.
    pub(super) fn without_quic(&mut self, failure: Failure, now: Instant) {
        let over_tcp = &mut self.over_tcp;
        if failure.stage != Stage::Certificate {
            if over_tcp.lane.is_some() {
                return;
            }
            if over_tcp.is_trying() {
                over_tcp.due = over_tcp.due.map(|at| at.min(now));
                over_tcp.instead_of = Some(failure);
                return;
            }
        }
        self.fail(&failure);
    }

    /// There is no way to the gateway.
    fn fail(&mut self, failure: &Failure) {
        self.over_tcp = OverTcp::default();
        // Addresses may have changed with the network.
        self.addresses.clear();
        self.refuse_all(failure);
    }

    /// An attempt over TCP has ended.
    pub(super) fn dialled(&mut self, lane: Result<Lane, Failure>) {
        let quic = self.over_tcp.instead_of.take();
        match lane {
            Ok(lane) => {
                debug!("QUIC does not get through: new flows go over TCP");
                self.over_tcp.lane = Some(Rc::new(lane));
            }
            Err(failure) if self.connector.is_none() && self.current.is_none() => {
                let telling = failure.stage == Stage::Certificate;
                self.fail(&if telling { failure } else { quic.unwrap_or(failure) });
            }
            Err(failure) => debug!(%failure, "no way over TCP"),
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        if self.addresses.is_empty() {
            let settings = self.settings.clone();
            self.resolving =
                Some(Box::pin(async move { resolve(&settings.server, &settings.addr).await }));
        } else {
            let transport = self.settings.transport;
            if transport != Transport::Tcp {
                self.connector = Some(self.connector(now));
            }
            let head_start = match transport {
                Transport::Tcp => Duration::ZERO,
                Transport::Auto | Transport::Quic => HEAD_START,
            };
            self.over_tcp.due = (transport != Transport::Quic).then(|| now + head_start);
        }
    }

    fn connector(&self, now: Instant) -> Connector {
        Connector::new(now, &self.addresses, &self.settings.sni, connect::PATIENCE)
    }

    pub(super) fn resolved(&mut self, found: Result<Vec<SocketAddr>, Failure>) {
        match found {
            Ok(addresses) => {
                self.addresses = addresses;
                self.connect(clock::now());
            }
            Err(failure) => self.refuse_all(&failure),
        }
    }
}
