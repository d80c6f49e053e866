//! Tunnels whose streams come over TCP: HTTP/2 and HTTP/1.1 (RFC 9298 §3.2–3.4, RFC 9484 §4.2–4.5).
//!
//! The TCP side does TLS and HTTP, and passes the bytes of a tunnel's stream on as they are. The
//! session lives here, on a worker, beside those of HTTP/3: the same accounts, leases, limits and
//! policies hold, whatever carries it.

use std::collections::HashMap;

use bauta_masque::datagram::H3_EXCESSIVE_LOAD;
use bauta_masque::request::Ask;
use bauta_masque_io::tcp::road::{self, Road, RoadEnd};
use bauta_masque_io::{Carrier, ConnId};
use bytes::Bytes;

use super::Worker;
use crate::accounts::Grant;
use crate::tunnel::{End, Wishes};

/// Bytes a client may send ahead while its tunnel is being opened; more ends it.
const AHEAD: usize = 256 * 1024;

/// What the TCP side tells a worker about a tunnel's stream.
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
    ask: Ask,
    grant: Grant,
    road: Road,
}

impl Opened {
    /// And the TCP side's end of its stream.
    pub(crate) fn new(id: ConnId, ask: Ask, grant: Grant) -> (Box<Self>, RoadEnd) {
        let (road, end) = road::road(id);
        (Box::new(Self { ask, grant, road }), end)
    }
}

/// The roads of a worker.
pub(super) type Roads = HashMap<u64, Road>;

impl Worker {
    /// News from the TCP side.
    pub(super) fn road(&mut self, id: u64, up: Up) {
        match up {
            Up::Open(opened) => {
                let Opened { ask, grant, mut road } = *opened;
                self.streams.open(&mut road, 0, ask, grant, Wishes::default(), false);
                self.roads.insert(id, road);
            }
            Up::Body(bytes) => {
                let Some(road) = self.roads.get_mut(&id) else { return };
                road.push(bytes);
                self.streams.pull(road, 0);
                if road.waiting() > AHEAD {
                    self.streams.end(road, 0, End::Abort(H3_EXCESSIVE_LOAD));
                    road.stop(0, H3_EXCESSIVE_LOAD);
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
