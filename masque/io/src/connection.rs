//! One QUIC connection with HTTP/3 on it.

mod drive;
mod event;
mod outgoing;
mod shape;
mod trust;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bauta_masque::datagram;
use bauta_masque::shape::{FULL, REQUEST};
use bytes::Bytes;
use foldhash::fast::RandomState;
use quiche::h3::{self, Header};

use crate::buffers::{Buffers, DatagramBuf};
use crate::cid::Cid;
use crate::endpoint::{ConnId, Subnet};
use crate::padding::pad_request;
pub use event::{Closed, DatagramError, Event, StreamError};
use outgoing::{Outgoing, Piece, Progress};
use shape::Shaped;
use trust::Trust;

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

/// One QUIC connection with HTTP/3 on it.
pub struct Connection {
    pub(crate) id: ConnId,
    pub(crate) quic: Quic,
    pub(crate) cids: Vec<Cid>,
    /// Where it stands among the endpoint's timers: no later than quiche's own.
    pub(crate) armed: Option<Instant>,
    /// Whom a server counts it for.
    pub(crate) source: Option<Subnet>,
    /// A server counts its handshake as under way.
    pub(crate) shaking: bool,
    h3: Option<h3::Connection>,
    outgoing: HashMap<u64, Outgoing, RandomState>,
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
    trust: Trust,
    shaped: Option<Box<Shaped>>,
    /// Nothing is sent that a browser would not send.
    reserved: bool,
    /// The packet that ends the handshake has left, and nothing follows it until there is an answer.
    held: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnId, quic: Quic, is_server: bool) -> Self {
        Self {
            id,
            quic,
            cids: Vec::new(),
            armed: None,
            source: None,
            shaking: false,
            h3: None,
            outgoing: HashMap::default(),
            early: VecDeque::new(),
            seen_streams: 0,
            settings_seen: false,
            established: false,
            is_server,
            limited: false,
            path_mtu: MIN_PATH_MTU,
            moved: false,
            trust: Trust::Ordinary,
            shaped: None,
            reserved: false,
            held: false,
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

    /// Makes a request and returns its stream; an extended CONNECT is one too. It is padded while the
    /// connection is given a shape.
    pub fn request(&mut self, headers: &[Header], fin: bool) -> Result<u64, StreamError> {
        self.request_of(headers, fin, &REQUEST)
    }

    /// The same with a field section of so many bytes, if the connection is given a shape.
    pub fn request_of(
        &mut self,
        headers: &[Header],
        fin: bool,
        bytes: &RangeInclusive<usize>,
    ) -> Result<u64, StreamError> {
        let mut padded = Vec::new();
        let mut headers = headers;
        if self.shaped.is_some() {
            padded.extend_from_slice(headers);
            pad_request(&mut padded, bytes);
            headers = &padded;
        }
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

    /// Queues a copy of `payload` as an HTTP Datagram; otherwise as [`send_buf`](Self::send_buf).
    pub fn send_datagram(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: &[u8],
    ) -> Result<(), DatagramError> {
        self.send_buf(stream, context, DatagramBuf::copy_of(payload))
    }

    /// Queues an HTTP Datagram for `stream`: its quarter stream id and `context` are written into
    /// the room before `payload`.
    #[inline]
    pub fn send_buf(
        &mut self,
        stream: u64,
        context: &[u8],
        mut payload: DatagramBuf,
    ) -> Result<(), DatagramError> {
        if self.moved
            && let Some(max) = self.max_datagram_payload(stream)
            && context.len() + payload.len() > max
        {
            return Err(DatagramError::TooLarge { max });
        }
        let mut quarter = [0; 8];
        let n = bauta_masque::varint::write(datagram::quarter_stream_id(stream), &mut quarter);
        if payload.headroom() < n + context.len() {
            payload = joined(&[&quarter[..n], context, payload.as_ref()]);
        } else {
            payload.prepend(context);
            payload.prepend(&quarter[..n]);
        }
        self.shape_datagram(stream, payload.len());
        self.quic.dgram_send_buf(payload).map_err(|e| match e {
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
        // While quiche looks for the path MTU, and after, it takes what it tries for what passes.
        let over = self.quic.max_send_udp_payload_size().saturating_sub(self.path_mtu);
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
        // The peer needs spare connection ids to follow.
        self.end_reserve();
        self.quic.migrate_source(local)?;
        self.moved = true;
        Ok(())
    }

    /// Ends the reserve that a client's connection begins with where it is given a shape: from now on
    /// the path's MTU is looked for with packets beyond a browser's, and the peer is offered spare
    /// connection ids. To be called when there has been enough to look at, and before anything is
    /// sent that needs the MTU.
    pub fn end_reserve(&mut self) {
        (self.reserved, self.held) = (false, false);
    }

    /// A packet has left. A browser's handshake ends with one that has room for all it has to say; quiche
    /// would send a packet for each stream it opens.
    pub(crate) fn hold(&mut self) {
        self.held |= self.reserved && !self.settings_seen && self.quic.is_established();
    }

    /// Whether nothing is sent yet that a browser would not send.
    pub(crate) fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// The largest packet to let quiche write, bytes. It discovers the MTU of a connection's first
    /// path only, and would fill packets of any other up to the configured maximum; what passed on
    /// the first is the best guess there is.
    pub(crate) fn packet_limit(&self) -> usize {
        match (self.reserved, self.moved) {
            // A browser's largest, but smaller than a probe for it.
            (true, _) if self.settings_seen => FULL - 1,
            (true, _) => FULL,
            (_, true) => self.path_mtu,
            _ => usize::MAX,
        }
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

/// One buffer of several parts, for a payload that has no room before it.
#[cold]
fn joined(parts: &[&[u8]]) -> DatagramBuf {
    let mut out = DatagramBuf::take();
    parts.iter().for_each(|part| out.extend(part));
    out
}
