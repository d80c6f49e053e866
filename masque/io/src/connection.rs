//! One QUIC connection with HTTP/3 on it.

mod outgoing;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bauta_masque::datagram;
use bytes::Bytes;
use quiche::h3::{self, Header};
use tracing::{debug, trace};

use crate::buffers::{Buffers, DatagramBuf};
use crate::cid::Cid;
use crate::endpoint::{App, ConnId};
use crate::tls::MAX_REQUESTS;
use outgoing::{Outgoing, Piece, Progress};

/// A stream whose queue was above this many bytes and falls to it is reported writable again.
pub const LOW_WATER: usize = 64 * 1024;
/// Queued bytes of one stream above which a producer is to wait for [`Event::Writable`].
pub const HIGH_WATER: usize = 256 * 1024;
/// Datagrams kept for streams whose request has not arrived yet (RFC 9297 section 2.1 allows to
/// buffer them for about one round trip): at most this many a connection.
const EARLY_DATAGRAMS: usize = 64;
/// AEAD_LIMIT_REACHED (RFC 9001 section 6.6): a key has protected as many packets as it may.
pub const AEAD_LIMIT_REACHED: u64 = 0x0f;
/// Bytes of UDP payload that every path of QUIC carries (RFC 9000 section 14).
const MIN_PATH_MTU: usize = 1200;

pub(crate) type Quic = quiche::Connection<Buffers>;

/// What happened on a connection, in the order in which it happened.
#[derive(Debug)]
pub enum Event {
    /// The handshake is done and HTTP/3 is up.
    Established,
    /// The peer's SETTINGS are known.
    Settings,
    /// A request's headers at a server; a response's, or trailers, at either.
    Headers {
        /// The request stream.
        stream: u64,
        /// Pseudo headers first, as they came.
        headers: Vec<Header>,
        /// Nothing follows.
        fin: bool,
    },
    /// Body bytes wait: call [`Connection::recv_body`] until it returns 0, or no other such event
    /// comes for the stream.
    Data {
        /// The request stream.
        stream: u64,
    },
    /// The peer ended its side of the stream, and all its data was read.
    Finished {
        /// The request stream.
        stream: u64,
    },
    /// The peer reset its side of the stream.
    Reset {
        /// The request stream.
        stream: u64,
        /// HTTP/3 error code.
        code: u64,
    },
    /// The peer wants no more of our side of the stream; what was queued is gone.
    Stopped {
        /// The request stream.
        stream: u64,
        /// HTTP/3 error code.
        code: u64,
    },
    /// A stream's queue has fallen from above [`HIGH_WATER`] to [`LOW_WATER`].
    Writable {
        /// The request stream.
        stream: u64,
    },
    /// The largest UDP payload that the path carries has changed.
    PathMtu {
        /// Bytes of UDP payload.
        udp_payload: usize,
    },
    /// The connection lives on another path: the peer's address or our own has changed.
    Migrated,
    /// The peer takes no new requests on this connection.
    GoAway,
    /// The connection is gone; the last event.
    Closed(Closed),
}

/// How a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// The peer closed it.
    pub by_peer: bool,
    /// `code` is an HTTP/3 code, not one of QUIC's own.
    pub app: bool,
    /// The error code.
    pub code: u64,
    /// The reason given with it.
    pub reason: String,
    /// Nothing was heard for the idle time.
    pub timed_out: bool,
    /// The handshake had been completed.
    pub established: bool,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It does not fit in a packet of the path.
    #[error("the datagram is larger than the {max} bytes that the path carries")]
    TooLarge {
        /// Largest payload, context id included.
        max: usize,
    },
    /// The send queue is full: the path is slower than the source.
    #[error("the datagram queue is full")]
    Full,
    /// The connection is closed or not yet established.
    #[error("the connection is not open")]
    Closed,
    /// The peer has not enabled HTTP Datagrams.
    #[error("the peer does not take HTTP Datagrams")]
    Unsupported,
}

/// Why a request was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Stream or flow-control limits: try again later.
    #[error("the peer allows no further stream at the moment")]
    Blocked,
    /// The connection is closing or not established.
    #[error("the connection takes no requests")]
    Closed,
}

