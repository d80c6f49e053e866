//! Thousands of CONNECT-IP sessions in one process, each on a QUIC connection of its own, all on one socket.
//!
//! What the gateway sees is what real clients do: the full handshake, path MTU discovery, the request with its credential, capsules for
//! addresses and routes, keep-alives. No TUN is behind them: packets are made here, and what comes back is counted.

mod packet;
mod sessions;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bauta::config::Settings;
use bauta::quic;
use bauta_masque::datagram::{CONTEXT_ID_ZERO, H3_NO_ERROR};
use bauta_masque_io::{ConnId, Endpoint, EndpointConfig, QuicConfig, clock};

pub use packet::udp_packet;
use sessions::Sessions;

/// Handshakes under way at once.
const CONCURRENCY: usize = 64;
/// Each connection says something this often: well within the 30 s after which it would be given up.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long to wait for something to happen when nothing is due.
const IDLE: Duration = Duration::from_millis(50);
/// How long one tunnel may take to come up when all do.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long packets under way have to come back.
const LINGER: Duration = Duration::from_millis(500);

/// A load of packets over all tunnels in turn.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many packets in all.
    pub packets: u64,
    /// How many a second.
    pub rate: u64,
    /// How many one tunnel sends before the next has its turn.
    pub train: u64,
    /// UDP payload of each, bytes.
    pub size: usize,
    /// Where they go: a `bauta-packets serve`, which sends them back.
    pub target: SocketAddrV4,
}

/// All of them.
pub struct Fleet {
    endpoint: Endpoint,
    quic: QuicConfig,
    sessions: Sessions,
    name: String,
    peer: SocketAddr,
    /// Connections in the order in which they are to be heard of, oldest first.
    keepalive: VecDeque<(Instant, ConnId)>,
}

impl Fleet {
    /// Prepares; no connection is made yet.
    ///
    /// # Errors
    /// Settings without an address of the gateway, or what the system says.
    pub fn new(settings: Settings) -> Result<Self> {
        let ip = settings.addr.first().context("the link needs `addr=`: the gateway's address")?;
        let failed = |failure: bauta::stage::Failure| anyhow::anyhow!("{}", failure.what);
        let socket = quic::socket(&settings).map_err(failed)?;
        Ok(Self {
            endpoint: Endpoint::client(socket, EndpointConfig::default())?,
            quic: quic::config(&settings).map_err(failed)?,
            name: settings.sni.clone(),
            peer: SocketAddr::new(*ip, settings.server.port),
            sessions: Sessions::new(settings),
            keepalive: VecDeque::new(),
        })
    }

