//! A whole machine behind the gateway: CONNECT-IP from the first handshake to the last packet.
//!
//! One thread, one socket, one loop. A session is a connection with a CONNECT-IP request on it; at most times
//! there is one. A hand-over is two: the next is made ready beside the current one, sending moves to it, and the
//! old one is listened to for a while. Reconnecting is the same with no current one, and with the interface,
//! routes, firewall and addresses left as they are, so that nothing leaks meanwhile.

mod report;
mod session;
mod sessions;
mod start;
mod system;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque_io::{Closed, ConnId, Endpoint, EndpointConfig, QuicConfig, clock};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    config::Settings,
    connect::{Connector, PATIENCE, RETRY, explain},
    control::{self, Question},
    liveness::{Action, Liveness, MIN_SILENCE},
    quic,
    stage::{Failure, Progress, Stage},
    state::{Folder, Held, Lease},
    status::Phase,
    watch,
};
use session::{MIN_IPV6, Session, Step};
use sessions::{Note, Sessions};
use start::{gateways, hold};
use system::{System, Wanted, state_failure};

/// How long the old session is listened to after a hand-over: what is on its way arrives.
const OVERLAP: Duration = Duration::from_secs(3);
/// How long a farewell may take to leave.
const FAREWELL: Duration = Duration::from_millis(20);

/// Brings the tunnel up and keeps it up until `down`, SIGINT or SIGTERM; then everything is restored.
pub async fn run(settings: &Settings, progress: &mut dyn Progress) -> Result<(), Failure> {
    let folder = Folder::new(&settings.state_dir, &settings.name);
    let mut held = hold(&folder, settings)?;
    progress.done(Stage::Privileges, format_args!("ok"));
    let gateways = gateways(&mut held, settings, progress).await?;
    held.begin(settings.server.to_string(), gateways.clone()).map_err(|e| state_failure(&e))?;
    let mut tunnel = Tunnel::new(settings, held, gateways, progress)?;
    let outcome = tunnel.run().await;
    tunnel.finish(outcome).await
}

struct Tunnel<'a> {
    settings: &'a Settings,
    progress: &'a mut dyn Progress,
    endpoint: Endpoint,
    quic: QuicConfig,
    sessions: Sessions,
    system: System<'a>,
    gateways: Vec<SocketAddr>,
    connector: Option<Connector>,
    backoff: Backoff,
    /// When the next connection is begun, if one is needed.
    retry: Option<Instant>,
    /// IPv6 is asked for: configured, and the path carries 1280 bytes.
    v6: bool,
    /// Our address towards the gateway, for noticing that it has changed.
    local: Option<IpAddr>,
    /// The tunnel has been up once.
    was_up: bool,
    phase: Phase,
    since: Instant,
    handovers: u64,
    reconnects: u64,
    migrations: u64,
    failure: Option<String>,
}

struct Outside {
    questions: mpsc::Receiver<Question>,
    changes: mpsc::Receiver<()>,
    interrupt: Signal,
    terminate: Signal,
}

