//! Load for the benches.
//!
//! | module | program | what it is |
//! | --- | --- | --- |
//! | [`packets`] | `bauta-packets` | sends UDP as QUIC would, in trains and within a window, and counts what arrives |
//! | [`fleet`] | `bauta-load` | one process that holds thousands of CONNECT-IP sessions |
//! | [`handshake`] | `bauta-load` | what TLS alone costs a server |
#![forbid(unsafe_code)]

pub mod fleet;
pub mod handshake;
pub mod packets;
