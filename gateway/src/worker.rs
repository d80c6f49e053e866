//! A worker: one thread that owns a UDP socket, its QUIC connections, a TUN queue and every
//! session on them. Nothing on the way of a packet is shared, locked or allocated.

mod app;
mod ctx;
mod downward;
mod pipe;
mod rings;
mod roads;
mod site;
mod upward;
mod waiting;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bauta_masque::shape::Shape;
use bauta_masque_io::mark::Marks;
use bauta_masque_io::tcp::road::is_road;
use bauta_masque_io::tls::{Certified, TicketKey};
use bauta_masque_io::tun::{TunBatch, TunLanes};
use bauta_masque_io::udp::UdpSocket;
use bauta_masque_io::{Carrier, Endpoint, EndpointConfig, Foreign, Header, clock};
use bauta_web::Site;
use bauta_xdp::XskRing;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::dial::Refusal;
use crate::pool::Holder;
use crate::shared::Everything;
use crate::tunnel::Ready;
use app::Streams;
pub(crate) use ctx::{Ctx, Told};
pub(crate) use pipe::{Ends, Inbox, Outbox, Task};
use rings::Rings;
use roads::Roads;
pub(crate) use roads::{Opened, Up};

/// Messages that wait for a worker at most; packets beyond are dropped, control waits.
pub const MAILBOX: usize = 1024;

/// How often idle flows and withdrawn accounts are looked for.
const TICK: Duration = Duration::from_secs(1);

/// Time for the last packets to leave once a worker was told to stop.
const FAREWELL: Duration = Duration::from_millis(500);

/// Things told by tasks that are dealt with in one turn.
const TOLD: usize = 256;

/// A request stream: its connection and its id there.
pub(crate) type Key = (u64, u64);

/// What other threads tell a worker.
pub enum Message {
    /// A QUIC datagram that landed on a sibling.
    Foreign(Foreign),
    /// Packets from a sibling's TUN queue, for sessions here.
    Packets(Vec<Vec<u8>>),
    /// News of a tunnel that comes over TCP, by its number.
    Road(u64, Carried),
    /// A newer session took this one's addresses over.
    Retire(Holder),
    /// Accept new connections with this certificate.
    Certificate(Arc<Certified>),
    /// Answer with this site from now on.
    Site(Site),
    /// Say what sessions there are.
    Sessions(mpsc::Sender<Vec<SessionInfo>>),
    /// Tell clients to leave, then end.
    Stop,
}

/// See [`Message::Road`].
pub struct Carried(pub(crate) Up);

/// One tunnel, for `/sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct SessionInfo {
    /// Whose it is.
    pub account: String,
    /// `connect-ip`, `connect-udp` or `connect-tcp`.
    pub kind: &'static str,
    /// The worker it lives on.
    pub worker: usize,
    /// The client's addresses inside the tunnel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<std::net::IpAddr>,
    /// Seconds since it began; CONNECT-IP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
}

/// What tasks on the worker's thread tell it about a stream.
pub(crate) enum What {
    /// The head to come says that what was asked for is not to be had.
    Failure,
    /// The head of an answer; `true`: it is all there is.
    Head(Vec<Header>, bool),
    /// A piece of a body.
    Body(Bytes),
    /// The end of a body, with trailers.
    Trailers(Vec<Header>),
    /// The end of a body.
    End,
    /// It broke off.
    Abort(u64),
    /// The task has nothing more to do.
    Done,
    /// A tunnel can be opened, or not.
    Ready(Box<Result<Ready, Refusal>>),
    /// A UDP target has something to say.
    Readable,
}

/// Keys that all workers share, so that each can take over what another began.
#[derive(Clone)]
pub struct Keys {
    /// Of stateless resets; kept across restarts.
    pub reset: [u8; 32],
    /// Of session tickets.
    pub tickets: TicketKey,
}

/// Everything a worker is made from.
pub struct Parts {
    /// Its number.
    pub id: usize,
    /// Its socket.
    pub socket: std::net::UdpSocket,
    /// Its receive rings beside it, if any.
    pub rings: Vec<XskRing>,
    /// Whether a connection's datagrams keep arriving where its first one did.
    pub accepts_anywhere: bool,
    /// Its TUN queue, with CONNECT-IP.
    pub tun: Option<TunLanes>,
    /// The certificate to begin with; `None`: wait for it.
    pub certificate: Option<Arc<Certified>>,
    /// The site to begin with.
    pub site: Site,
    /// Its mailbox.
    pub mailbox: mpsc::Receiver<Message>,
    /// Keys that all workers share.
    pub keys: Keys,
    /// What everybody shares.
    pub shared: Everything,
}

