//! A whole machine behind the gateway: CONNECT-IP from the first handshake to the last packet.
//!
//! One thread, one socket, one loop. A session is a connection with a CONNECT-IP request on it; at most times
//! there is one. A hand-over is two: the next is made ready beside the current one, sending moves to it, and the
//! old one is listened to for a while. Reconnecting is the same with no current one, and with the interface,
//! routes, firewall and addresses left as they are, so that nothing leaks meanwhile.

mod bonding;
mod endpoints;
mod fallback;
mod legs;
mod report;
mod rise;
mod session;
mod sessions;
mod start;
mod system;
mod upkeep;
mod visit;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bauta_masque::{datagram::H3_NO_ERROR, shape::Shape};
use bauta_masque_io::{Closed, ConnId, QuicConfig, clock};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, warn};

use crate::{
    backoff::Backoff,
    config::Settings,
    connect::{Connector, explain},
    control::{self, Question},
    interfaces::Paths,
    quic,
    stage::{Failure, Progress, Stage},
    state::{Folder, Held, Lease},
    status::Phase,
    watch,
};
use endpoints::Endpoints;
use fallback::{Lanes, News};
use legs::Leg;
use session::Session;
use sessions::{Note, Sessions};
use start::{gateways, hold};
use system::{System, state_failure};
use visit::{Stay, Visit};

/// How long the old session is listened to after a hand-over: what is on its way arrives.
const OVERLAP: Duration = Duration::from_secs(3);
/// Batches taken from the interface in one turn, so that the socket has its own.
const BATCHES: usize = 4;
/// How long a farewell may take to leave.
const FAREWELL: Duration = Duration::from_millis(20);