/// One QUIC connection with HTTP/3 on it.
pub struct Connection {
    pub(crate) id: ConnId,
    pub(crate) quic: Quic,
    pub(crate) cids: Vec<Cid>,
    pub(crate) deadline: Option<Instant>,
    h3: Option<h3::Connection>,
    outgoing: HashMap<u64, Outgoing>,
    early: VecDeque<(u64, DatagramBuf)>,
    seen_streams: u64,
    settings_seen: bool,
    established: bool,
    is_server: bool,
    limited: bool,
    /// The largest UDP payload known to pass, bytes.
    path_mtu: usize,
    /// The connection has moved to a path that quiche does not measure.
    moved: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnId, quic: Quic, is_server: bool) -> Self {
        Self {
            id,
            quic,
            cids: Vec::new(),
            deadline: None,
            h3: None,
            outgoing: HashMap::new(),
            early: VecDeque::new(),
            seen_streams: 0,
            settings_seen: false,
            established: false,
            is_server,
            limited: false,
            path_mtu: MIN_PATH_MTU,
            moved: false,
        }
    }

    /// This connection's number within its endpoint, never used again.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The peer's address on the path in use.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.active_path().map(|p| p.peer_addr)
    }

    /// Whether the handshake is complete.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether the connection is closed or closing.
    pub fn is_closed(&self) -> bool {
        self.quic.is_closed() || self.quic.is_draining() || self.quic.local_error().is_some()
    }

    /// The name the client asked for in its ClientHello.
    pub fn server_name(&self) -> Option<&str> {
        self.quic.server_name()
    }

    /// Makes a request and returns its stream; an extended CONNECT is one too.
    pub fn request(&mut self, headers: &[Header], fin: bool) -> Result<u64, StreamError> {
        let h3 = self.h3.as_mut().ok_or(StreamError::Closed)?;
        let stream = h3.send_request(&mut self.quic, headers, fin).map_err(|e| match e {
            h3::Error::StreamBlocked
            | h3::Error::TransportError(quiche::Error::StreamLimit | quiche::Error::Done) => {
                StreamError::Blocked
            }
            _ => StreamError::Closed,
        })?;
        self.seen_streams = self.seen_streams.max(stream + 4);
        if !fin {
            self.outgoing.insert(stream, Outgoing::default());
        }
        Ok(stream)
    }

    /// Answers a request with its final headers.
    pub fn respond(&mut self, stream: u64, headers: Vec<Header>, fin: bool) {
        self.push(stream, Piece::Head(headers), fin);
    }

    /// Sends an interim (1xx) response.
    pub fn inform(&mut self, stream: u64, headers: Vec<Header>) {
        self.push(stream, Piece::Interim(headers), false);
    }

    /// Ends a stream with trailers.
    pub fn trailers(&mut self, stream: u64, headers: Vec<Header>) {
        self.push(stream, Piece::Trailers(headers), true);
    }

    /// Queues body bytes and returns how many the stream has queued now. A producer stops above
    /// [`HIGH_WATER`] and goes on at [`Event::Writable`].
    pub fn send_body(&mut self, stream: u64, body: Bytes, fin: bool) -> usize {
        self.push(stream, Piece::Body(body), fin);
        self.queued(stream)
    }

    /// Bytes queued on a stream and not yet taken by QUIC.
    pub fn queued(&self, stream: u64) -> usize {
        self.outgoing.get(&stream).map_or(0, Outgoing::queued)
    }

    fn push(&mut self, stream: u64, piece: Piece, fin: bool) {
        let Some(h3) = self.h3.as_mut() else { return };
        let out = self.outgoing.entry(stream).or_default();
        out.push(piece, fin);
        if let Progress::Ended = out.write(h3, &mut self.quic, stream) {
            self.outgoing.remove(&stream);
        }
    }

    /// Reads body bytes; 0 when there is nothing now.
    pub fn recv_body(&mut self, stream: u64, out: &mut [u8]) -> usize {
        let Some(h3) = self.h3.as_mut() else { return 0 };
        h3.recv_body(&mut self.quic, stream, out).unwrap_or(0)
    }

    /// Resets our side of a stream (RESET_STREAM) and drops what was queued on it.
    pub fn reset(&mut self, stream: u64, code: u64) {
        self.outgoing.remove(&stream);
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Write, code);
    }

    /// Asks the peer to stop sending on a stream (STOP_SENDING).
    pub fn stop(&mut self, stream: u64, code: u64) {
        let _ = self.quic.stream_shutdown(stream, quiche::Shutdown::Read, code);
    }

    /// Queues an HTTP Datagram for `stream`: its quarter stream id, `context`, then `payload`.
    pub fn send_datagram(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: &[u8],
    ) -> Result<(), DatagramError> {
        if self.moved
            && let Some(max) = self.max_datagram_payload(stream)
            && context.len() + payload.len() > max
        {
            return Err(DatagramError::TooLarge { max });
        }
        let mut prefix = [0; 8];
        let n = bauta_masque::varint::write(datagram::quarter_stream_id(stream), &mut prefix);
        let mut buf = DatagramBuf::take();
        buf.extend(&prefix[..n]);
        buf.extend(context);
        buf.extend(payload);
        self.quic.dgram_send_buf(buf).map_err(|e| match e {
            quiche::Error::Done => DatagramError::Full,
            quiche::Error::BufferTooShort => {
                DatagramError::TooLarge { max: self.max_datagram_payload(stream).unwrap_or(0) }
            }
            quiche::Error::InvalidState if self.is_established() => DatagramError::Unsupported,
            _ => DatagramError::Closed,
        })
    }

    /// Datagrams that wait for the congestion window.
    pub fn datagrams_queued(&self) -> usize {
        self.quic.dgram_send_queue_len()
    }

    /// Whether the datagram queue takes no more.
    pub fn datagram_queue_full(&self) -> bool {
        self.quic.is_dgram_send_queue_full()
    }

    /// Largest HTTP Datagram payload (context id included) that the path carries now; `None` while
    /// the peer has not enabled datagrams.
    pub fn max_datagram_payload(&self, stream: u64) -> Option<usize> {
        let over = self.quic.max_send_udp_payload_size().saturating_sub(self.packet_limit());
        let max = self.quic.dgram_max_writable_len()?.checked_sub(over)?;
        max.checked_sub(bauta_masque::varint::len(datagram::quarter_stream_id(stream)))
    }

    /// Whether HTTP Datagrams were enabled by both sides (RFC 9297 section 2.1.1).
    pub fn datagrams_enabled(&self) -> bool {
        self.h3.as_ref().is_some_and(|h3| h3.dgram_enabled_by_peer(&self.quic))
    }

    /// Whether the peer takes extended CONNECT (RFC 9220).
    pub fn extended_connect_enabled(&self) -> bool {
        self.h3.as_ref().is_some_and(h3::Connection::extended_connect_enabled_by_peer)
    }

    /// Whether path MTU discovery has come to its end on the path in use.
    pub fn path_mtu_settled(&self) -> bool {
        self.moved || self.quic.pmtu().is_some()
    }

    /// Moves to another local address (RFC 9000 section 9).
    pub(crate) fn migrate(&mut self, local: SocketAddr) -> quiche::Result<()> {
        self.quic.migrate_source(local)?;
        self.moved = true;
        Ok(())
    }

    /// The largest packet to let quiche write, bytes. It discovers the MTU of a connection's first
    /// path only, and would fill packets of any other up to the configured maximum; what passed on
    /// the first is the best guess there is.
    pub(crate) fn packet_limit(&self) -> usize {
        if self.moved { self.path_mtu } else { usize::MAX }
    }

    /// Sends something that the peer has to acknowledge.
    pub fn ping(&mut self) {
        let _ = self.quic.send_ack_eliciting();
    }

    /// Packets received and decrypted.
    pub fn packets_received(&self) -> u64 {
        self.quic.stats().recv as u64
    }

    /// Packets protected by one key, in the busier direction, to be held against the AEAD limit
    /// (quiche never changes keys by itself).
    pub fn packets_protected(&self) -> u64 {
        let stats = self.quic.stats();
        stats.sent.max(stats.recv) as u64
    }

    /// Counters of the connection.
    pub fn stats(&self) -> quiche::Stats {
        self.quic.stats()
    }

    /// Smoothed round-trip time of the path in use.
    pub fn rtt(&self) -> Duration {
        self.active_path().map_or(Duration::ZERO, |p| p.rtt)
    }

    fn active_path(&self) -> Option<quiche::PathStats> {
        self.quic.path_stats().find(|p| p.active)
    }

    /// Closes the connection with an HTTP/3 error code.
    pub fn close(&mut self, code: u64, reason: &[u8]) {
        let _ = self.quic.close(true, code, reason);
    }

    /// Tells the peer that no new requests are taken (GOAWAY).
    pub fn goaway(&mut self) {
        if let Some(h3) = self.h3.as_mut() {
            let _ = h3.send_goaway(&mut self.quic, self.seen_streams);
        }
    }

    /// Closes the connection once a key has protected `limit` packets: it is never used beyond.
    pub(crate) fn enforce_packet_limit(&mut self, limit: u64) {
        if !self.limited && self.packets_protected() >= limit {
            self.limited = true;
            let _ = self.quic.close(false, AEAD_LIMIT_REACHED, b"");
        }
    }

    /// Tells `app` all that happened since the last call and moves queued stream data on.
    pub(crate) fn drive(&mut self, h3_config: &h3::Config, app: &mut impl App) {
        if !self.established {
            if !self.quic.is_established() {
                return;
            }
            self.established = true;
            match h3::Connection::with_transport(&mut self.quic, h3_config) {
                Ok(h3) => self.h3 = Some(h3),
                Err(error) => {
                    debug!(conn = self.id, %error, "HTTP/3 did not start");
                    return self.close(datagram::H3_INTERNAL_ERROR, b"");
                }
            }
            app.event(self, Event::Established);
        }
        self.poll_h3(app);
        self.poll_datagrams(app);
        self.poll_paths(app);
        self.poll_writable(app);
    }

    fn poll_h3(&mut self, app: &mut impl App) {
        while let Some(h3) = self.h3.as_mut() {
            let polled = h3.poll(&mut self.quic);
            if !self.settings_seen && h3.peer_settings_raw().is_some() {
                self.settings_seen = true;
                app.event(self, Event::Settings);
            }
            match polled {
                Ok((stream, event)) => self.tell(stream, event, app),
                Err(h3::Error::Done) => break,
                Err(error) => {
                    // quiche has closed the connection with the right code already.
                    trace!(conn = self.id, %error, "HTTP/3 error");
                    break;
                }
            }
        }
    }

    fn tell(&mut self, stream: u64, event: h3::Event, app: &mut impl App) {
        match event {
            h3::Event::Headers { list, more_frames } => {
                self.seen_streams = self.seen_streams.max(stream + 4);
                app.event(self, Event::Headers { stream, headers: list, fin: !more_frames });
                self.replay_early(stream, app);
            }
            h3::Event::Data => app.event(self, Event::Data { stream }),
            h3::Event::Finished => app.event(self, Event::Finished { stream }),
            h3::Event::Reset(code) => app.event(self, Event::Reset { stream, code }),
            h3::Event::GoAway => app.event(self, Event::GoAway),
            h3::Event::PriorityUpdate => {}
        }
    }

    fn replay_early(&mut self, stream: u64, app: &mut impl App) {
        for _ in 0..self.early.len() {
            let Some((id, mut buf)) = self.early.pop_front() else { break };
            if id == stream {
                app.datagram(self, stream, buf.bytes_mut());
            } else {
                self.early.push_back((id, buf));
            }
        }
    }

    fn poll_datagrams(&mut self, app: &mut impl App) {
        while let Ok(mut buf) = self.quic.dgram_recv_buf() {
            let (stream, prefix) = match datagram::decode(buf.as_ref()) {
                Ok(decoded) => decoded,
                Err(_) => return self.close(datagram::H3_DATAGRAM_ERROR, b""),
            };
            if stream < self.seen_streams {
                app.datagram(self, stream, &mut buf.bytes_mut()[prefix..]);
            } else if self.is_server && stream >= self.seen_streams + 4 * MAX_REQUESTS {
                return self.close(datagram::H3_ID_ERROR, b"");
            } else if self.is_server && self.early.len() < EARLY_DATAGRAMS {
                let mut early = DatagramBuf::take();
                early.extend(&buf.as_ref()[prefix..]);
                self.early.push_back((stream, early));
            }
        }
    }

    fn poll_paths(&mut self, app: &mut impl App) {
        while let Some(event) = self.quic.path_event_next() {
            match event {
                quiche::PathEvent::PmtuUpdated { pmtu, .. } => {
                    self.path_mtu = pmtu;
                    app.event(self, Event::PathMtu { udp_payload: pmtu });
                }
                quiche::PathEvent::PeerMigrated(..) => {
                    self.moved = true;
                    app.event(self, Event::Migrated);
                }
                quiche::PathEvent::Validated(..) if !self.is_server => {
                    app.event(self, Event::Migrated);
                }
                _ => {}
            }
        }
    }

    fn poll_writable(&mut self, app: &mut impl App) {
        if self.outgoing.is_empty() {
            return;
        }
        while let Some(stream) = self.quic.stream_writable_next() {
            let Some(h3) = self.h3.as_mut() else { return };
            let Some(out) = self.outgoing.get_mut(&stream) else { continue };
            let progress = match self.quic.stream_capacity(stream) {
                Err(quiche::Error::StreamStopped(code)) => Progress::Stopped(code),
                _ => out.write(h3, &mut self.quic, stream),
            };
            match progress {
                Progress::Ended => drop(self.outgoing.remove(&stream)),
                Progress::Stopped(code) => {
                    self.outgoing.remove(&stream);
                    app.event(self, Event::Stopped { stream, code });
                }
                Progress::Open { writable: true } => app.event(self, Event::Writable { stream }),
                Progress::Open { writable: false } => {}
            }
        }
    }

    /// How the connection ended; meaningful once quiche says it is closed.
    pub(crate) fn closed(&self) -> Closed {
        let (error, by_peer) = match (self.quic.peer_error(), self.quic.local_error()) {
            (Some(e), _) => (Some(e), true),
            (None, e) => (e, false),
        };
        Closed {
            by_peer,
            app: error.is_some_and(|e| e.is_app),
            code: error.map_or(0, |e| e.error_code),
            reason: error.map_or_else(String::new, |e| String::from_utf8_lossy(&e.reason).into()),
            timed_out: self.quic.is_timed_out(),
            established: self.established,
        }
    }
}
