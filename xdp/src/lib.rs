//! UDP ingress by AF_XDP, beside an ordinary UDP socket that stays open.
//!
//! ```text
//!            ┌ our UDP port, whole, ≤ 1,518 bytes ─▶ receive ring of the queue ─▶ worker
//! interface ─┤ XDP program
//!            └ everything else ────────────────────▶ kernel ─▶ ARP, ping, TCP, the UDP socket
//! ```
//!
//! [`open`] attaches the program and binds one ring per receive queue, in native mode or else in
//! SKB mode, and reports each step as data. A worker waits for its [`AsyncRing`], calls
//! [`RxRing::poll_batch`] and hands each frame to [`Datagram::parse`]. It sends
//! by its UDP socket, and keeps receiving there: what the program passes arrives at that socket.
//!
//! Everything is undone when the values are dropped, or when the process dies.
#![deny(unsafe_code)]

mod error;
mod filter;
mod ingress;
mod parse;
mod ring;

#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod steering;
#[cfg(target_os = "linux")]
mod sys;

#[cfg(any(not(target_os = "linux"), test))]
mod stub;

pub use error::{Error, Result};
pub use filter::{Filter, FilterError, MAX_LISTENERS};
pub use ingress::{FASTEST_FIRST, Ingress, Mode, Opened, Stage, Step};
pub use parse::{Datagram, Refused};
pub use ring::{BATCH, FRAME_COUNT, FRAME_SIZE, MAX_FRAME, RX_RING_SIZE, RingStats, RxRing};

#[cfg(target_os = "linux")]
pub use {
    ingress::open,
    load::{Attachment, queue_count},
    ring::{AsyncRing, XskRing},
    steering::{MAX_STEERED, Steering},
};

#[cfg(not(target_os = "linux"))]
pub use stub::{AsyncRing, Attachment, Steering, XskRing, open, queue_count};
