//! Where QUIC does not get through: the same session over TCP, beside QUIC and for as long as that is silent.
//!
//! UDP goes first. When nothing answers for a while TCP is tried beside it, and whichever has an address first
//! carries the packets; while TCP does, QUIC is tried again ever more seldom and takes over when it answers.
//! Hand-overs are those between two connections: nothing leaves outside in between.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bauta_masque::request::CONNECT_IP;
use bauta_masque_io::{
    Carrier, ConnId,
    tcp::{
        Version,
        client::{Answer, Dialled, TunnelRequest, TunnelStream},
        road::{self, Road, RoadEnd, is_road, read_piece},
    },
};
use bytes::{Bytes, BytesMut};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Tunnel, endpoints::Endpoints, session::Session};
use crate::{
    config::Settings,
    headers,
    stage::{Failure, Stage},
    tcp::{self, Transport},
};

/// How long QUIC has for itself at the first connection.
const HEAD_START: Duration = Duration::from_millis(1500);
/// The same when a connection was lost: QUIC has been given its time by then.
const HEAD_START_AGAIN: Duration = Duration::from_millis(500);
/// How long an attempt may take, answer included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon QUIC is tried again once TCP carries the tunnel.
pub(super) const COMEBACK: Duration = Duration::from_secs(10);
/// Pieces that wait for the tunnel at most; the rest waits in TCP.
const PIECES: usize = 64;

/// A stream over TCP, and what is known of its connection.
pub(super) struct Lane {
    pub(super) road: Road,
    pub(super) version: Version,
    /// Of TCP's handshake.
    pub(super) rtt: Duration,
}

/// News from the tasks.
pub(super) enum News {
    /// A tunnel was accepted.
    Up(ConnId, Box<Lane>, SocketAddr),
    /// There is none to be had this way.
    Failed(Failure),
    /// Bytes of a stream.
    Bytes(ConnId, Bytes),
    /// A stream is over.
    Over(ConnId),
}

/// Every tunnel over TCP, and the attempt at one.
pub(super) struct Lanes {
    list: HashMap<ConnId, Lane>,
    sender: mpsc::Sender<News>,
    receiver: mpsc::Receiver<News>,
    attempt: Option<JoinHandle<()>>,
    made: u64,
    /// When an attempt is to be made.
    pub(super) due: Option<Instant>,
    /// Why QUIC did not come up, while TCP is being tried instead.
    pub(super) instead_of: Option<Failure>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        let (sender, receiver) = mpsc::channel(PIECES);
        let (list, attempt) = (HashMap::new(), None);
        Lanes { list, sender, receiver, attempt, made: 0, due: None, instead_of: None }
    }

    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Lane> {
        self.list.get_mut(&id)
    }

    /// Lets a stream go; what is queued on it still leaves.
    pub(super) fn remove(&mut self, id: ConnId) {
        self.list.remove(&id);
    }

    /// The next piece of news.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.receiver.recv().await
    }

    /// News that waits.
    pub(super) fn waiting(&mut self) -> Option<News> {
        self.receiver.try_recv().ok()
    }

    pub(super) fn is_trying(&self) -> bool {
        self.due.is_some() || self.attempt.is_some()
    }

    /// No attempt is wanted any more.
    pub(super) fn call_off(&mut self) {
        (self.due, self.instead_of) = (None, None);
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
    }

    /// Begins an attempt that is due.
    fn advance(&mut self, now: Instant, settings: &Settings, gateways: &[SocketAddr]) {
        if self.due.is_none_or(|at| now < at) || self.attempt.is_some() {
            return;
        }
        self.due = None;
        let id = road::number(self.made);
        self.made += 1;
        let (settings, gateways) = (settings.clone(), gateways.to_vec());
        let sender = self.sender.clone();
        self.attempt = Some(tokio::spawn(async move {
            let opened = tokio::time::timeout(PATIENCE, open(&settings, &gateways)).await;
            let opened = opened.unwrap_or_else(|_| Err(tcp::silent(&gateways, PATIENCE)));
            match opened {
                Ok((stream, version, peer, rtt)) => {
                    let (road, end) = road::road(id);
                    let lane = Box::new(Lane { road, version, rtt });
                    // On its own, so that calling off the next attempt does not end it.
                    tokio::spawn(carry(id, lane, peer, stream, end, sender));
                }
                Err(failure) => drop(sender.send(News::Failed(failure)).await),
            }
        }));
    }
}

/// Whatever carries a session. The endpoint's connections and the lanes have numbers of their own.
pub(super) fn link<'a>(
    endpoint: &'a mut Endpoints,
    lanes: &'a mut Lanes,
    id: ConnId,
) -> Option<&'a mut dyn Carrier> {
    if is_road(id) {
        lanes.get(id).map(|lane| &mut lane.road as &mut dyn Carrier)
    } else {
        endpoint.get(id).map(|conn| conn as &mut dyn Carrier)
    }
}

async fn open(
    settings: &Settings,
    gateways: &[SocketAddr],
) -> Result<(TunnelStream, Version, SocketAddr, Duration), Failure> {
    let (dialled, peer, rtt) = tcp::dial(settings, gateways).await?;
    let version = dialled.version();
    let answer = ask(dialled, settings).await?;
    match answer.stream {
        Some(stream) => Ok((stream, version, peer, rtt)),
        None => {
            let why = answer.headers.get("proxy-status").and_then(|value| value.to_str().ok());
            Err(Failure::status(answer.status.as_u16(), why))
        }
    }
}