/// Runs a worker on this thread until it is told to stop.
pub fn run(mut parts: Parts) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let Some(certificate) = waiting::for_certificate(&mut parts).await else { return Ok(()) };
        let mut worker = Worker::new(parts, &certificate)?;
        worker.serve().await
    })
}

/// What ended a wait.
enum Woken {
    /// A socket, the TUN or a timer.
    Ready,
    Message(Message),
    Told(Key, What),
    Hungry(Key),
}

struct Worker {
    endpoint: Endpoint,
    roads: Roads,
    rings: Rings,
    streams: Streams,
    mailbox: mpsc::Receiver<Message>,
    what: mpsc::UnboundedReceiver<(Key, What)>,
    hungry: mpsc::UnboundedReceiver<Key>,
    tun_batch: Option<TunBatch>,
    next_tick: Instant,
    tickets: TicketKey,
    /// When it ends at the latest, once it was told to.
    ends: Option<Instant>,
}

impl Worker {
    fn new(parts: Parts, certificate: &Certified) -> anyhow::Result<Self> {
        let shared = parts.shared;
        let config = &shared.config;
        let (quic, tunnels) = ctx::quic_configs(certificate, &parts.keys.tickets, config)?;
        let endpoint = EndpointConfig {
            worker: parts.id,
            workers: shared.workers.len(),
            accepts_anywhere: parts.accepts_anywhere,
            max_connections: config.max_connections,
            packet_limit: config.packet_limit,
            qlog_dir: config.log.qlog.clone(),
            first_id: 0,
            reset_key: Some(parts.keys.reset),
            shape: Shape::None,
            door: config.limits.door(),
        };
        let mut endpoint = Endpoint::server(UdpSocket::from_std(parts.socket)?, quic, endpoint)?;
        if let Some(quic) = tunnels {
            let (shared, mut marks) = (shared.clone(), Marks::default());
            endpoint.set_tunnel_config(quic, move |dcid| {
                shared.accounts.recognises(dcid, &mut marks, clock::unix_time())
            });
        }
        let (told, what, hungry) = Told::new();
        let ctx = Ctx::new(parts.id, shared, parts.site, parts.tun, told);
        let rings = Rings::new(parts.rings)?;
        rings.count(&ctx.counters);
        Ok(Self {
            endpoint,
            roads: Roads::new(),
            rings,
            streams: Streams::new(ctx),
            mailbox: parts.mailbox,
            what,
            hungry,
            tun_batch: Some(TunBatch::new()),
            next_tick: clock::now() + TICK,
            tickets: parts.keys.tickets,
            ends: None,
        })
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let mut woken = Woken::Ready;
        loop {
            self.turn(woken);
            let over = |ends| self.endpoint.is_empty() || clock::now() >= ends;
            if self.ends.is_some_and(over) {
                return Ok(());
            }
            // Others on this thread have their turn, and the reactor looks at every socket.
            tokio::task::yield_now().await;
            woken = self.wait().await?;
        }
    }

