//! `[limits]`: what those may ask for who have shown nothing yet.

use bauta_masque_io::DoorLimits;
use bauta_masque_io::tcp::TcpLimits;
use serde::Deserialize;

use super::Span;

/// Bounds on strangers. Over QUIC they are a worker's, over TCP the gateway's.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// QUIC connections begun in a second before addresses have to be proven (Retry).
    pub free_handshakes: u32,
    /// QUIC handshakes under way before addresses have to be proven.
    pub retry_above: usize,
    /// QUIC handshakes under way at most.
    pub handshakes: usize,
    /// QUIC connections begun in a second by all.
    pub handshakes_per_second: u32,
    /// And by one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub source_per_second: u32,
    /// Connections one source may hold, over QUIC a worker, over TCP in all.
    pub source_connections: u32,
    /// Answers in a second that no connection stands behind: Retry and version negotiation.
    pub answers_per_second: u32,
    /// TCP connections at once.
    pub tcp_connections: usize,
    /// Time for a handshake, over QUIC and TLS.
    pub handshake_timeout: Span,
    /// Time for the head of an HTTP/1.1 request, and for the first request over HTTP/2.
    pub header_timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        let (door, tcp) = (DoorLimits::default(), TcpLimits::default());
        Self {
            free_handshakes: door.free_handshakes,
            retry_above: door.retry_above,
            handshakes: door.max_handshakes,
            handshakes_per_second: door.handshakes_per_second,
            source_per_second: door.source_per_second,
            source_connections: door.source_connections,
            answers_per_second: door.answers_per_second,
            tcp_connections: tcp.max_connections,
            handshake_timeout: Span(door.handshake_timeout),
            header_timeout: Span(tcp.header_timeout),
        }
    }
}

impl Limits {
    /// For a worker's endpoint.
    pub fn door(&self) -> DoorLimits {
        DoorLimits {
            free_handshakes: self.free_handshakes,
            retry_above: self.retry_above,
            max_handshakes: self.handshakes,
            handshakes_per_second: self.handshakes_per_second,
            source_per_second: self.source_per_second,
            source_connections: self.source_connections,
            handshake_timeout: self.handshake_timeout.0,
            answers_per_second: self.answers_per_second,
        }
    }

    /// For the TCP side.
    pub fn tcp(&self) -> TcpLimits {
        TcpLimits {
            max_connections: self.tcp_connections,
            max_per_source: self.source_connections as usize,
            handshake_timeout: self.handshake_timeout.0,
            header_timeout: self.header_timeout.0,
            ..TcpLimits::default()
        }
    }

    /// The first field out of range.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        let fields = [
            ("handshakes", self.handshakes as u64),
            ("handshakes_per_second", self.handshakes_per_second.into()),
            ("source_per_second", self.source_per_second.into()),
            ("source_connections", self.source_connections.into()),
            ("tcp_connections", self.tcp_connections as u64),
            ("handshake_timeout", self.handshake_timeout.0.as_millis() as u64),
            ("header_timeout", self.header_timeout.0.as_millis() as u64),
        ];
        let (field, _) = fields.into_iter().find(|(_, value)| *value == 0)?;
        Some((field, format!("{field} must be more than 0, or nobody gets in")))
    }
}
