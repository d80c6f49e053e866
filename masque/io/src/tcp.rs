//! HTTP/1.1 and HTTP/2 over TLS on TCP, and HTTP/1.1 in the clear for redirects.
//!
//! Every request reaches one service, as it is: plain CONNECT, extended CONNECT (its `:protocol` is
//! the extension [`hyper::ext::Protocol`]) and HTTP/1.1 upgrades carry [`hyper::upgrade`].

mod accept;
pub mod client;
mod connection;
mod exporter;
pub mod road;

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

pub use exporter::Exporter;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// What one peer may claim. Everything a stranger can send is bounded by one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpLimits {
    /// Connections at once; more wait in the kernel's backlog. An HTTP/1.1 connection that was
    /// upgraded no longer counts.
    pub max_connections: usize,
    /// Connections at once from one source, an IPv4 address or an IPv6 network of 64 bits; more are
    /// closed as they come.
    pub max_per_source: usize,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time for the head of a request on HTTP/1.1, which is also how long an idle one is kept; and
    /// for the first request over HTTP/2, where pings find the dead ones later.
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    pub max_header_bytes: u32,
    /// Requests at once on an HTTP/2 connection.
    pub max_streams: u32,
    /// Streams reset by the peer before they were looked at; more end the connection
    /// (rapid reset, CVE-2023-44487).
    pub max_pending_resets: usize,
    /// Silence after which an HTTP/2 connection is pinged.
    pub ping_interval: Duration,
    /// Time for the answer to a ping.
    pub ping_timeout: Duration,
    /// Bytes a peer may send ahead on one HTTP/2 stream.
    pub stream_window: u32,
    /// Bytes a peer may send ahead on an HTTP/2 connection.
    pub connection_window: u32,
    /// Time for requests to end at shutdown.
    pub drain_timeout: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_source: 2048,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 64 << 10,
            max_streams: 250,
            max_pending_resets: 32,
            ping_interval: Duration::from_secs(45),
            ping_timeout: Duration::from_secs(20),
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address of the other end; IPv4 is never shown as IPv4-mapped.
    pub addr: SocketAddr,
    /// What ALPN chose.
    pub version: Version,
    /// The name the client asked for in TLS; `None` without TLS or name.
    pub server_name: Option<Arc<str>>,
    /// The TLS exporter of the connection.
    pub exporter: Exporter,
}

/// Answers requests; cloned for each connection.
pub trait Service<B>: Fn(Request<Incoming>, Peer) -> Self::Answer + Clone + Send + 'static {
    /// The answer to come.
    type Answer: Future<Output = Response<B>> + Send + 'static;
}

impl<B, F, A> Service<B> for F
where
    F: Fn(Request<Incoming>, Peer) -> A + Clone + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
{
    type Answer = A;
}

/// Chooses the TLS settings of a connection by its ClientHello: how an ACME challenge
/// (`acme-tls/1`) gets another certificate than the site. A connection that agreed on any protocol
/// but HTTP is closed after the handshake.
pub trait SelectTls: Send + Sync + 'static {
    /// The settings for this client.
    fn select(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig>;
}

impl SelectTls for Arc<ServerConfig> {
    fn select(&self, _: &ClientHello<'_>) -> Self {
        self.clone()
    }
}

/// Listens on `addr`; `[::]` takes both families. With `reuse_port` several listeners of the same
/// user share the port.
///
/// # Errors
/// The address and the cause, with what to do where that is known.
pub fn listen(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let attempt = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Connections of a predecessor that are still in TIME-WAIT do not keep the port.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    attempt().map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => ": the port is in use by another program; stop it (`ss -tlnp` names it) or choose another port",
            io::ErrorKind::AddrNotAvailable => ": no interface has this address",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need CAP_NET_BIND_SERVICE",
            _ => "",
        };
        io::Error::new(e.kind(), format!("TCP listener {addr}{hint} ({e})"))
    })
}

/// Serves HTTP/2 and HTTP/1.1, as ALPN chooses, until `shutdown` completes; then no connection is
/// accepted any more, requests in progress end, and at the latest after
/// [`drain_timeout`](TcpLimits::drain_timeout) this returns.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Arc<dyn SelectTls>,
    limits: TcpLimits,
    service: S,
    shutdown: impl Future<Output = ()> + Send,
) where
    S: Service<B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    accept::run(listener, Some(tls), limits, service, shutdown).await;
}

/// Serves HTTP/1.1 without TLS, for redirects and ACME's HTTP challenge; otherwise as [`serve`].
pub async fn serve_plain<S, B>(
    listener: TcpListener,
    limits: TcpLimits,
    service: S,
    shutdown: impl Future<Output = ()> + Send,
) where
    S: Service<B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    accept::run(listener, None, limits, service, shutdown).await;
}

#[cfg(test)]
mod tests;
