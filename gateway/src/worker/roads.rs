//! Tunnels whose streams come over TCP: HTTP/2 and HTTP/1.1 (RFC 9298 §3.2–3.4, RFC 9484 §4.2–4.5).
//!
//! The TCP side does TLS and HTTP, and passes the bytes of a tunnel's stream on as they are. The
//! session lives here, on a worker, beside those of HTTP/3: the same accounts, leases, limits and
//! policies hold, whatever carries it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bauta_masque::request::Ask;
use bauta_masque_io::{Carrier, DatagramError, Header};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::Worker;
use crate::accounts::Grant;

/// Bytes a client may send ahead while its tunnel is being opened; more ends it.
const AHEAD: usize = 256 * 1024;

/// Roads are numbered from here; a worker's QUIC connections never come so far.
const FIRST: u64 = 1 << 63;

/// Whether a key's number is a road's.
#[inline]
pub(crate) fn is_road(id: u64) -> bool {
    id >= FIRST
}

/// What a worker tells the TCP side about a tunnel's stream.
pub(crate) enum Down {
    /// The head of the answer; `true`: it is all there is.
    Head(Vec<Header>, bool),
    /// Bytes.
    Body(Bytes),
    /// The orderly end.
    End,
    /// The stream is to be reset.
    Abort,
}

/// What the TCP side tells a worker.
pub(crate) enum Up {
    /// A tunnel is asked for.
    Open(Box<Opened>),
    /// Bytes of its stream.
    Body(Bytes),
    /// The client has nothing more to send.
    End,
    /// The stream is gone, however.
    Gone,
}

/// A tunnel asked for.
pub(crate) struct Opened {
    pub(crate) ask: Ask,
    pub(crate) grant: Grant,
    pub(crate) down: mpsc::UnboundedSender<Down>,
    pub(crate) queued: Arc<AtomicUsize>,
}

/// The number of the `nth` road of this gateway.
pub(crate) fn number(nth: u64) -> u64 {
    FIRST | nth
}

/// One tunnel's stream, as its session sees it. It has one stream, 0.
pub(crate) struct Road {
    id: u64,
    down: mpsc::UnboundedSender<Down>,
    /// Bytes on their way to the client's socket. Sessions drop packets above
    /// [`HIGH_WATER`](bauta_masque_io::connection::HIGH_WATER), which bounds the channel.
    queued: Arc<AtomicUsize>,
    inbox: VecDeque<Bytes>,
}

impl Road {
    fn tell(&self, what: Down) {
        // Nobody hears it once the client is gone; `Up::Gone` is on its way then.
        let _ = self.down.send(what);
    }
}

impl Carrier for Road {
    fn id(&self) -> u64 {
        self.id
    }

    fn respond(&mut self, _: u64, headers: Vec<Header>, fin: bool) {
        self.tell(Down::Head(headers, fin));
    }

    fn trailers(&mut self, _: u64, _: Vec<Header>) {
        self.tell(Down::End);
    }

    fn send_body(&mut self, _: u64, body: Bytes, fin: bool) -> usize {
        let size = body.len();
        let queued = self.queued.fetch_add(size, Ordering::Relaxed) + size;
        if size > 0 {
            self.tell(Down::Body(body));
        }
        if fin {
            self.tell(Down::End);
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
        self.tell(Down::Abort);
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

/// The roads of a worker.
pub(super) type Roads = HashMap<u64, Road>;

impl Worker {
    /// News from the TCP side.
    pub(super) fn road(&mut self, id: u64, up: Up) {
        match up {
            Up::Open(opened) => {
                let Opened { ask, grant, down, queued } = *opened;
                let mut road = Road { id, down, queued, inbox: VecDeque::new() };
                self.streams.open(&mut road, 0, ask, grant, false);
                self.roads.insert(id, road);
            }
            Up::Body(bytes) => {
                let Some(road) = self.roads.get_mut(&id) else { return };
                road.inbox.push_back(bytes);
                self.streams.pull(road, 0);
                if road.inbox.iter().map(Bytes::len).sum::<usize>() > AHEAD {
                    road.tell(Down::Abort);
                    self.roads.remove(&id);
                    self.streams.gone(id);
                }
            }
            Up::End => {
                let Some(road) = self.roads.get_mut(&id) else { return };
                self.streams.finished(road, 0);
            }
            Up::Gone => {
                self.roads.remove(&id);
                self.streams.gone(id);
            }
        }
    }
}