    /// Waits until there is something to do. A turn then looks at every source, so that none
    /// starves another.
    async fn wait(&mut self) -> io::Result<Woken> {
        let deadlines = [self.endpoint.timeout(), self.streams.ctx.next_deadline()];
        let deadlines = deadlines.into_iter().flatten().chain(self.ends);
        let due = deadlines.fold(self.next_tick, Instant::min);
        let Self { endpoint, rings, streams, mailbox, what, hungry, .. } = self;
        let tun = async {
            match &streams.ctx.tun {
                Some(tun) => tun.readable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(message) = mailbox.recv() => Ok(Woken::Message(message)),
            Some((key, told)) = what.recv() => Ok(Woken::Told(key, told)),
            Some(key) = hungry.recv() => Ok(Woken::Hungry(key)),
            ready = endpoint.readable() => ready.map(|()| Woken::Ready),
            ready = rings.readable() => ready.map(|()| Woken::Ready),
            ready = tun => ready.map(|()| Woken::Ready),
            () = endpoint.writable() => Ok(Woken::Ready),
            () = tokio::time::sleep_until(due.into()) => Ok(Woken::Ready),
        }
    }

    /// One turn of the loop: everything that is ready, a bounded piece of each, then one flush.
    fn turn(&mut self, woken: Woken) {
        let now = self.refresh();
        match woken {
            Woken::Ready => {}
            Woken::Message(message) => self.handle(message),
            Woken::Told(key, what) => self.with(key, |s, conn| s.told(conn, key.1, what)),
            Woken::Hungry(key) => self.with(key, |s, conn| s.pull(conn, key.1)),
        }
        for _ in 0..TOLD {
            let Ok(message) = self.mailbox.try_recv() else { break };
            self.handle(message);
        }
        self.endpoint.handle_source(&mut self.rings, &mut self.streams);
        self.endpoint.handle_readable(now, &mut self.streams);
        let now = self.refresh();
        for foreign in self.endpoint.take_foreign() {
            self.streams.ctx.counters.foreign.add(1);
            self.streams.ctx.send(foreign.worker, Message::Foreign(foreign));
        }
        // Packets first: what QUIC has to send beside them, acknowledgements, can wait for them.
        self.streams.ctx.flush_tun();
        self.read_tun(now);
        self.hear();
        if self.endpoint.timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now, &mut self.streams);
        }
        while let Some(key) = self.streams.ctx.take_due() {
            self.with(key, |streams, conn| streams.due(conn, key.1));
        }
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.rings.count(&self.streams.ctx.counters);
            self.streams.ctx.counters.at_the_door(self.endpoint.door_stats());
            self.streams.ctx.policy = self.streams.ctx.shared.dialer.policy();
            for key in self.streams.ended(now) {
                self.with(key, |streams, conn| streams.withdraw(conn, key.1));
            }
            for key in self.streams.unchecked() {
                if let Some(conn) = self.endpoint.get(key.0)
                    && self.streams.check_path(conn, key.1)
                {
                    self.endpoint.touch(key.0);
                }
            }
        }
        self.streams.ctx.up.send(&self.streams.ctx.counters);
        for key in self.streams.ctx.up.take_broken() {
            self.with(key, |streams, conn| streams.withdraw(conn, key.1));
        }
        let now = self.refresh();
        self.streams.pump(&mut self.endpoint);
        self.endpoint.flush(now, &mut self.streams);
        if !self.streams.ctx.bonds.dirty.is_empty() {
            self.streams.pump(&mut self.endpoint);
            self.endpoint.flush(now, &mut self.streams);
        }
        self.streams.ctx.flush_tun();
    }

    /// Reads the clock: packets are stamped with the moment they leave, not with the turn's begin.
    fn refresh(&mut self) -> Instant {
        self.streams.ctx.now = clock::now();
        self.streams.ctx.now
    }

    /// What the tasks beside the worker have to say.
    fn hear(&mut self) {
        for _ in 0..TOLD {
            let Ok((key, what)) = self.what.try_recv() else { break };
            self.with(key, |streams, conn| streams.told(conn, key.1, what));
        }
        for _ in 0..TOLD {
            let Ok(key) = self.hungry.try_recv() else { break };
            self.with(key, |streams, conn| streams.pull(conn, key.1));
        }
    }

    /// Does something to a stream whose connection still exists.
    fn with(&mut self, key: Key, act: impl FnOnce(&mut Streams, &mut dyn Carrier)) {
        if is_road(key.0) {
            if let Some(road) = self.roads.get_mut(&key.0) {
                act(&mut self.streams, road);
            }
        } else if let Some(conn) = self.endpoint.get(key.0) {
            act(&mut self.streams, conn);
            self.endpoint.touch(key.0);
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Foreign(foreign) => {
                self.endpoint.handle_foreign(foreign, &mut self.streams);
            }
            Message::Packets(packets) => self.take_over(packets),
            Message::Road(id, Carried(up)) => self.road(id, up),
            Message::Retire(holder) => self.streams.retire((holder.conn, holder.stream)),
            Message::Certificate(certificate) => {
                let config = &self.streams.ctx.shared.config;
                match ctx::quic_configs(&certificate, &self.tickets, config) {
                    Ok((quic, tunnels)) => self.endpoint.set_server_config(quic, tunnels),
                    Err(error) => {
                        tracing::error!(%error, "the new certificate is of no use to QUIC");
                    }
                }
            }
            Message::Site(site) => self.streams.ctx.site = site,
            Message::Sessions(to) => {
                let _ = to.try_send(self.streams.sessions());
            }
            Message::Stop => self.stop(),
        }
    }

    fn stop(&mut self) {
        self.ends = Some(self.streams.ctx.now + FAREWELL);
        self.streams.close_all();
        let ids: Vec<_> = self.endpoint.ids().collect();
        for id in ids {
            if let Some(conn) = self.endpoint.get(id) {
                conn.goaway();
            }
        }
        self.endpoint.close_all(bauta_masque::datagram::H3_NO_ERROR, b"");
    }
}
