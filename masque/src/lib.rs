//! MASQUE as pure data: the wire elements of RFC 9297, 9298 and 9484, the IP side of a tunnel, and
//! the two kinds of session, without sockets, clocks, threads or randomness of their own.
//!
//! # Mutate, then drain
//!
//! Everything with state follows one contract. `handle_*(now, …)` changes the state; afterwards
//! the caller drains `poll_event` and `poll_transmit` until they are empty and reads
//! `poll_timeout`, at which it calls `handle_timeout(now)`. Time is an argument, so that an hour
//! of a session runs in a moment of test.
//!
//! Outcomes are data: of a packet, [`connect_ip::Verdict`] says *forward*, *reply* with an ICMP
//! message or *drop* for a reason that is a metric. Only what a peer does to a stream that the RFCs
//! forbid is an error, and it carries the code to abort that stream with.
//!
//! Whatever a peer controls (lengths, counts, rates) is bounded by a named constant beside the
//! parser or by a field of the session's configuration.
#![forbid(unsafe_code)]

pub mod address;
pub mod bond;
pub mod capsule;
pub mod checksum;
pub mod concealed;
pub mod connect_ip;
pub mod connect_udp;
pub mod datagram;
pub mod dns;
pub mod filter;
pub mod fragment;
pub mod icmp;
pub mod packet;
pub mod proxy_status;
pub mod request;
pub mod route;
pub mod session;
pub mod shape;
pub mod template;
pub mod varint;

#[cfg(test)]
mod testing;

pub use capsule::encode_datagram_capsule;