/// Brings the tunnel up and keeps it up until `down`, SIGINT or SIGTERM; then everything is restored.
pub async fn run(settings: &Settings, progress: &mut dyn Progress) -> Result<(), Failure> {
    bauta_masque_io::memory::keep_freed();
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
    endpoint: Endpoints,
    lanes: Lanes,
    quic: QuicConfig,
    /// The gateway knows no bonds: connections keep QUIC's own congestion control.
    ordinary: bool,
    /// Further paths.
    legs: Vec<Leg>,
    /// When a bond wants to be looked at.
    bonds_due: Option<Instant>,
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
        let mut endpoint = Endpoints::new();
        if settings.paths == Paths::Routed {
            endpoint.add(settings, None)?;
        }
        let mut sessions = Sessions::new(now);
        sessions.spread = settings.policy;
        let mut seed = [0; 8];
        // Without randomness the jitter is the same everywhere; nothing else depends on it.
        let _ = getrandom::fill(&mut seed);
        let mut tunnel = Tunnel {
            settings,
            progress,
            endpoint,
            lanes: Lanes::new(),
            quic: quic::tunnel_config(settings)?,
            ordinary: !settings.resilience,
            legs: Vec::new(),
            bonds_due: None,
            sessions,
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
        };
        if tunnel.is_multipath() {
            tunnel.refresh_links(now)?;
        }
        Ok(tunnel)
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let outside = Outside::new(self.system.held().folder());
        let mut outside = outside.map_err(|e| state_failure(&e))?;
        self.turn(None, clock::now()).await?;
        loop {
            let deadline = self.deadline();
            let may_send = self.sessions.may_send(&mut self.endpoint, &mut self.lanes);
            let mut news = None;
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
                told = self.lanes.news() => news = told,
                () = self.endpoint.writable() => {}
                () = readable(&self.sessions, may_send) => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            self.turn(news, clock::now()).await?;
        }
    }

    /// Everything that may be due, each in bounded measure, so that neither direction starves the other.
    async fn turn(&mut self, news: Option<News>, now: Instant) -> Result<(), Failure> {
        self.sessions.now = now;
        self.endpoint.handle_timeout(now, &mut self.sessions);
        self.endpoint.handle_readable(now, &mut self.sessions);
        let now = self.refresh();
        self.lanes(news, now).await?;
        // Packets first: what QUIC has to send beside them, acknowledgements, can wait for them.
        self.flush_tun()?;
        // Each batch leaves before the next is read, while it is in the processor's cache.
        for _ in 0..BATCHES {
            let Self { endpoint, sessions, lanes, .. } = self;
            if !sessions.may_send(endpoint, lanes)
                || !sessions.send_batch(endpoint, lanes).map_err(|e| interface_gone(&e))?
            {
                break;
            }
            let now = self.refresh();
            self.pump(now);
            self.endpoint.flush(now, &mut self.sessions);
        }
        let now = self.refresh();
        self.pump(now);
        self.flush_tun()?;
        self.act(now).await?;
        self.endpoint.flush(now, &mut self.sessions);
        self.flush_tun()?;
        if !self.sessions.notes.is_empty() || self.sessions.soiled {
            self.act(now).await?;
            self.pump(now);
            self.endpoint.flush(now, &mut self.sessions);
        }
        Ok(())
    }

    /// Reads the clock: packets are stamped with the moment they leave, not with the turn's begin.
    fn refresh(&mut self) -> Instant {
        self.sessions.now = clock::now();
        self.sessions.now
    }

    /// Lets the bonds do what they have to.
    fn pump(&mut self, now: Instant) {
        if self.sessions.soiled || self.bonds_due.is_some_and(|at| at <= now) {
            self.sessions.soiled = false;
            self.bonds_due = self.sessions.pump(&mut self.endpoint);
        }
    }

    fn flush_tun(&mut self) -> Result<(), Failure> {
        match &mut self.sessions.tun {
            Some(tun) if tun.queued() > 0 => tun.flush().map(drop).map_err(|e| interface_gone(&e)),
            _ => Ok(()),
        }
    }

    fn deadline(&mut self) -> Instant {
        let far = clock::now() + Duration::from_secs(3600);
        let mut at = [
            self.endpoint.timeout(),
            self.connector.as_ref().map(Connector::timeout),
            self.retry,
            self.lanes.due,
        ]
        .into_iter()
        .flatten()
        .chain(self.bonds_due)
        .chain(self.legs_timeout())
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
        self.advance_legs(now);
        self.connect(now)
    }

    async fn note(&mut self, note: Note, now: Instant) -> Result<(), Failure> {
        match note {
            Note::Established(id) => {
                if self.leg_established(id) {
                    return Ok(());
                }
                let Some(connector) = &mut self.connector else { return Ok(()) };
                let Some(peer) = connector.won(id, &mut self.endpoint) else { return Ok(()) };
                self.connector = None;
                self.lanes.call_off();
                self.local = watch::source(peer, Some(self.settings.mark));
                let mut session = Session::new(id, peer, now, self.settings);
                // A machine that is cut off waits for nothing.
                let hurry = self.was_up && self.sessions.current.is_none();
                if self.settings.shape != Shape::None && !hurry {
                    session.visit = Some(Visit::new(self.settings, now));
                    session.stay = (self.settings.shape == Shape::Web)
                        .then(|| Stay::begin(self.settings, now));
                }
                self.sessions.list.push(session);
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
                if self.leg_settled(id, now) {
                    return Ok(());
                }
                let Self { endpoint, sessions, .. } = self;
                let (Some(session), Some(conn)) = (sessions.get(id), endpoint.get(id)) else {
                    return Ok(());
                };
                let taken = session.settings(conn, now);
                endpoint.touch(id);
                match taken {
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
            Note::Ordinary(id) => {
                debug!(conn = id, "the gateway knows no bonds; beginning anew without");
                self.ordinary = true;
                self.quic = quic::config(self.settings)?;
                self.sessions.remove(id);
                if let Some(conn) = self.endpoint.get(id) {
                    conn.close(H3_NO_ERROR, b"");
                    self.endpoint.touch(id);
                }
                self.retry = Some(now);
            }
            Note::Unbonded(id) => {
                if self.sessions.current == Some(id) && self.retry.is_none() {
                    self.retry = Some(now);
                }
            }
            Note::Paths => {}
            Note::MayJoin(id, stream) => self.join(id, stream, now),
            Note::LegEnded(id, stream) => self.leg_ended(id, stream, now),
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
        self.leg_closed(id, closed, now);
        let Some(session) = self.sessions.get(id) else { return Ok(()) };
        let failure = explain(closed, session.peer, &self.settings.sni);
        self.lost(id, failure, now)
    }

    /// A session is over. Before the tunnel was ever up that is the end; later it is made anew.
    fn lost(&mut self, id: ConnId, failure: Failure, now: Instant) -> Result<(), Failure> {
        let retired = self.sessions.get(id).is_some_and(|s| s.retired.is_some());
        let current = self.sessions.current == Some(id);
        // Another connection of its bond may be ready to take over.
        let heir = current && self.was_up && self.succeed(now) && self.is_connecting();
        self.sessions.remove(id);
        self.lanes.remove(id);
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
        if !heir {
            self.again(&failure, now);
        }
        Ok(())
    }

    fn again(&mut self, failure: &Failure, now: Instant) {
        let wait = self.backoff.next_wait();
        let what = format!("{}: {}", failure.stage, failure.what);
        warn!(retry_in = ?wait, "{what}");
        self.failure = Some(what);
        self.retry = Some(now + wait);
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
