//! All QUIC connections of one UDP socket, server or client, on one thread.
//!
//! The endpoint has no task of its own. Its owner waits for [`Endpoint::readable`],
//! [`Endpoint::writable`] and [`Endpoint::timeout`], calls the `handle_*` that is due, and ends each
//! turn of its loop with [`Endpoint::flush`]:
//!
//! 1. `handle_readable` takes batches from the socket, finds each datagram's connection by its
//!    connection id (`receive`) and lets quiche decrypt it;
//! 2. every connection touched that way tells the [`App`] what happened;
//! 3. `flush` packs what the connections have to say into GSO trains (`transmit`), and arms timers.

mod door;
mod entry;
mod gate;
mod poll;
mod receive;
mod source;
mod transmit;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use bauta_masque::shape::{FULL, Shape};
use foldhash::fast::RandomState;
use tracing::{debug, trace};

use crate::buffers::DatagramBuf;
use crate::cid::{self, Cid, LOCAL_CID_LEN};
use crate::connection::{Connection, Event, Quic};
use crate::steer;
use crate::tls::{TlsError, browser};
use crate::udp::{RecvBatch, UdpSocket};
use door::Door;
pub(crate) use door::Subnet;
pub use door::{DoorLimits, DoorStats};
use gate::Gate;
pub use source::Source;
use transmit::Train;

/// A connection's number within its endpoint; never used again.
pub type ConnId = u64;

/// Connection ids offered to the peer beside the first, so that it can move to other paths.
const SPARE_CIDS: usize = 3;

/// What an endpoint is told at its start.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// This endpoint's place among the siblings that share its port, from 0.
    pub worker: usize,
    /// How many siblings there are.
    pub workers: usize,
    /// Connections are accepted wherever their first packet arrives, because later ones arrive
    /// there as well; else by the sibling that the client's first connection id names.
    pub accepts_anywhere: bool,
    /// Connections held at once; further Initials are dropped. An idle one costs about 30 KB.
    pub max_connections: usize,
    /// Packets that one key may protect before the connection is closed: 2^23 for AES-GCM
    /// (RFC 9001 section 6.6).
    pub packet_limit: u64,
    /// Where each connection leaves a qlog file; nowhere by default.
    pub qlog_dir: Option<PathBuf>,
    /// The number of the first connection, so that those of several endpoints are told apart.
    pub first_id: ConnId,
    /// Key of the stateless-reset tokens (RFC 9000 section 10.3). Kept across restarts it lets
    /// peers notice at once that their connection is gone.
    pub reset_key: Option<[u8; 32]>,
    /// Which of a client's packets are as large as a browser's.
    pub shape: Shape,
    /// What those may ask for who have no connection yet.
    pub door: DoorLimits,
}

/// The AES-GCM confidentiality limit (RFC 9001 section 6.6), in packets.
pub const AEAD_PACKET_LIMIT: u64 = 1 << 23;

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            worker: 0,
            workers: 1,
            accepts_anywhere: false,
            max_connections: 100_000,
            packet_limit: AEAD_PACKET_LIMIT,
            qlog_dir: None,
            first_id: 0,
            reset_key: None,
            shape: Shape::None,
            door: DoorLimits::default(),
        }
    }
}

