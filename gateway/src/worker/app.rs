//! The streams of a worker's connections, and what happens on them.

mod bonds;
mod tunnels;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bauta_masque::bond::field::{self, Offer};
use bauta_masque::datagram::{H3_DATAGRAM_ERROR, H3_EXCESSIVE_LOAD, H3_MESSAGE_ERROR, H3_NO_ERROR};
use bauta_masque::proxy_status::ProxyError;
use bauta_masque::request::{Ask, Carriage, Head};
use bauta_masque::shape::PADDING;
use bauta_masque_io::{App, Carrier, Connection, DatagramBuf, Event, Header, NameValue, clock};
use bytes::Bytes;
use foldhash::fast::RandomState;

use super::ctx::Ctx;
use super::pipe::Pipe;
use super::{Key, What, site};
use crate::accounts::Grant;
use crate::dial::Refusal;
use crate::metrics::{Dropped, Kind};
use crate::router::{Credentials, Examined, Route, route};
use crate::tunnel::ip::bond::Bonds;
use crate::tunnel::ip::{IpFlow, NO_POOL};
use crate::tunnel::udp::UdpFlow;
use crate::tunnel::{End, Opening, Owner, Ready, Wishes, accepted, at_once, refused, tcp};
use bonds::Joined;

/// Requests a client may reset within [`RESET_WINDOW`] before its connection is closed.
const MAX_RESETS: u32 = 500;
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// What a request stream is. Boxed throughout: each connection has a table with room for several.
pub(super) enum Flow {
    Site(Box<Pipe>),
    Opening(Box<Opening>),
    Udp(Box<UdpFlow>),
    Tcp(Box<Owner>, Box<Pipe>),
    Ip(Box<IpFlow>),
    Joined(Box<Joined>),
}

impl Flow {
    fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Site(_) => None,
            Self::Opening(opening) => Some(&opening.owner),
            Self::Udp(flow) => Some(&flow.owner),
            Self::Tcp(owner, _) => Some(owner),
            Self::Ip(flow) => Some(&flow.owner),
            Self::Joined(joined) => Some(&joined.owner),
        }
    }

    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Site(_) | Self::Opening(_) | Self::Joined(_) => None,
            Self::Udp(_) => Some(Kind::Udp),
            Self::Tcp(..) => Some(Kind::Tcp),
            Self::Ip(_) => Some(Kind::Ip),
        }
    }
}

/// One client connection.
#[derive(Default)]
struct Peer {
    streams: HashMap<u64, Flow, RandomState>,
    resets: u32,
    resets_since: Option<Instant>,
}

/// All streams of a worker.
pub(super) struct Streams {
    pub(super) ctx: Ctx,
    peers: HashMap<u64, Peer, RandomState>,
}

impl App for Streams {
    fn received(&mut self, now: Instant) {
        self.ctx.now = now;
    }

    fn datagram(&mut self, conn: &mut Connection, stream: u64, payload: DatagramBuf) {
        self.arrived(conn, stream, payload);
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Established => {
                self.ctx.counters.connections.add(1);
                self.ctx.counters.connections_total.add(1);
                tracing::debug!(conn = conn.id(), peer = ?conn.peer(), "a QUIC connection");
            }
            Event::Headers { stream, headers, fin } => self.request(conn, stream, &headers, fin),
            Event::Data { stream } => self.pull(conn, stream),
            Event::Finished { stream } => self.finished(conn, stream),
            Event::Reset { stream, code } | Event::Stopped { stream, code } => {
                self.cancelled(conn, stream, code);
            }
            Event::Writable { stream } => {
                if let Some(Flow::Site(pipe) | Flow::Tcp(_, pipe)) = self.flow(conn, stream) {
                    pipe.writable();
                }
            }
            Event::PathMtu { .. } | Event::Migrated => self.check_paths_of(conn),
            Event::Closed(closed) => {
                if closed.established {
                    self.ctx.counters.connections.sub(1);
                }
                self.gone(conn.id());
            }
            Event::Settings | Event::GoAway => {}
        }
    }
}

/// The last thing done for a stream.
fn close(flow: Flow, ctx: &mut Ctx) {
    if let Some(kind) = flow.kind() {
        ctx.counters.tunnels[kind as usize].sub(1);
    }
    if let Flow::Ip(mut flow) = flow {
        flow.close(ctx);
    }
}

impl Streams {
    pub(super) fn new(ctx: Ctx) -> Self {
        Self { ctx, peers: HashMap::default() }
    }