async fn ask(mut dialled: Dialled, settings: &Settings) -> Result<Answer, Failure> {
    let list = headers::connect_ip(settings, &mut dialled);
    let request = TunnelRequest::new(Some(CONNECT_IP), &list);
    let request = request.map_err(|e| Failure::new(Stage::ConnectIp, e, "is the link right?"))?;
    dialled.ask(&request).await.map_err(|e| {
        Failure::new(
            Stage::ConnectIp,
            format_args!("over TCP: {e}"),
            "it is no MASQUE gateway, or something in between does not let its requests pass",
        )
    })
}

async fn carry(
    id: ConnId,
    lane: Box<Lane>,
    peer: SocketAddr,
    stream: TunnelStream,
    mut end: RoadEnd,
    sender: mpsc::Sender<News>,
) {
    let (mut reader, writer) = stream.split();
    if sender.send(News::Up(id, lane, peer)).await.is_err() {
        return;
    }
    let down = async {
        let mut buffer = BytesMut::new();
        while let Some(bytes) = read_piece(&mut reader, &mut buffer).await {
            if bytes.is_empty() || sender.send(News::Bytes(id, bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = end.write_to(writer) => {}
    }
    let _ = sender.send(News::Over(id)).await;
}

impl Tunnel<'_> {
    /// Plans an attempt by TCP beside QUIC's.
    pub(super) fn race(&mut self, now: Instant) {
        if self.settings.transport != Transport::Quic
            && self.sessions.current.is_none()
            && !self.lanes.is_trying()
        {
            let head_start = match (self.settings.transport, self.was_up) {
                (Transport::Tcp, _) => Duration::ZERO,
                (_, true) => HEAD_START_AGAIN,
                (_, false) => HEAD_START,
            };
            self.lanes.due = Some(now + head_start);
        }
    }

    /// QUIC has failed before the tunnel was ever up: an error when nothing else is left to try.
    pub(super) fn without_quic(&mut self, failure: Failure, now: Instant) -> Result<(), Failure> {
        if failure.stage == Stage::Certificate || !self.lanes.is_trying() {
            return Err(failure);
        }
        self.lanes.due = self.lanes.due.map(|at| at.min(now));
        self.lanes.instead_of = Some(failure);
        Ok(())
    }

    /// Begins what is due, and deals with what the tasks have told.
    pub(super) async fn lanes(&mut self, first: Option<News>, now: Instant) -> Result<(), Failure> {
        let Self { lanes, settings, gateways, .. } = self;
        lanes.advance(now, settings, gateways);
        let mut next = first.or_else(|| self.lanes.waiting());
        for _ in 0..PIECES {
            let Some(news) = next else { break };
            self.news(news, now).await?;
            next = self.lanes.waiting();
        }
        Ok(())
    }

    async fn news(&mut self, news: News, now: Instant) -> Result<(), Failure> {
        match news {
            News::Up(id, lane, peer) => {
                self.lanes.attempt = None;
                if self.sessions.current.is_none() {
                    self.begin(id, *lane, peer, now)?;
                }
            }
            News::Failed(failure) => {
                self.lanes.attempt = None;
                tracing::debug!(%failure, "no tunnel over TCP");
                if !self.was_up && self.connector.is_none() && self.sessions.list.is_empty() {
                    let quic = self.lanes.instead_of.take();
                    let telling = matches!(failure.stage, Stage::Certificate | Stage::ConnectIp);
                    return Err(if telling { failure } else { quic.unwrap_or(failure) });
                }
                if self.was_up && self.settings.transport == Transport::Tcp {
                    self.again(&failure, now);
                }
            }
            News::Bytes(id, bytes) => {
                if let Some(lane) = self.lanes.get(id) {
                    lane.road.push(bytes);
                    self.sessions.data(&mut lane.road, 0);
                }
            }
            News::Over(id) => {
                self.lanes.remove(id);
                let Some(session) = self.sessions.get(id) else { return Ok(()) };
                let failure = Failure::new(
                    Stage::Handshake,
                    format_args!("the connection to {} over TCP has ended", session.peer),
                    "the gateway may be restarting",
                );
                self.lost(id, failure, now)?;
            }
        }
        Ok(())
    }

    /// A session on a stream that was accepted.
    fn begin(
        &mut self,
        id: ConnId,
        mut lane: Lane,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<(), Failure> {
        let how = match lane.version {
            Version::Http2 => "HTTP/2",
            Version::Http1 => "HTTP/1.1",
        };
        tracing::info!(%peer, "QUIC does not get through: {how} over TCP carries the tunnel");
        self.local = crate::watch::source(peer, Some(self.settings.mark));
        if !self.was_up {
            let rtt = lane.rtt.as_secs_f64() * 1e3;
            self.progress.done(
                Stage::Handshake,
                format_args!("{peer} over TCP, round trip {rtt:.1} ms; UDP does not get through"),
            );
            self.progress.done(Stage::Settings, format_args!("{how}: capsules carry packets"));
        }
        let mut session = Session::new(id, peer, now, self.settings);
        self.v6 = self.settings.ipv6;
        let families = (self.settings.ipv4, self.v6);
        session.accepted_over_tcp(&mut lane.road, families, self.lease(), now);
        self.lanes.list.insert(id, lane);
        self.sessions.list.push(session);
        Ok(())
    }
}
