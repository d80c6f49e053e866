//! CONNECT-UDP: datagrams to and from one target (RFC 9298).

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bauta_masque::connect_udp::{ConnectUdp, Event, Role, SessionError, UdpVerdict};
use bauta_masque::datagram::CONTEXT_ID_ZERO;
use bauta_masque::encode_datagram_capsule;
use bauta_masque_io::connection::HIGH_WATER;
use bauta_masque_io::udp::{RecvBatch, UdpSocket, is_too_big, is_unreachable};
use bauta_masque_io::{Carrier, DatagramError};
use tokio::sync::Notify;

use super::{End, Owner};
use crate::metrics::{Dropped, Kind};
use crate::worker::{Ctx, Key, Task, Told, What};

/// Batches taken from one target before others have their turn.
const BATCHES: usize = 4;

/// One flow.
pub(crate) struct UdpFlow {
    pub(crate) owner: Owner,
    key: Key,
    session: ConnectUdp,
    socket: Rc<UdpSocket>,
    resume: Rc<Notify>,
    last: Instant,
    _watch: Task,
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        Self::Abort(error.code())
    }
}

impl UdpFlow {
    /// Starts watching the socket.
    pub(crate) fn new(
        key: Key,
        owner: Owner,
        socket: UdpSocket,
        told: &Told,
        now: Instant,
    ) -> Self {
        let (socket, resume) = (Rc::new(socket), Rc::new(Notify::new()));
        let (watched, go_on, what) = (socket.clone(), resume.clone(), told.what.clone());
        let watch = Task::spawn(async move {
            while watched.readable().await.is_ok() && what.send((key, What::Readable)).is_ok() {
                go_on.notified().await;
            }
        });
        let session = ConnectUdp::new(Role::Proxy);
        Self { owner, key, session, socket, resume, last: now, _watch: watch }
    }

    /// A datagram from the client, or one of its DATAGRAM capsules.
    pub(crate) fn datagram(&mut self, payload: &[u8], ctx: &mut Ctx) -> Result<(), End> {
        let payload = match self.session.handle_datagram(payload)? {
            UdpVerdict::Forward(payload) => payload,
            UdpVerdict::Drop(why) => {
                ctx.counters.udp_drops[why.index()].add(1);
                return Ok(());
            }
        };
        if !self.owner.grant.account.usage.up.admit(ctx.now, payload.len()) {
            ctx.counters.dropped(Dropped::Rate);
            return Ok(());
        }
        self.last = ctx.now;
        ctx.counters.up(Kind::Udp, payload.len());
        ctx.up.push(self.key, &self.socket, payload, &ctx.counters);
        Ok(())
    }

    /// Bytes of the request stream: capsules.
    pub(crate) fn stream(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        loop {
            let n = conn.recv_body(self.key.1, &mut ctx.scratch);
            if n == 0 {
                return Ok(());
            }
            self.session.handle_stream(&ctx.scratch[..n])?;
            while let Some(Event::DatagramCapsule(payload)) = self.session.poll_event() {
                self.datagram(&payload, ctx)?;
            }
        }
    }

    /// The client is done.
    pub(crate) fn finish(&mut self) -> End {
        self.session.handle_fin().map_or_else(End::from, |()| End::Fin)
    }

    /// The target has something to say.
    pub(crate) fn readable(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        let Some(mut batch) = ctx.udp_batch.take() else { return Ok(()) };
        let done = self.receive(conn, &mut batch, ctx);
        ctx.udp_batch = Some(batch);
        done
    }

    fn receive(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        batch: &mut RecvBatch,
        ctx: &mut Ctx,
    ) -> Result<(), End> {
        for _ in 0..BATCHES {
            match self.socket.try_recv(batch) {
                Ok(_) => batch.for_each(|datagram| self.deliver(conn, datagram.payload, ctx)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.trouble(&e, ctx)?,
            }
        }
        self.resume.notify_one();
        Ok(())
    }

    fn deliver(&mut self, conn: &mut (impl Carrier + ?Sized), payload: &[u8], ctx: &Ctx) {
        let counters = &ctx.counters;
        let stream = self.key.1;
        if !self.owner.grant.account.usage.down.admit(ctx.now, payload.len()) {
            return counters.dropped(Dropped::Rate);
        }
        self.last = ctx.now;
        let sent = match conn.max_datagram_payload(stream) {
            Some(max) => match self.session.encapsulate(payload, max) {
                UdpVerdict::Forward(payload) => {
                    conn.send_datagram(stream, &CONTEXT_ID_ZERO, payload)
                }
                UdpVerdict::Drop(_) => Err(DatagramError::TooLarge { max }),
            },
            None => Err(DatagramError::Unsupported),
        };
        match sent {
            Ok(()) => counters.down(Kind::Udp, payload.len()),
            // A client that has no QUIC datagrams gets capsules, as many as its stream takes.
            Err(DatagramError::Unsupported) if conn.queued(stream) < HIGH_WATER => {
                let capsule = encode_datagram_capsule(&CONTEXT_ID_ZERO, payload);
                conn.send_body(stream, capsule, false);
                counters.down(Kind::Udp, payload.len());
            }
            Err(DatagramError::TooLarge { .. }) => counters.dropped(Dropped::TooLarge),
            Err(_) => counters.dropped(Dropped::QueueFull),
        }
    }

    /// What the network said about the target: unreachable ends the flow (RFC 9298 §3.1).
    fn trouble(&self, e: &io::Error, ctx: &Ctx) -> Result<(), End> {
        if is_unreachable(e) {
            return Err(End::Fin);
        }
        ctx.counters.dropped(if is_too_big(e) { Dropped::TooLarge } else { Dropped::Blocked });
        Ok(())
    }

    /// Whether nothing passed for `idle`.
    pub(crate) fn is_idle(&self, now: Instant, idle: Duration) -> bool {
        now.saturating_duration_since(self.last) >= idle
    }
}