    /// A datagram of a tunnel's.
    #[inline]
    fn arrived(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64, payload: DatagramBuf) {
        let ctx = &mut self.ctx;
        let peer = self.peers.get_mut(&conn.id());
        let done = match peer.and_then(|peer| peer.streams.get_mut(&stream)) {
            Some(Flow::Ip(flow)) => {
                flow.datagram(conn, payload, ctx);
                Ok(())
            }
            Some(Flow::Udp(flow)) => flow.datagram(payload.as_ref(), ctx),
            Some(Flow::Opening(opening)) => {
                if !opening.hold(payload.as_ref()) {
                    ctx.counters.dropped(Dropped::NoStream);
                }
                Ok(())
            }
            Some(Flow::Joined(_)) => {
                let mut payload = payload;
                self.joined_datagram(conn.id(), stream, payload.bytes_mut());
                Ok(())
            }
            // RFC 9297 §2: a request without datagrams does not take any.
            Some(Flow::Site(_) | Flow::Tcp(..)) => Err(End::Abort(H3_DATAGRAM_ERROR)),
            // Answered, but the answer has not all left yet.
            None if conn.queued(stream) > 0 => Err(End::Abort(H3_DATAGRAM_ERROR)),
            None => {
                ctx.counters.dropped(Dropped::NoStream);
                Ok(())
            }
        };
        if let Err(end) = done {
            self.end(conn, stream, end);
        }
    }

    fn flow(&mut self, conn: &(impl Carrier + ?Sized), stream: u64) -> Option<&mut Flow> {
        self.peers.get_mut(&conn.id())?.streams.get_mut(&stream)
    }

    /// Ends a stream from our side.
    pub(super) fn end(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64, end: End) {
        end.apply(conn, stream);
        self.remove(conn, stream);
    }

    fn remove(&mut self, conn: &(impl Carrier + ?Sized), stream: u64) {
        let peer = self.peers.get_mut(&conn.id());
        if let Some(flow) = peer.and_then(|peer| peer.streams.remove(&stream)) {
            self.let_go(conn.id(), stream, flow);
        }
    }

    /// A stream that is gone already takes what is on it along, unless a bond goes on without it.
    fn let_go(&mut self, conn: u64, stream: u64, flow: Flow) {
        if let Flow::Joined(joined) = &flow {
            self.parted(conn, stream, joined);
        }
        if let Some(flow) = self.moved_on(flow) {
            close(flow, &mut self.ctx);
        }
    }

    /// A connection, or what stood for one, is gone with everything on it.
    pub(super) fn gone(&mut self, conn: u64) {
        let streams = self.peers.remove(&conn).map(|peer| peer.streams);
        for (stream, flow) in streams.into_iter().flatten() {
            self.let_go(conn, stream, flow);
        }
    }

    fn insert(&mut self, key: Key, flow: Flow) {
        if let Some(kind) = flow.kind() {
            self.ctx.counters.tunnels[kind as usize].add(1);
        }
        self.peers.entry(key.0).or_default().streams.insert(key.1, flow);
    }

    /// A request, or the trailers of one, which nobody here needs.
    fn request(&mut self, conn: &mut Connection, stream: u64, headers: &[Header], fin: bool) {
        if self.flow(conn, stream).is_some() {
            return;
        }
        let fields = || headers.iter().map(|h| (h.name(), h.value()));
        let head = Head::from_fields(Carriage::H3, fields());
        let shared = &self.ctx.shared;
        // What came together is answered together.
        let (arrived, now) = (self.ctx.now, clock::unix_time());
        let credentials = Credentials::of(fields());
        let resilience = shared.config.tunnel.resilience;
        let offer = fields().find(|(name, _)| resilience && *name == field::NAME.as_bytes());
        let offer = offer.and_then(|(_, value)| Offer::parse(value));
        match route(&head, credentials, &shared.templates, &shared.accounts, conn, now) {
            Route::Site(examined) => self.site(conn, stream, headers, fin, examined, arrived),
            Route::Tunnel(ask, grant) => {
                let padded = fields().any(|(name, _)| name == PADDING.as_bytes());
                self.open(conn, stream, ask, grant, Wishes { offer, padded }, fin);
            }
            Route::Refuse(status, refusal) => self.refuse(conn, stream, status, &refusal),
        }
    }

    fn site(
        &mut self,
        conn: &mut Connection,
        stream: u64,
        headers: &[Header],
        fin: bool,
        examined: Examined,
        arrived: Instant,
    ) {
        let from = conn.peer().map(|peer| peer.ip());
        let Some(request) = site::request(headers, from) else {
            self.pretend(conn, examined);
            return End::Abort(H3_MESSAGE_ERROR).apply(conn, stream);
        };
        self.ctx.counters.requests[2].add(1);
        let key = (conn.id(), stream);
        let site = self.ctx.site.clone();
        let mut pipe = Pipe::start(key, &self.ctx.told, fin, |ends| {
            site::answer(site, request, !fin, arrived, ends)
        });
        pipe.examined = examined;
        self.insert(key, Flow::Site(Box::new(pipe)));
    }

