//! One connection, from the handshake to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::exporter::{Exporter, Shared};
use super::{Peer, SelectTls, Service, TcpLimits, Version};

/// So long a connection that has ended is read from, at most, and so many bytes.
const LINGER: Duration = Duration::from_secs(2);
const MAX_WASTE: usize = 1 << 20;

pub(super) async fn run<S, B>(
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<Arc<dyn SelectTls>>,
    limits: &TcpLimits,
    service: S,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Answers leave when they are written; hyper and rustls write in large pieces.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let (exporter, stream) = (Exporter::none(), Shared::new(stream));
        let peer = Peer { addr, version: Version::Http1, server_name: None, exporter };
        http(stream.share(), peer, limits, service, stopped.clone()).await;
        if let Some(stream) = stream.into_inner() {
            linger(stream, stopped).await;
        }
        return;
    };
    let handshake = tokio::time::timeout(limits.handshake_timeout, handshake(stream, &*tls));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return tracing::debug!(%addr, "TLS handshake: {e}"),
        Err(_) => return tracing::debug!(%addr, "TLS handshake: too slow"),
    };
    let session = stream.get_ref().1;
    let version = match session.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        None | Some(b"http/1.1") => Version::Http1,
        Some(_) => return,
    };
    let server_name = session.server_name().map(Arc::from);
    let stream = Shared::new(stream);
    let peer = Peer { addr, version, server_name, exporter: stream.exporter() };
    http(stream.share(), peer, limits, service, stopped.clone()).await;
    if let Some(mut stream) = stream.into_inner() {
        let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
        linger(stream.into_inner().0, stopped).await;
    }
}

/// Takes what the peer had under way before it learned that this is the end: a socket that is closed
/// over unread bytes takes back what was written last, the reason for the end (RFC 9112 section 9.6).
async fn linger(mut stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    let rest = async {
        let _ = stream.shutdown().await;
        let (mut waste, mut taken) = ([0; 4096], 0);
        while let Ok(n) = stream.read(&mut waste).await {
            taken += n;
            if n == 0 || taken > MAX_WASTE {
                break;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(LINGER, rest) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn handshake(
    stream: TcpStream,
    tls: &dyn SelectTls,
) -> std::io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = tls.select(&start.client_hello());
    start.into_stream(config).await
}

async fn http<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    limits: &TcpLimits,
    service: S,
    stopped: watch::Receiver<bool>,
) where
    S: Service<B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (addr, version) = (peer.addr, peer.version);
    let asked = Arc::new(AtomicBool::new(false));
    let mark = asked.clone();
    let answer = service_fn(move |request: Request<Incoming>| {
        mark.store(true, Relaxed);
        let answer = service(request, peer.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    let ended = match version {
        Version::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_header_size(limits.max_header_bytes as usize)
                .half_close(true)
                .serve_connection(stream, answer)
                .with_upgrades();
            drive(connection, stopped, |c| c.graceful_shutdown()).await
        }
        Version::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .enable_connect_protocol()
                .max_concurrent_streams(limits.max_streams)
                .max_pending_accept_reset_streams(limits.max_pending_resets)
                .max_header_list_size(limits.max_header_bytes)
                .initial_stream_window_size(limits.stream_window)
                .initial_connection_window_size(limits.connection_window)
                .keep_alive_interval(limits.ping_interval)
                .keep_alive_timeout(limits.ping_timeout)
                .serve_connection(stream, answer);
            let driven = drive(connection, stopped, |c| c.graceful_shutdown());
            tokio::select! {
                ended = driven => ended,
                () = unasked(&asked, limits.header_timeout) => {
                    return tracing::debug!(%addr, "no request over HTTP/2: too slow");
                }
            }
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%addr, "connection: {e}");
    }
}

/// Completes after `patience` if nothing was asked by then.
async fn unasked(asked: &AtomicBool, patience: Duration) {
    tokio::time::sleep(patience).await;
    if asked.load(Relaxed) {
        std::future::pending::<()>().await;
    }
}

/// Runs a connection to its end; `stopped` asks it to end soon.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    mut stopped: watch::Receiver<bool>,
    graceful: impl FnOnce(Pin<&mut C>),
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    graceful(connection.as_mut());
    connection.await
}
