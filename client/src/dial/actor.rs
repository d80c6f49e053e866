//! The loop that owns the connection: opens flows on it, and makes it anew when it is lost or worn out.

mod ways;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bauta_masque::datagram::{H3_NO_ERROR, H3_REQUEST_CANCELLED};
use bauta_masque_io::{ConnId, Endpoint, EndpointConfig, QuicConfig, StreamError, clock};
use tokio::sync::mpsc;
use tracing::debug;

use super::{
    DialError, Open, Wanted,
    flows::{Flows, Note, refuse},
    over_tcp::Lane,
};
use crate::{
    config::Settings,
    connect::Connector,
    headers,
    liveness::{Action, Liveness},
    quic,
    stage::{Failure, Stage},
};
use ways::OverTcp;

/// How long a flow waits for its answer, connecting included. The gateway's own attempt at a dead target ends
/// earlier, and says more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs until the last [`super::Dialer`] is dropped.
pub(super) async fn run(settings: Rc<Settings>, mut opens: mpsc::Receiver<Open>) {
    loop {
        let Some(first) = opens.recv().await else { return };
        match Actor::new(settings.clone()) {
            Ok(mut actor) => {
                actor.waiting.push_back((first, clock::now() + PATIENCE));
                return actor.run(opens).await;
            }
            Err(failure) => refuse(first, DialError::Gateway(failure)),
        }
    }
}

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

struct Actor {
    settings: Rc<Settings>,
    endpoint: Endpoint,
    quic: QuicConfig,
    flows: Flows,
    /// Where new flows go, once its settings are known.
    current: Option<ConnId>,
    connector: Option<Connector>,
    resolving: Option<Pending<Vec<SocketAddr>>>,
    addresses: Vec<SocketAddr>,
    over_tcp: OverTcp,
    liveness: Liveness,
    waiting: VecDeque<(Open, Instant)>,
}

impl Actor {
    fn new(settings: Rc<Settings>) -> Result<Actor, Failure> {
        let config = EndpointConfig {
            packet_limit: settings.packet_limit,
            qlog_dir: settings.qlog.clone(),
            shape: settings.shape,
            ..EndpointConfig::default()
        };
        let endpoint = Endpoint::client(quic::socket(&settings)?, config)
            .map_err(|e| Failure::new(Stage::Handshake, e, "this is a fault of the client"))?;
        Ok(Actor {
            quic: quic::config(&settings)?,
            liveness: Liveness::new(clock::now(), settings.keepalive),
            settings,
            endpoint,
            flows: Flows::new(),
            current: None,
            connector: None,
            resolving: None,
            addresses: Vec::new(),
            over_tcp: OverTcp::default(),
            waiting: VecDeque::new(),
        })
    }

    async fn run(mut self, mut opens: mpsc::Receiver<Open>) {
        let mut closing = false;
        self.turn(clock::now());
        while !closing {
            let deadline = self.deadline();
            let signal = self.flows.signal.clone();
            tokio::select! {
                biased;
                _ = self.endpoint.readable() => self.endpoint.handle_readable(clock::now(), &mut self.flows),
                () = self.endpoint.writable() => {}
                () = signal.raised() => {}
                open = opens.recv() => match open {
                    Some(open) => self.waiting.push_back((open, clock::now() + PATIENCE)),
                    None => {
                        self.endpoint.close_all(H3_NO_ERROR, b"");
                        closing = true;
                    }
                },
                found = pending(&mut self.resolving) => {
                    self.resolving = None;
                    self.resolved(found);
                }
                lane = pending(&mut self.over_tcp.attempt) => {
                    self.over_tcp.attempt = None;
                    self.dialled(lane);
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    self.endpoint.handle_timeout(clock::now(), &mut self.flows);
                }
            }
            self.turn(clock::now());
        }
    }

    /// When something is due of its own.
    fn deadline(&self) -> Instant {
        let far = clock::now() + Duration::from_secs(3600);
        let waiting = self.waiting.front().map(|(_, deadline)| *deadline);
        let connector = self.connector.as_ref().map(Connector::timeout);
        let rtt = Duration::ZERO;
        let liveness = self.busy().map(|_| self.liveness.timeout(rtt));
        let over_tcp = self.over_tcp.due;
        [self.endpoint.timeout(), self.flows.timeout(), waiting, connector, liveness, over_tcp]
            .into_iter()
            .flatten()
            .fold(far, Instant::min)
    }

    /// The current connection, if flows depend on it.
    fn busy(&self) -> Option<ConnId> {
        self.current.filter(|id| !self.flows.is_idle(*id))
    }

    fn turn(&mut self, now: Instant) {
        // What the flush tells may have to be acted upon, and acting has something to send.
        for _ in 0..2 {
            self.act(now);
            self.endpoint.flush(now, &mut self.flows);
        }
    }