    /// The work of looking at credentials, where it was not done.
    fn pretend(&self, conn: &mut (impl Carrier + ?Sized), examined: Examined) {
        if examined == Examined::No
            && let Some(tls) = conn.exporter()
        {
            self.ctx.shared.accounts.pretend(tls, clock::unix_time());
        }
    }

    pub(super) fn open(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        ask: Ask,
        grant: Grant,
        wishes: Wishes,
        fin: bool,
    ) {
        let key = (conn.id(), stream);
        let limit = self.ctx.shared.config.tunnel.flows;
        if matches!(ask, Ask::ConnectIp { .. }) && self.ctx.shared.pool.is_none() {
            let details = Some("this gateway serves no CONNECT-IP".to_owned());
            let refusal = Refusal { error: ProxyError::HttpRequestDenied, details };
            return self.refuse(conn, stream, 403, &refusal);
        }
        let Some(flow) = grant.account.usage.open_flow(limit) else {
            let refusal = Refusal::from(ProxyError::ConnectionLimitReached);
            return self.refuse(conn, stream, refusal.error.status(), &refusal);
        };
        let owner = Owner { grant, _flow: flow };
        let opening = Opening::new(owner, wishes, fin);
        match at_once(ask) {
            Ok(ready) => self.opened(conn, stream, opening, Ok(ready)),
            Err(ask) => {
                let opening = opening.start(key, ask, self.ctx.shared.clone(), &self.ctx.told);
                self.insert(key, Flow::Opening(Box::new(opening)));
            }
        }
    }

    fn refuse(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        status: u16,
        refusal: &Refusal,
    ) {
        self.ctx.counters.refused.add(1);
        conn.respond(stream, refused(&self.ctx.shared.config.domain, status, refusal), true);
        conn.stop(stream, H3_NO_ERROR);
        self.remove(conn, stream);
    }

    /// Moves bytes of a request stream on.
    pub(super) fn pull(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64) {
        let ctx = &mut self.ctx;
        let peer = self.peers.get_mut(&conn.id());
        let done = match peer.and_then(|peer| peer.streams.get_mut(&stream)) {
            Some(Flow::Site(pipe) | Flow::Tcp(_, pipe)) => {
                pipe.pull(conn, stream, &mut ctx.scratch);
                Ok(())
            }
            Some(Flow::Udp(flow)) => flow.stream(conn, ctx),
            Some(Flow::Ip(flow)) => flow.stream(conn, ctx),
            Some(Flow::Joined(_)) => self.joined_data(conn, stream),
            // Flow control holds it back until the tunnel is open.
            Some(Flow::Opening(_)) => Ok(()),
            None => {
                while conn.recv_body(stream, &mut ctx.scratch) > 0 {}
                Ok(())
            }
        };
        if let Err(end) = done {
            self.end(conn, stream, end);
        }
    }

    /// The peer sent all it had.
    pub(super) fn finished(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64) {
        let end = match self.flow(conn, stream) {
            Some(Flow::Site(pipe) | Flow::Tcp(_, pipe)) => return pipe.finish(),
            Some(Flow::Opening(opening)) => {
                opening.ended = true;
                return;
            }
            Some(Flow::Udp(flow)) => flow.finish(),
            Some(Flow::Ip(flow)) => flow.finish(),
            Some(Flow::Joined(_)) => End::Fin,
            None => return,
        };
        self.end(conn, stream, end);
    }

    /// The peer gave a stream up.
    fn cancelled(&mut self, conn: &mut Connection, stream: u64, code: u64) {
        let now = self.ctx.now;
        let Some(peer) = self.peers.get_mut(&conn.id()) else { return };
        if !peer.streams.contains_key(&stream) {
            return;
        }
        if peer.resets_since.is_none_or(|since| now - since > RESET_WINDOW) {
            (peer.resets, peer.resets_since) = (0, Some(now));
        }
        peer.resets += 1;
        if peer.resets > MAX_RESETS {
            conn.close(H3_EXCESSIVE_LOAD, b"");
        }
        self.end(conn, stream, End::Abort(code));
    }