    /// Waits for something to happen, at most until `deadline`, and handles it. May be dropped while it waits.
    ///
    /// # Errors
    /// When sessions were lost.
    pub async fn step(&mut self, deadline: Instant) -> Result<()> {
        let due = self.endpoint.timeout().map_or(deadline, |at| at.min(deadline));
        tokio::select! {
            biased;
            ready = self.endpoint.readable() => {
                ready.context("the socket")?;
                self.endpoint.handle_readable(clock::now(), &mut self.sessions);
            }
            () = self.endpoint.writable() => {}
            () = tokio::time::sleep_until(due.into()) => {
                self.endpoint.handle_timeout(clock::now(), &mut self.sessions);
            }
        }
        self.turn(clock::now());
        match self.sessions.take_failure() {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }

    fn turn(&mut self, now: Instant) {
        self.endpoint.flush(now, &mut self.sessions);
        self.sessions.ask(now, &mut self.endpoint);
        self.endpoint.flush(now, &mut self.sessions);
    }

    /// Lets connections say something that have been silent for long.
    pub fn keep_alive(&mut self) {
        let now = clock::now();
        while let Some(&(at, id)) = self.keepalive.front()
            && at <= now
        {
            self.keepalive.pop_front();
            if let Some(conn) = self.endpoint.get(id) {
                conn.ping();
                self.endpoint.touch(id);
                self.keepalive.push_back((now + KEEPALIVE, id));
            }
        }
    }

    /// How long [`Fleet::step`] may wait when nobody asks for anything.
    pub fn idle_until() -> Instant {
        clock::now() + IDLE
    }

    /// Brings tunnels up until there are `wanted`, and returns the seconds that took.
    ///
    /// # Errors
    /// When one fails, or they take too long.
    pub async fn open(&mut self, wanted: usize) -> Result<f64> {
        let start = clock::now();
        let mut progress = (start, 0);
        while self.sessions.ready() < wanted {
            let now = clock::now();
            while self.sessions.rising() < CONCURRENCY
                && self.sessions.ready() + self.sessions.rising() < wanted
            {
                let id = self.endpoint.connect(self.peer, &self.name, &mut self.quic)?;
                self.sessions.begin(id, now);
                self.keepalive.push_back((now + KEEPALIVE, id));
            }
            self.keep_alive();
            self.turn(now);
            self.step(now + IDLE).await?;
            if self.sessions.ready() > progress.1 {
                progress = (now, self.sessions.ready());
            } else if now > progress.0 + PATIENCE {
                bail!("{} of {wanted} tunnels are up, and no more come", progress.1);
            }
        }
        Ok((clock::now() - start).as_secs_f64())
    }

    /// Brings `count` tunnels up and closes each as soon as it could be used. Returns the seconds.
    ///
    /// # Errors
    /// When one fails, or they take too long.
    pub async fn churn(&mut self, count: usize) -> Result<f64> {
        let start = clock::now();
        let mut done = 0;
        while done < count {
            let wanted = CONCURRENCY.min(count - done);
            self.open(wanted).await?;
            done += self.sessions.ready();
            self.close_all();
        }
        let seconds = (clock::now() - start).as_secs_f64();
        self.drain().await?;
        Ok(seconds)
    }

    /// Closes every tunnel and waits until the gateway knows.
    ///
    /// # Errors
    /// What [`Fleet::step`] says.
    pub async fn close(&mut self) -> Result<()> {
        self.close_all();
        self.drain().await
    }

    fn close_all(&mut self) {
        self.sessions.forget_all();
        self.keepalive.clear();
        self.endpoint.close_all(H3_NO_ERROR, b"");
        self.turn(clock::now());
    }

    async fn drain(&mut self) -> Result<()> {
        let end = clock::now() + LINGER;
        while !self.endpoint.is_empty() && clock::now() < end {
            self.step(end).await?;
        }
        Ok(())
    }

    /// Sends a load and returns (packets sent, packets that came back, seconds).
    ///
    /// # Errors
    /// What [`Fleet::step`] says.
    pub async fn send(&mut self, load: Load) -> Result<(u64, u64, f64)> {
        let ids = self.sessions.ready_ids();
        anyhow::ensure!(!ids.is_empty(), "no tunnel is open");
        self.sessions.echoes = 0;
        let start = clock::now();
        let (mut sent, mut given) = (0, 0);
        let mut turns = ids.iter().cycle();
        while given < load.packets {
            let now = clock::now();
            let due = ((now - start).as_secs_f64() * load.rate as f64) as u64;
            while given < due.min(load.packets) {
                if let Some(&id) = turns.next() {
                    sent += self.send_train(id, load);
                }
                given += load.train.max(1);
            }
            self.turn(now);
            self.step(now + Duration::from_millis(1)).await?;
        }
        let seconds = (clock::now() - start).as_secs_f64();
        let end = clock::now() + LINGER;
        while clock::now() < end && self.sessions.echoes < sent {
            self.step(end).await?;
        }
        Ok((sent, self.sessions.echoes, seconds))
    }

    fn send_train(&mut self, id: ConnId, load: Load) -> u64 {
        let Some((stream, IpAddr::V4(source))) = self.sessions.way(id) else { return 0 };
        let Some(conn) = self.endpoint.get(id) else { return 0 };
        let packet = udp_packet(source, load.target, load.size);
        let taken = (0..load.train.max(1))
            .filter(|_| conn.send_datagram(stream, &CONTEXT_ID_ZERO, &packet).is_ok())
            .count();
        self.endpoint.touch(id);
        taken as u64
    }

    /// How many tunnels are up.
    pub fn len(&self) -> usize {
        self.sessions.ready()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