    fn act(&mut self, now: Instant) {
        for note in std::mem::take(&mut self.flows.notes) {
            self.note(note, now);
        }
        for (conn, stream) in self.flows.raised(now) {
            if let Some(connection) = self.endpoint.get(conn) {
                self.flows.pump(connection, stream);
                self.endpoint.touch(conn);
            }
        }
        for (conn, stream) in self.flows.expire(now) {
            if let Some(connection) = self.endpoint.get(conn) {
                connection.reset(stream, H3_REQUEST_CANCELLED);
                connection.stop(stream, H3_REQUEST_CANCELLED);
                self.endpoint.touch(conn);
            }
        }
        while self.waiting.front().is_some_and(|(_, deadline)| *deadline <= now) {
            if let Some((open, _)) = self.waiting.pop_front() {
                refuse(open, DialError::TimedOut);
            }
        }
        for again in self.flows.again.drain(..) {
            self.waiting.push_front(again);
        }
        self.watch(now);
        if self.current.is_some() {
            self.open_waiting(now);
        } else if !self.waiting.is_empty() {
            self.find_way(now);
        }
        if let Some(connector) = &mut self.connector
            && let Err(failure) = connector.advance(now, &mut self.endpoint, &mut self.quic)
        {
            self.connector = None;
            self.without_quic(failure, now);
        }
        if self.over_tcp.due.is_some_and(|at| at <= now) {
            self.over_tcp.due = None;
            let (settings, gateways) = (self.settings.clone(), self.addresses.clone());
            self.over_tcp.attempt = Some(Box::pin(Lane::open(settings, gateways)));
        }
    }

    fn note(&mut self, note: Note, now: Instant) {
        match note {
            Note::Established(id) => {
                if let Some(connector) = &mut self.connector {
                    let peer = connector.won(id, &mut self.endpoint);
                    debug!(conn = id, ?peer, "connected");
                }
            }
            Note::Settings(id) => {
                if self.connector.as_ref().is_some_and(|c| c.owns(id)) {
                    self.connector = None;
                    self.current = Some(id);
                    if let Some(conn) = self.endpoint.get(id) {
                        conn.end_reserve();
                        self.endpoint.touch(id);
                    }
                    // What is open there goes on.
                    self.over_tcp = OverTcp::default();
                    self.liveness = Liveness::new(now, self.settings.keepalive);
                }
            }
            Note::GoAway(id) => self.leave(id),
            Note::Closed(id, closed) => {
                debug!(conn = id, ?closed, "closed");
                self.leave(id);
                if let Some(connector) = &mut self.connector {
                    connector.closed(id, &closed, now);
                }
            }
        }
    }

    /// New flows go to another connection from now on; those on this one go on.
    fn leave(&mut self, id: ConnId) {
        if self.current == Some(id) {
            self.current = None;
        }
    }

    /// Keeps the connection alive, notices its death, and leaves it before its key is worn out.
    fn watch(&mut self, now: Instant) {
        let limit = self.settings.packet_limit / 4 * 3;
        let busy = self.busy();
        let Some(id) = self.current else { return };
        let Some(conn) = self.endpoint.get(id) else { return self.leave(id) };
        if conn.packets_protected() >= limit {
            return self.leave(id);
        }
        self.liveness.received(now, conn.packets_received());
        if busy.is_none() {
            return;
        }
        match self.liveness.action(now, conn.rtt()) {
            Action::None => {}
            Action::Ping => {
                conn.ping();
                self.endpoint.touch(id);
            }
            Action::Dead => {
                conn.close(H3_NO_ERROR, b"");
                self.endpoint.touch(id);
                self.leave(id);
            }
        }
    }

    fn refuse_all(&mut self, failure: &Failure) {
        for (open, _) in self.waiting.drain(..) {
            refuse(open, DialError::Gateway(failure.clone()));
        }
    }

    fn open_waiting(&mut self, now: Instant) {
        let Some(id) = self.current else { return };
        let Some(conn) = self.endpoint.get(id) else { return };
        while let Some((open, deadline)) = self.waiting.pop_front() {
            let udp = matches!(open.wanted, Wanted::Udp(_));
            if udp && !conn.extended_connect_enabled() {
                let failure = Failure::new(
                    Stage::Settings,
                    "the gateway does not take extended CONNECT",
                    "it is no MASQUE gateway, or tunnels are switched off there",
                );
                refuse(open, DialError::Gateway(failure));
                continue;
            }
            let list = if udp {
                headers::connect_udp(&self.settings, conn, &open.target)
            } else {
                headers::connect_tcp(&self.settings, conn, &open.target)
            };
            match conn.request(&list, false) {
                Ok(stream) => {
                    self.flows.asked((id, stream), open, deadline);
                    self.liveness.sent(now);
                }
                Err(StreamError::Blocked) => {
                    // As many as the gateway allows are open: this one waits for another to end.
                    self.waiting.push_front((open, deadline));
                    break;
                }
                Err(StreamError::Closed) => {
                    self.waiting.push_front((open, deadline));
                    self.current = None;
                    break;
                }
            }
        }
        self.endpoint.touch(id);
    }
}

/// Waits forever where there is nothing to wait for.
async fn pending<T>(work: &mut Option<Pending<T>>) -> Result<T, Failure> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