    /// News from a task.
    pub(super) fn told(&mut self, conn: &mut (impl Carrier + ?Sized), stream: u64, what: What) {
        let receiving = match self.flow(conn, stream) {
            Some(Flow::Site(pipe)) => Some(pipe.is_receiving()),
            Some(_) => None,
            None => return,
        };
        match what {
            What::Failure => {
                if let Some(Flow::Site(pipe)) = self.flow(conn, stream) {
                    let examined = std::mem::replace(&mut pipe.examined, Examined::Yes);
                    self.pretend(conn, examined);
                }
            }
            What::Head(headers, ended) => {
                conn.respond(stream, headers, ended);
                if ended {
                    self.answered(conn, stream, receiving);
                }
            }
            What::Body(piece) => {
                if let Some(Flow::Site(pipe) | Flow::Tcp(_, pipe)) = self.flow(conn, stream) {
                    pipe.send(conn, stream, piece);
                }
            }
            What::Trailers(fields) => {
                conn.trailers(stream, fields);
                self.answered(conn, stream, receiving);
            }
            What::End => {
                conn.send_body(stream, Bytes::new(), true);
                self.answered(conn, stream, receiving);
            }
            What::Abort(code) => self.end(conn, stream, End::Abort(code)),
            What::Done => {
                let flow = self.flow(conn, stream);
                if matches!(flow, Some(Flow::Tcp(_, pipe)) if pipe.is_receiving()) {
                    conn.stop(stream, H3_NO_ERROR);
                }
                self.remove(conn, stream);
            }
            What::Ready(ready) => self.ready(conn, stream, *ready),
            What::Readable => {
                let ctx = &mut self.ctx;
                let peer = self.peers.get_mut(&conn.id());
                let flow = peer.and_then(|peer| peer.streams.get_mut(&stream));
                if let Some(Flow::Udp(flow)) = flow
                    && let Err(end) = flow.readable(conn, ctx)
                {
                    self.end(conn, stream, end);
                }
            }
        }
    }

    /// The site has answered; what it left unread of the request is not wanted any more.
    fn answered(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        receiving: Option<bool>,
    ) {
        let Some(receiving) = receiving else { return };
        if receiving {
            conn.stop(stream, H3_NO_ERROR);
        }
        self.remove(conn, stream);
    }

    /// A tunnel's target is known, or will not be.
    fn ready(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        ready: Result<Ready, Refusal>,
    ) {
        let Some(peer) = self.peers.get_mut(&conn.id()) else { return };
        let Some(Flow::Opening(opening)) = peer.streams.remove(&stream) else { return };
        self.opened(conn, stream, *opening, ready);
    }

    fn opened(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        opening: Opening,
        ready: Result<Ready, Refusal>,
    ) {
        let key = (conn.id(), stream);
        let ended = opening.ended;
        let (owner, Wishes { offer, padded }, early) = opening.finish();
        let domain = &self.ctx.shared.config.domain;
        match ready {
            Err(refusal) => {
                return self.refuse(conn, stream, refusal.error.status(), &refusal);
            }
            Ok(Ready::Udp(socket)) => {
                let hop = socket.peer_addr().map(|target| target.ip().to_string());
                conn.respond(stream, accepted(domain, hop.as_deref(), true, padded), false);
                let flow = UdpFlow::new(key, owner, socket, &self.ctx.told, self.ctx.now);
                self.insert(key, Flow::Udp(Box::new(flow)));
            }
            Ok(Ready::Tcp(target)) => {
                let hop = target.peer_addr().ok().map(|target| target.ip().to_string());
                conn.respond(stream, accepted(domain, hop.as_deref(), false, padded), false);
                let meter = tcp::Meter::new(&owner.grant, self.ctx.counters.clone());
                let pipe =
                    Pipe::start(key, &self.ctx.told, ended, |ends| tcp::copy(target, ends, meter));
                self.insert(key, Flow::Tcp(Box::new(owner), Box::new(pipe)));
            }
            Ok(Ready::Ip(scope)) => {
                let shared = self.ctx.shared.clone();
                let Some(pool) = &shared.pool else { return NO_POOL.apply(conn, stream) };
                let mut head = accepted(domain, None, true, padded);
                let rate = owner.grant.account.usage.rate();
                let answer = offer.map(|offer| Bonds::answer(&offer, shared.workers.len(), rate));
                if let Some(answer) = &answer {
                    head.push(Header::new(field::NAME.as_bytes(), answer.serialize().as_bytes()));
                }
                conn.respond(stream, head, false);
                if answer.is_some_and(|answer| answer.join) {
                    self.insert(key, Flow::Joined(Box::new(Joined::new(owner))));
                    return self.pull(conn, stream);
                }
                let mut flow = IpFlow::new(key, owner, scope, pool, answer.is_some(), &self.ctx);
                if let Some(answer) = answer {
                    self.ctx.bonds.trusted.push(key.0);
                    let max = conn.max_datagram_payload(stream).unwrap_or(0);
                    flow.bond(max, answer.agreed(), &mut self.ctx);
                }
                let _ = flow.settle(conn, &mut self.ctx);
                if let Some(due) = flow.due {
                    self.ctx.call_back(due, key);
                }
                self.insert(key, Flow::Ip(Box::new(flow)));
            }
        }
        for payload in early {
            self.arrived(conn, stream, DatagramBuf::copy_of(&payload));
        }
        self.pull(conn, stream);
        if ended {
            self.finished(conn, stream);
        }
    }
}