/// Why a connection could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// quiche refused its arguments.
    #[error("QUIC refuses to begin a connection: {0}")]
    Quic(#[from] quiche::Error),
    /// BoringSSL refused a setting.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The largest UDP payload worth probing for: what an Ethernet frame carries to this peer, bytes.
/// Probing for more costs round trips until discovery has come down to it.
pub(crate) fn largest_payload(peer: SocketAddr) -> usize {
    const ETHERNET: usize = 1500;
    const UDP: usize = 8;
    ETHERNET - UDP - if peer.ip().to_canonical().is_ipv4() { 20 } else { 40 }
}

/// Whoever uses the connections. Callbacks come in batches and must not block.
pub trait App {
    /// An HTTP Datagram of a request stream; `payload` begins with the context id.
    fn datagram(&mut self, conn: &mut Connection, stream: u64, payload: DatagramBuf);
    /// Anything else.
    fn event(&mut self, conn: &mut Connection, event: Event);
    /// What follows had arrived by `now`, and not before the last such call. Delays are measured by
    /// this: by a moment before a packet was received, it would seem faster than it was.
    fn received(&mut self, now: Instant) {
        let _ = now;
    }
}

/// How connections that are to carry tunnels are told and accepted.
struct Tunnels {
    quic: quiche::Config,
    is_tunnel: IsTunnel,
}

/// Whether a client's first destination connection id is a tunnel's.
type IsTunnel = Box<dyn FnMut(&[u8]) -> bool>;

/// A datagram that reached this socket and belongs to a sibling's connection.
#[derive(Debug)]
pub struct Foreign {
    /// Which sibling.
    pub worker: usize,
    /// Where it came from.
    pub from: SocketAddr,
    /// Which of our addresses it was sent to.
    pub to: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// All QUIC connections of one UDP socket.
pub struct Endpoint {
    socket: UdpSocket,
    local: SocketAddr,
    config: EndpointConfig,
    server: Option<quiche::Config>,
    tunnels: Option<Tunnels>,
    h3: quiche::h3::Config,
    /// Boxed: a connection is some 9 KB, and a table moves what it holds when it grows.
    conns: HashMap<ConnId, Box<Connection>, RandomState>,
    cids: HashMap<Cid, ConnId, RandomState>,
    timers: BTreeSet<(Instant, ConnId)>,
    /// Connections to be settled by the next flush.
    touched: Vec<ConnId>,
    /// Connections that received and were not driven yet.
    heard: Vec<ConnId>,
    turn: Vec<ConnId>,
    foreign: Vec<Foreign>,
    /// Stateless resets that siblings' datagrams may still be answered with in this turn.
    foreign_resets: usize,
    batch: Option<Box<RecvBatch>>,
    train: Train,
    next_id: ConnId,
    door: Door,
    gate: Gate,
    /// [`UdpSocket::drops`] as last read while the gate is narrow.
    drops: u32,
}

impl Endpoint {
    /// An endpoint that accepts connections.
    pub fn server(
        socket: UdpSocket,
        quic: quiche::Config,
        config: EndpointConfig,
    ) -> Result<Self, EndpointError> {
        Self::new(socket, Some(quic), config)
    }

    /// An endpoint that makes connections.
    pub fn client(socket: UdpSocket, config: EndpointConfig) -> Result<Self, EndpointError> {
        Self::new(socket, None, config)
    }

    fn new(
        socket: UdpSocket,
        server: Option<quiche::Config>,
        config: EndpointConfig,
    ) -> Result<Self, EndpointError> {
        let mut h3 = quiche::h3::Config::new().map_err(|_| quiche::Error::InvalidState)?;
        h3.set_max_field_section_size(crate::MAX_FIELD_SECTION);
        h3.set_qpack_max_table_capacity(0);
        h3.set_qpack_blocked_streams(0);
        h3.enable_extended_connect(server.is_some());
        let now = crate::clock::now();
        let gate = Gate::seeded(&config.door, now);
        Ok(Self {
            local: socket.local_addr(),
            train: Train::new(socket.max_segments()),
            next_id: config.first_id,
            socket,
            door: Door::new(config.door.clone(), now),
            gate,
            drops: 0,
            config,
            server,
            tunnels: None,
            h3,
            conns: HashMap::default(),
            cids: HashMap::default(),
            timers: BTreeSet::new(),
            touched: Vec::new(),
            heard: Vec::new(),
            turn: Vec::new(),
            foreign: Vec::new(),
            foreign_resets: receive::RESETS_A_TURN,
            batch: Some(Box::new(RecvBatch::new())),
        })
    }

    /// Replaces what new connections are accepted with: a renewed certificate, for instance.
    /// `tunnels` replaces what [`Endpoint::set_tunnel_config`] was given.
    pub fn set_server_config(&mut self, quic: quiche::Config, tunnels: Option<quiche::Config>) {
        self.server = Some(quic);
        if let (Some(told), Some(quic)) = (&mut self.tunnels, tunnels) {
            told.quic = quic;
        }
    }

    /// Accepts connections whose first destination connection id `is_tunnel` with `quic` instead: a
    /// configuration without a congestion window of quiche's ([`crate::tls::TransportConfig::tunnel`]).
    pub fn set_tunnel_config(
        &mut self,
        quic: quiche::Config,
        is_tunnel: impl FnMut(&[u8]) -> bool + 'static,
    ) {
        self.tunnels = Some(Tunnels { quic, is_tunnel: Box::new(is_tunnel) });
    }

    /// The socket's own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Begins a connection; [`Event::Established`] or [`Event::Closed`] follows.
    pub fn connect(
        &mut self,
        peer: SocketAddr,
        server_name: &str,
        quic: &mut quiche::Config,
    ) -> Result<ConnId, EndpointError> {
        self.connect_marked(peer, server_name, quic, None)
    }

    /// The same with a destination connection id to begin with, at least 8 bytes: a
    /// [mark](crate::mark), with which `quic` is to be a configuration for tunnels.
    pub fn connect_marked(
        &mut self,
        peer: SocketAddr,
        server_name: &str,
        quic: &mut quiche::Config,
        dcid: Option<&[u8]>,
    ) -> Result<ConnId, EndpointError> {
        let scid = self.draw_cid();
        let largest = match self.config.shape {
            Shape::Web => FULL,
            Shape::Start | Shape::None => usize::MAX,
        };
        quic.set_max_send_udp_payload_size(largest_payload(peer).min(largest));
        let scid_quic = scid.to_quic();
        let mut conn = match dcid {
            None => quiche::connect_with_buffer_factory(
                Some(server_name),
                &scid_quic,
                self.local,
                peer,
                quic,
            ),
            Some(dcid) => quiche::connect_with_dcid_and_buffer_factory(
                Some(server_name),
                &scid_quic,
                &quiche::ConnectionId::from_ref(dcid),
                self.local,
                peer,
                quic,
            ),
        }?;
        browser::disguise(conn.as_mut(), scid.as_slice())?;
        let id = self.insert(conn, &[scid]);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.shape(self.config.shape);
            if dcid.is_some() {
                conn.without_window();
                conn.trust();
            }
        }
        Ok(id)
    }

    fn draw_cid(&self) -> Cid {
        let mut random = |out: &mut [u8]| cid::random(out);
        loop {
            let drawn = steer::pick_cid(self.config.worker, self.config.workers, &mut random);
            match Cid::new(&drawn[..LOCAL_CID_LEN]) {
                Some(cid) if !self.cids.contains_key(&cid) => return cid,
                _ => {}
            }
        }
    }

    fn insert(&mut self, mut quic: Quic, cids: &[Cid]) -> ConnId {
        let id = self.next_id;
        self.next_id += 1;
        self.start_qlog(&mut quic, id);
        let mut conn = Box::new(Connection::new(id, quic, self.server.is_some()));
        for cid in cids {
            self.cids.insert(*cid, id);
            conn.cids.push(*cid);
        }
        self.conns.insert(id, conn);
        self.touched.push(id);
        id
    }

    fn start_qlog(&self, quic: &mut Quic, id: ConnId) {
        let Some(dir) = &self.config.qlog_dir else { return };
        let role = if self.server.is_some() { "server" } else { "client" };
        let path = dir.join(format!("{role}-{}-{}.sqlog", self.config.worker, quic.trace_id()));
        match std::fs::File::create(&path) {
            Ok(file) => quic.set_qlog(
                Box::new(io::BufWriter::new(file)),
                format!("bauta {role} {id}"),
                String::new(),
            ),
            Err(error) => debug!(path = %path.display(), %error, "no qlog"),
        }
    }

    /// Waits until the socket has something to read.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until the socket takes again what it refused; forever where it refused nothing.
    pub async fn writable(&self) {
        if !self.train.is_blocked() || self.socket.writable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// When [`Endpoint::handle_timeout`] is due.
    pub fn timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.door.timeout()).chain(self.gate.timeout()).min()
    }

    /// Fires the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, app: &mut impl App) {
        self.drop_overdue(now, app);
        self.mind_gate(now);
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.armed = None;
            if conn.quic.timeout_instant().is_none_or(|due| due > now) {
                // It was put off meanwhile.
                self.arm(id, now);
                continue;
            }
            conn.quic.on_timeout();
            conn.timer_fired();
            conn.drive(&self.h3, app);
            self.touched.push(id);
        }
    }

    /// A connection by its number. After a change from outside a callback, [`Endpoint::touch`] it.
    pub fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.conns.get_mut(&id).map(Box::as_mut)
    }

    /// Marks a connection to be settled by the next [`Endpoint::flush`].
    pub fn touch(&mut self, id: ConnId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }

    /// The connections in being.
    pub fn ids(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.keys().copied()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Datagrams that belong to siblings.
    pub fn take_foreign(&mut self) -> Vec<Foreign> {
        std::mem::take(&mut self.foreign)
    }

    /// Goes on over another socket: each connection migrates to it (RFC 9000 section 9), under
    /// another connection id.
    pub fn rebind(&mut self, socket: UdpSocket) {
        self.local = socket.local_addr();
        self.socket = socket;
        for (id, conn) in &mut self.conns {
            if let Err(error) = conn.migrate(self.local) {
                debug!(conn = id, %error, "the connection cannot migrate");
            }
            self.touched.push(*id);
        }
    }

    /// Closes every connection with an HTTP/3 code; the next flush tells the peers.
    pub fn close_all(&mut self, code: u64, reason: &[u8]) {
        for (id, conn) in &mut self.conns {
            conn.close(code, reason);
            self.touched.push(*id);
        }
    }

    /// Settles every connection touched in this turn: tells `app` what is left to tell, sends, arms
    /// timers, and lets closed ones go.
    pub fn flush(&mut self, now: Instant, app: &mut impl App) {
        if self.train.is_blocked() && !self.train.resume(&self.socket) {
            return;
        }
        let mut turn = std::mem::take(&mut self.turn);
        turn.append(&mut self.touched);
        turn.sort_unstable();
        turn.dedup();
        let mut blocked = false;
        for &id in &turn {
            if blocked {
                self.touched.push(id);
                continue;
            }
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.drive(&self.h3, app);
            if conn.shaking && conn.is_established() {
                conn.shaking = false;
                self.door.settled();
            }
            conn.enforce_packet_limit(self.config.packet_limit);
            if self.server.is_none() && !conn.quic.is_established() {
                // quiche writes its own anew after a Retry.
                let scid = conn.quic.source_id().into_owned();
                if let Err(error) = browser::set_parameters(conn.quic.as_mut(), &scid) {
                    debug!(conn = id, %error, "transport parameters");
                }
            }
            conn.shape_packets();
            blocked = !self.train.send_all(conn, &self.socket, self.server.is_some());
            if blocked {
                self.touched.push(id);
            }
            if conn.quic.is_closed() {
                self.remove(id, app);
            } else {
                self.offer_cids(id);
                self.arm(id, now);
            }
        }
        turn.clear();
        self.turn = turn;
    }

    /// Sees to it that the connection's timer fires. One that is put off, as by every packet, stays
    /// where it is until it is due, and is looked at again then.
    fn arm(&mut self, id: ConnId, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(due) = conn.quic.timeout_instant().map(|at| at.max(now)) else { return };
        if conn.armed.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(old) = conn.armed.replace(due) {
            self.timers.remove(&(old, id));
        }
        self.timers.insert((due, id));
    }

    /// Keeps the peer supplied with spare connection ids, and forgets those it has retired.
    fn offer_cids(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        while let Some(retired) = conn.quic.retired_scid_next() {
            if let Some(cid) = Cid::new(&retired) {
                self.cids.remove(&cid);
                conn.cids.retain(|c| *c != cid);
            }
        }
        if !conn.is_established() || conn.is_reserved() {
            return;
        }
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            if conn.quic.scids_left() == 0 || conn.quic.active_scids() > SPARE_CIDS {
                return;
            }
            let cid = self.draw_cid();
            let Some(token) = self.reset_token(&cid) else { return };
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if let Err(error) = conn.quic.new_scid(&cid.to_quic(), token, false) {
                trace!(conn = id, %error, "no spare connection id");
                return;
            }
            conn.cids.push(cid);
            self.cids.insert(cid, id);
        }
    }

    fn reset_token(&self, cid: &Cid) -> Option<u128> {
        match &self.config.reset_key {
            Some(key) => cid::reset_token(key, cid.as_slice()),
            None => {
                let mut token = [0; 16];
                cid::random(&mut token);
                Some(u128::from_be_bytes(token))
            }
        }
    }

    fn remove(&mut self, id: ConnId, app: &mut impl App) {
        let Some(mut conn) = self.conns.remove(&id) else { return };
        self.unlist(&conn);
        let closed = conn.closed();
        app.event(&mut conn, Event::Closed(closed));
    }
}
