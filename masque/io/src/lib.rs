//! Everything of Bauta that meets the network: sockets, TLS, QUIC, HTTP and TUN.
//!
//! This is the only room that names `quiche`, `boring`, sockets and TUN devices. It holds no policy:
//! an [`endpoint::Endpoint`] owns the QUIC connections of one UDP socket and tells an
//! [`endpoint::App`] what happened; [`tcp`] serves HTTP/1.1 and HTTP/2; [`tun`] moves batches of IP
//! packets. The loop that joins them belongs to the gateway's workers and to the client.

pub mod bonded;
mod buffers;
pub mod carrier;
pub mod cid;
pub mod clock;
pub mod concealed;
pub mod connection;
pub mod endpoint;
pub mod mark;
pub mod memory;
mod padding;
pub mod steer;
pub mod tcp;
pub mod tls;
pub mod tun;
pub mod udp;

/// Largest header section taken from a peer, in bytes (SETTINGS_MAX_FIELD_SECTION_SIZE).
pub const MAX_FIELD_SECTION: u64 = 64 * 1024;

pub use buffers::{DatagramBuf, HEADROOM};
pub use carrier::Carrier;
pub use connection::{Closed, Connection, DatagramError, Event, StreamError};
pub use endpoint::{
    App, ConnId, DoorLimits, DoorStats, Endpoint, EndpointConfig, EndpointError, Foreign, Source,
};
pub use padding::pad_answer;
pub use quiche::h3::{Header, NameValue};
pub use quiche::{Config as QuicConfig, Stats as QuicStats};
