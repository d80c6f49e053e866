//! A client's way into tunnels over TCP: TLS, then extended CONNECT on HTTP/2 (RFC 8441) or an
//! upgrade on HTTP/1.1, whichever the server's ALPN chooses, and classic CONNECT on either.

mod requests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bauta_masque::concealed::EXPORTED;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quiche::h3::{Header, NameValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Version;
use crate::concealed::Export;
use requests::Driver;
pub use requests::Requests;

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
    /// The upgrade token, `connect-ip` for instance; `None` for classic CONNECT (RFC 9110 §9.3.6).
    pub protocol: Option<&'static str>,
    /// Host and, unless it is 443, port; the target's, always with its port, for classic CONNECT.
    pub authority: String,
    /// Path and query; empty for classic CONNECT.
    pub path: String,
    /// Further fields.
    pub fields: HeaderMap,
}

impl TunnelRequest {
    /// The request of an HTTP/3 header list. HTTP/1.1's upgrade token is `protocol`.
    ///
    /// # Errors
    /// A field that is none.
    pub fn new(protocol: Option<&'static str>, list: &[Header]) -> Result<Self, http::Error> {
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

/// A tunnel's stream. The connection ends with the last of them, and its [`Requests`].
pub struct TunnelStream {
    io: TokioIo<Upgraded>,
    _connection: Arc<Driver>,
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

    /// Begins HTTP.
    ///
    /// # Errors
    /// HTTP's.
    pub async fn begin(self) -> Result<Requests, TcpError> {
        Requests::new(self.stream, self.version).await
    }

    /// Asks for one tunnel, for which the connection is alone.
    ///
    /// # Errors
    /// HTTP's, before an answer came.
    pub async fn ask(self, request: &TunnelRequest) -> Result<Answer, TcpError> {
        self.begin().await?.ask(request).await
    }
}

impl Export for Dialled {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        self.stream.export(context)
    }
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
