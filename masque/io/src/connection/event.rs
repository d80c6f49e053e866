//! What a connection tells, and why it refuses.

use quiche::h3::Header;

#[cfg(doc)]
use super::{Connection, HIGH_WATER, LOW_WATER};

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