impl Outside {
    fn new(folder: &Folder) -> std::io::Result<Outside> {
        Ok(Outside {
            questions: control::serve(&folder.socket())?,
            changes: watch::changes()?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

impl<'a> Tunnel<'a> {
    fn new(
        settings: &'a Settings,
        held: Held,
        gateways: Vec<SocketAddr>,
        progress: &'a mut dyn Progress,
    ) -> Result<Tunnel<'a>, Failure> {
        let now = clock::now();
        let config = EndpointConfig {
            packet_limit: settings.packet_limit,
            qlog_dir: settings.qlog.clone(),
            ..EndpointConfig::default()
        };
        let endpoint = Endpoint::client(quic::marked_socket(settings)?, config)
            .map_err(|e| Failure::new(Stage::Handshake, e, "this is a fault of the client"))?;
        let mut seed = [0; 8];
        // Without randomness the jitter is the same everywhere; nothing else depends on it.
        let _ = getrandom::fill(&mut seed);
        Ok(Tunnel {
            settings,
            progress,
            endpoint,
            quic: quic::config(settings)?,
            sessions: Sessions::new(now),
            system: System::new(settings, held)?,
            gateways,
            connector: None,
            backoff: Backoff::new(u64::from_ne_bytes(seed)),
            retry: Some(now),
            v6: settings.ipv6,
            local: None,
            was_up: false,
            phase: Phase::Connecting,
            since: now,
            handovers: 0,
            reconnects: 0,
            migrations: 0,
            failure: None,
        })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let outside = Outside::new(self.system.held().folder());
        let mut outside = outside.map_err(|e| state_failure(&e))?;
        self.turn(clock::now()).await?;
        loop {
            let deadline = self.deadline();
            let may_send = self.sessions.may_send(&mut self.endpoint);
            tokio::select! {
                biased;
                _ = outside.interrupt.recv() => return Ok(()),
                _ = outside.terminate.recv() => return Ok(()),
                question = outside.questions.recv() => match question {
                    Some(Question::Status(tell)) => drop(tell.send(self.status(clock::now()))),
                    Some(Question::Down) | None => return Ok(()),
                },
                change = outside.changes.recv() => if change.is_some() {
                    self.network_changed(clock::now())?;
                },
                _ = self.endpoint.readable() => {}
                () = self.endpoint.writable() => {}
                () = readable(&self.sessions, may_send) => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            self.turn(clock::now()).await?;
        }
    }

    /// Everything that may be due, each in bounded measure, so that neither direction starves the other.
    async fn turn(&mut self, now: Instant) -> Result<(), Failure> {
        self.sessions.now = now;
        self.endpoint.handle_timeout(now, &mut self.sessions);
        self.endpoint.handle_readable(now, &mut self.sessions);
        if self.sessions.may_send(&mut self.endpoint) {
            self.sessions.send_batch(&mut self.endpoint).map_err(|e| interface_gone(&e))?;
        }
        // Packets first: what QUIC has to send beside them, acknowledgements, can wait for them.
        self.flush_tun()?;
        self.act(now).await?;
        self.endpoint.flush(now, &mut self.sessions);
        self.flush_tun()?;
        if !self.sessions.notes.is_empty() {
            self.act(now).await?;
            self.endpoint.flush(now, &mut self.sessions);
        }
        Ok(())
    }

    fn flush_tun(&mut self) -> Result<(), Failure> {
        match &mut self.sessions.tun {
            Some(tun) if tun.queued() > 0 => tun.flush().map(drop).map_err(|e| interface_gone(&e)),
            _ => Ok(()),
        }
    }

    fn deadline(&mut self) -> Instant {
        let far = clock::now() + Duration::from_secs(3600);
        let mut at =
            [self.endpoint.timeout(), self.connector.as_ref().map(Connector::timeout), self.retry]
                .into_iter()
                .flatten()
                .fold(far, Instant::min);
        for session in &self.sessions.list {
            let rtt = self.endpoint.get(session.conn).map_or(Duration::ZERO, |c| c.rtt());
            at = at.min(session.timeout(rtt));
        }
        at
    }

    async fn act(&mut self, now: Instant) -> Result<(), Failure> {
        for note in std::mem::take(&mut self.sessions.notes) {
            self.note(note, now).await?;
        }
        self.advance(now).await?;
        self.watch(now)?;
        self.connect(now)
    }

    async fn note(&mut self, note: Note, now: Instant) -> Result<(), Failure> {
        match note {
            Note::Established(id) => {
                let Some(connector) = &mut self.connector else { return Ok(()) };
                let Some(peer) = connector.won(id, &mut self.endpoint) else { return Ok(()) };
                self.connector = None;
                self.local = watch::source(peer, Some(self.settings.mark));
                self.sessions.list.push(Session::new(id, peer, now, self.settings));
                if !self.was_up {
                    let rtt = self.endpoint.get(id).map_or(Duration::ZERO, |c| c.rtt());
                    self.progress.done(
                        Stage::Handshake,
                        format_args!("{peer}, round trip {:.1} ms", rtt.as_secs_f64() * 1e3),
                    );
                    let trust =
                        if self.settings.pin.is_some() { "the pinned key" } else { "trusted" };
                    self.progress.done(
                        Stage::Certificate,
                        format_args!("{trust}, for {}", self.settings.sni),
                    );
                }
            }
            Note::Settings(id) => {
                let Self { endpoint, sessions, .. } = self;
                let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
                    return Ok(());
                };
                match session.settings(conn, now) {
                    Err(failure) => self.lost(id, failure, now)?,
                    Ok(()) if !self.was_up => {
                        let how = if session.datagrams {
                            "HTTP Datagrams"
                        } else {
                            "no HTTP Datagrams: capsules carry packets"
                        };
                        self.progress
                            .done(Stage::Settings, format_args!("extended CONNECT, {how}"));
                    }
                    Ok(()) => {}
                }
            }
            Note::Given(id) | Note::PathMtu(id) => {
                if self.sessions.current == Some(id) {
                    self.apply(id).await?;
                }
            }
            Note::Migrated => debug!("the connection has migrated"),
            Note::Failed(id, failure) => self.lost(id, failure, now)?,
            Note::Closed(id, closed) => self.closed(id, &closed, now)?,
        }
        Ok(())
    }

    fn closed(&mut self, id: ConnId, closed: &Closed, now: Instant) -> Result<(), Failure> {
        debug!(conn = id, ?closed, "closed");
        if let Some(connector) = &mut self.connector {
            connector.closed(id, closed, now);
        }
        let Some(session) = self.sessions.get(id) else { return Ok(()) };
        let failure = explain(closed, session.peer, &self.settings.sni);
        self.lost(id, failure, now)
    }

    /// A session is over. Before the tunnel was ever up that is the end; later it is made anew.
    fn lost(&mut self, id: ConnId, failure: Failure, now: Instant) -> Result<(), Failure> {
        let retired = self.sessions.get(id).is_some_and(|s| s.retired.is_some());
        let current = self.sessions.current == Some(id);
        self.sessions.remove(id);
        if let Some(conn) = self.endpoint.get(id) {
            conn.close(H3_NO_ERROR, b"");
            self.endpoint.touch(id);
        }
        if retired {
            return Ok(());
        }
        if !self.was_up {
            return Err(failure);
        }
        if current {
            (self.phase, self.since) = (Phase::Reconnecting, now);
            self.backoff.reset();
        }
        self.again(&failure, now);
        Ok(())
    }

    fn again(&mut self, failure: &Failure, now: Instant) {
        let wait = self.backoff.next_wait();
        let what = format!("{}: {}", failure.stage, failure.what);
        warn!(retry_in = ?wait, "{what}");
        self.failure = Some(what);
        self.retry = Some(now + wait);
    }

    /// Moves sessions on that are on their way up, and lets retired ones go.
    async fn advance(&mut self, now: Instant) -> Result<(), Failure> {
        let ids: Vec<ConnId> = self.sessions.list.iter().map(|s| s.conn).collect();
        for id in ids {
            let Self { endpoint, sessions, .. } = self;
            let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
                continue;
            };
            if session.retired.is_some_and(|end| now >= end) {
                conn.close(H3_NO_ERROR, b"");
                endpoint.touch(id);
                sessions.remove(id);
                continue;
            }
            if session.is_mtu_known(conn, now) {
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

    fn ask(&mut self, id: ConnId, mtu: u16, now: Instant) -> Result<(), Failure> {
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
    fn lease(&self) -> Lease {
        match self.system.applied() {
            Some(applied) => lease_of(&applied.addresses),
            None => self.system.held().folder().lease(),
        }
    }

    /// Sending moves to `id`.
    async fn promote(&mut self, id: ConnId, now: Instant) -> Result<(), Failure> {
        if !self.was_up {
            self.progress.done(Stage::ConnectIp, format_args!("by {}", self.settings.server));
        }
        self.apply(id).await?;
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
        self.retry = None;
        if !std::mem::replace(&mut self.was_up, true) {
            self.progress.up();
        }
        if self.phase != Phase::Up {
            (self.phase, self.since) = (Phase::Up, now);
        }
        Ok(())
    }

    /// Brings the machine to what the session `id` has been given.
    async fn apply(&mut self, id: ConnId) -> Result<(), Failure> {
        let Self { endpoint, sessions, .. } = self;
        let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
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

    /// Looks after the current session: whether it lives, and whether it is time to move on.
    fn watch(&mut self, now: Instant) -> Result<(), Failure> {
        let Some(id) = self.sessions.current else { return Ok(()) };
        let Self { endpoint, sessions, settings, .. } = self;
        let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
            return Ok(());
        };
        session.liveness.received(now, conn.packets_received());
        let worn = conn.packets_protected() >= settings.packet_limit / 4 * 3;
        let narrow =
            session.given.addresses.iter().any(IpAddr::is_ipv6) && session.mtu(conn) < MIN_IPV6;
        match session.liveness.action(now, conn.rtt()) {
            Action::None => {}
            Action::Ping => {
                conn.ping();
                endpoint.touch(id);
            }
            Action::Dead => {
                let failure = Failure::silent(session.peer, MIN_SILENCE);
                return self.lost(id, failure, now);
            }
        }
        let leaving = session.leaving;
        if (worn || narrow || leaving) && !self.is_connecting() && self.retry.is_none() {
            debug!(worn, narrow, leaving, "moving to a fresh connection");
            self.retry = Some(now);
        }
        Ok(())
    }

    /// Whether a session is on its way up.
    fn is_connecting(&self) -> bool {
        self.connector.is_some() || self.sessions.list.iter().any(|s| s.step < Step::Ready)
    }

    fn connect(&mut self, now: Instant) -> Result<(), Failure> {
        if self.retry.is_some_and(|at| now >= at) && !self.is_connecting() {
            self.retry = None;
            let patience = if self.was_up { RETRY } else { PATIENCE };
            self.connector =
                Some(Connector::new(now, &self.gateways, &self.settings.sni, patience));
        }
        let Some(connector) = &mut self.connector else { return Ok(()) };
        if let Err(failure) = connector.advance(now, &mut self.endpoint, &mut self.quic) {
            self.connector = None;
            if !self.was_up {
                return Err(failure);
            }
            self.again(&failure, now);
        }
        Ok(())
    }

    /// Addresses or routes of the machine have changed: the connection moves along, or is tried again at once.
    fn network_changed(&mut self, now: Instant) -> Result<(), Failure> {
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

    /// Says farewell and puts everything back. After a fault nobody wished for, the firewall stays: this machine
    /// stays closed until the next `up` takes over or `down` opens it.
    async fn finish(self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let Tunnel { mut endpoint, mut sessions, system, was_up, progress, .. } = self;
        endpoint.close_all(H3_NO_ERROR, b"");
        endpoint.flush(clock::now(), &mut sessions);
        let _ = tokio::time::timeout(FAREWELL, endpoint.writable()).await;
        endpoint.flush(clock::now(), &mut sessions);
        drop(sessions);
        let taken_over = system.applied().is_none() && system.held().is_taken_over();
        if outcome.is_err() && (taken_over || was_up && system.drops()) {
            progress.notice(format_args!("the kill switch stays on; `bauta down` lifts it"));
            return outcome;
        }
        let restored = system.restore().await;
        outcome.and(restored)
    }
}

async fn readable(sessions: &Sessions, may_send: bool) {
    match &sessions.tun {
        Some(tun) if may_send => drop(tun.readable().await),
        _ => std::future::pending().await,
    }
}

fn lease_of(addresses: &[IpAddr]) -> Lease {
    Lease {
        v4: addresses.iter().copied().find(IpAddr::is_ipv4),
        v6: addresses.iter().copied().find(IpAddr::is_ipv6),
    }
}

fn interface_gone(e: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Stage::Tun,
        format_args!("the interface is gone: {e}"),
        "has another program deleted it?",
    )
}
