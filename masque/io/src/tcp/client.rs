//! A client's way into a tunnel over TCP: TLS, then extended CONNECT on HTTP/2 (RFC 8441) or an
//! upgrade on HTTP/1.1, whichever the server's ALPN chooses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bauta_masque::concealed::{EXPORTED, LABEL};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version as HttpVersion,
};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::upgrade::{self, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quiche::h3::{Header, NameValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Version;
use crate::concealed::Export;

/// Bytes a server may send ahead on the stream: what a fast path of 100 ms holds.
const WINDOW: u32 = 4 << 20;
/// Silence after which the server is pinged on HTTP/2.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Time for its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the server's SETTINGS.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(5);
/// How often they are looked for.
const SETTINGS_STEP: Duration = Duration::from_millis(2);

/// What keeps a tunnel from being opened over TCP.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The name is none that TLS can check.
    #[error("`{0}` is no name of a server")]
    Name(String),
    /// TCP or TLS failed. A certificate that was refused is `InvalidData`.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// HTTP failed.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The request's fields are malformed.
    #[error("the request is malformed: {0}")]
    Request(#[from] http::Error),
    /// HTTP/2 without extended CONNECT.
    #[error("the server does not take extended CONNECT on HTTP/2 (RFC 8441)")]
    NoExtendedConnect,
}

/// The request that opens a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelRequest {
    /// The upgrade token, `connect-ip` for instance.
    pub protocol: &'static str,
    /// Host and, unless it is 443, port.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Further fields.
    pub fields: HeaderMap,
}

impl TunnelRequest {
    /// The request of an HTTP/3 header list. HTTP/1.1's upgrade token is `protocol`.
    ///
    /// # Errors
    /// A field that is none.
    pub fn new(protocol: &'static str, list: &[Header]) -> Result<Self, http::Error> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let (authority, path) = (String::new(), String::new());
        let mut request = Self { protocol, authority, path, fields: HeaderMap::new() };
        for field in list {
            match field.name() {
                b":authority" => request.authority = text(field.value()),
                b":path" => request.path = text(field.value()),
                [b':', ..] => {}
                name => {
                    let name = HeaderName::from_bytes(name)?;
                    request.fields.append(name, HeaderValue::from_bytes(field.value())?);
                }
            }
        }
        Ok(request)
    }
}

/// An answer, and the tunnel's bytes if it was accepted.
pub struct Answer {
    /// 200 on HTTP/2 and 101 on HTTP/1.1 are success.
    pub status: StatusCode,
    /// The fields that came with it.
    pub headers: HeaderMap,
    /// The stream of capsules.
    pub stream: Option<TunnelStream>,
}

/// A tunnel's stream. The connection ends with it.
pub struct TunnelStream {
    io: TokioIo<Upgraded>,
    _connection: Driver,
}

/// The task that moves a connection on.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection after its TLS handshake.
pub struct Dialled {
    stream: TlsStream<TcpStream>,
    version: Version,
}

impl Dialled {
    /// Does the TLS handshake as a client of `name`; `tls` offers `h2` and `http/1.1` by ALPN.
    ///
    /// # Errors
    /// The handshake's, or a name that cannot be checked.
    pub async fn new(tcp: TcpStream, name: &str, tls: Arc<ClientConfig>) -> Result<Self, TcpError> {
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|_| TcpError::Name(name.to_owned()))?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(server, tcp).await?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Version::Http2,
            _ => Version::Http1,
        };
        Ok(Self { stream, version })
    }

    /// Which HTTP was agreed on.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Asks for a tunnel.
    ///
    /// # Errors
    /// HTTP's, before an answer came.
    pub async fn ask(self, request: &TunnelRequest) -> Result<Answer, TcpError> {
        match self.version {
            Version::Http2 => ask_h2(self.stream, request).await,
            Version::Http1 => ask_h1(self.stream, request).await,
        }
    }
}

impl Export for Dialled {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        let tls = self.stream.get_ref().1;
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        tls.export_keying_material([0; EXPORTED], LABEL.as_bytes(), Some(context)).ok()
    }
}

async fn ask_h2(stream: TlsStream<TcpStream>, request: &TunnelRequest) -> Result<Answer, TcpError> {
    let (mut send, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await?;
    // RFC 8441 §4: not before the server's SETTINGS allow it. hyper does not say when they come.
    let (tell, allowed) = oneshot::channel();
    let driver = drive(async move {
        let mut tell = Some(tell);
        let mut look = tokio::time::interval(SETTINGS_STEP);
        loop {
            tokio::select! {
                ended = &mut connection => return ended,
                _ = look.tick(), if tell.is_some() => {}
            }
            if connection.is_extended_connect_protocol_enabled()
                && let Some(tell) = tell.take()
            {
                let _ = tell.send(());
            }
        }
    });
    match tokio::time::timeout(SETTINGS_PATIENCE, allowed).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(TcpError::NoExtendedConnect),
    }
    let uri = Uri::builder()
        .scheme("https")
        .authority(request.authority.as_str())
        .path_and_query(request.path.as_str())
        .build()?;
    let mut asked = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .version(HttpVersion::HTTP_2)
        .extension(Protocol::from_static(request.protocol))
        .body(Empty::<Bytes>::new())?;
    asked.headers_mut().extend(request.fields.clone());
    answer(send.send_request(asked).await?, driver, StatusCode::is_success).await
}

async fn ask_h1(stream: TlsStream<TcpStream>, request: &TunnelRequest) -> Result<Answer, TcpError> {
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = drive(connection.with_upgrades());
    let mut asked = Request::builder().uri(request.path.as_str()).body(Empty::<Bytes>::new())?;
    let fields = asked.headers_mut();
    let host = HeaderValue::from_str(&request.authority).map_err(http::Error::from)?;
    fields.insert(HOST, host);
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static(request.protocol));
    fields.extend(request.fields.clone());
    let accepted = |status: &StatusCode| *status == StatusCode::SWITCHING_PROTOCOLS;
    answer(send.send_request(asked).await?, driver, accepted).await
}

fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Driver {
    Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP connection over TCP");
        }
    }))
}

async fn answer<B>(
    mut response: http::Response<B>,
    driver: Driver,
    accepted: impl FnOnce(&StatusCode) -> bool,
) -> Result<Answer, TcpError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let stream = if accepted(&status) {
        let io = TokioIo::new(upgrade::on(&mut response).await?);
        Some(TunnelStream { io, _connection: driver })
    } else {
        None
    };
    Ok(Answer { status, headers, stream })
}

impl TunnelStream {
    /// Its two directions. The connection lives until both are dropped.
    pub fn split(self) -> (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin) {
        tokio::io::split(self)
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
