//! A tunnel's stream over TCP, as its session sees it, and the task that moves its bytes.
//!
//! The session lives on a thread of its own and never waits: what it sends goes through a channel
//! to the task that owns the socket, what arrives is pushed in from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use quiche::h3::Header;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::carrier::Carrier;
use crate::connection::DatagramError;
use crate::endpoint::ConnId;

/// Roads are numbered from here; an endpoint's connections never come so far.
const FIRST: ConnId = 1 << 63;

/// Bytes read from a peer at once.
const READ: usize = 32 * 1024;

/// Bytes gathered into one write: capsules are small, and each write is a TLS record.
const WRITE: usize = 16 * 1024;

/// What a session tells the task.
pub enum Out {
    /// The head of an answer; `true`: it is all there is.
    Head(Vec<Header>, bool),
    /// Bytes.
    Body(Bytes),
    /// The orderly end.
    End,
    /// The stream is to be reset.
    Abort,
}

/// The session's side of a stream over TCP: a connection of one stream, whatever its number.
pub struct Road {
    id: ConnId,
    out: mpsc::UnboundedSender<Out>,
    queued: Arc<AtomicUsize>,
    inbox: VecDeque<Bytes>,
}

/// The task's side.
pub struct RoadEnd {
    out: mpsc::UnboundedReceiver<Out>,
    /// Bytes on their way to the socket. Sessions drop packets above
    /// [`HIGH_WATER`](crate::connection::HIGH_WATER), which bounds the channel.
    queued: Arc<AtomicUsize>,
}

/// The number of the `nth` road.
pub const fn number(nth: u64) -> ConnId {
    FIRST | nth
}

/// Whether a connection's number is a road's.
#[inline]
pub const fn is_road(id: ConnId) -> bool {
    id >= FIRST
}

/// Both sides of the road numbered `id`.
pub fn road(id: ConnId) -> (Road, RoadEnd) {
    let (sender, out) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let road = Road { id, out: sender, queued: queued.clone(), inbox: VecDeque::new() };
    (road, RoadEnd { out, queued })
}

impl Road {
    /// Takes bytes that the peer sent.
    pub fn push(&mut self, bytes: Bytes) {
        self.inbox.push_back(bytes);
    }

    /// Bytes that nobody has read yet.
    pub fn waiting(&self) -> usize {
        self.inbox.iter().map(Bytes::len).sum()
    }

    fn tell(&self, what: Out) {
        // Nobody hears it once the peer is gone, and its end is on its way then.
        let _ = self.out.send(what);
    }
}

impl Carrier for Road {
    fn id(&self) -> ConnId {
        self.id
    }

    fn respond(&mut self, _: u64, headers: Vec<Header>, fin: bool) {
        self.tell(Out::Head(headers, fin));
    }

    fn trailers(&mut self, _: u64, _: Vec<Header>) {
        self.tell(Out::End);
    }

    fn send_body(&mut self, _: u64, body: Bytes, fin: bool) -> usize {
        let size = body.len();
        let queued = self.queued.fetch_add(size, Ordering::Relaxed) + size;
        if size > 0 {
            self.tell(Out::Body(body));
        }
        if fin {
            self.tell(Out::End);
        }
        queued
    }

    fn queued(&self, _: u64) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn recv_body(&mut self, _: u64, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < out.len()
            && let Some(piece) = self.inbox.front_mut()
        {
            let n = piece.len().min(out.len() - filled);
            piece.copy_to_slice(&mut out[filled..filled + n]);
            filled += n;
            if piece.is_empty() {
                self.inbox.pop_front();
            }
        }
        filled
    }

    fn reset(&mut self, _: u64, _: u64) {
        self.tell(Out::Abort);
    }

    fn stop(&mut self, _: u64, _: u64) {
        self.inbox.clear();
    }

    fn send_datagram(&mut self, _: u64, _: &[u8], _: &[u8]) -> Result<(), DatagramError> {
        Err(DatagramError::Unsupported)
    }

    fn max_datagram_payload(&self, _: u64) -> Option<usize> {
        None
    }

    fn path_mtu_settled(&self) -> bool {
        false
    }
}

impl RoadEnd {
    /// The head of the session's answer; `None` if it gave none.
    pub async fn head(&mut self) -> Option<(Vec<Header>, bool)> {
        match self.out.recv().await? {
            Out::Head(head, ended) => Some((head, ended)),
            _ => None,
        }
    }

    /// Writes what the session sends until it ends or the peer is gone.
    pub async fn write_to(&mut self, mut writer: impl AsyncWrite + Unpin) {
        let mut buffer = Vec::with_capacity(2 * WRITE);
        while let Some(first) = self.out.recv().await {
            let (mut next, mut last) = (Some(first), false);
            while let Some(told) = next {
                match told {
                    Out::Body(bytes) => buffer.extend_from_slice(&bytes),
                    Out::End => last = true,
                    Out::Head(..) => {}
                    Out::Abort => return,
                }
                if last || buffer.len() >= WRITE {
                    break;
                }
                next = self.out.try_recv().ok();
            }
            if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            self.queued.fetch_sub(buffer.len(), Ordering::Relaxed);
            buffer.clear();
            if last {
                let _ = writer.shutdown().await;
                return;
            }
        }
    }
}

/// The next piece of what the peer sends, out of `buffer`: empty at its end, `None` when the stream
/// is broken.
pub async fn read_piece(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Option<Bytes> {
    buffer.reserve(READ);
    reader.take(READ as u64).read_buf(buffer).await.ok()?;
    Some(buffer.split().freeze())
}
