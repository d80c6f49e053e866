//! A client's way into tunnels over TCP: TLS, then extended CONNECT on HTTP/2 (RFC 8441) or an
//! upgrade on HTTP/1.1, whichever the server's ALPN chooses, and classic CONNECT on either.

mod requests;

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bauta_masque::concealed::EXPORTED;
use boring::error::ErrorStack;
use boring::ssl::SslRef;
use boring::x509::X509VerifyError;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quiche::h3::{Header, NameValue};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_boring::{HandshakeError, SslStream, SslStreamBuilder};

use super::Version;
use crate::concealed::Export;
use crate::tls::{TcpTls, TlsError};
use requests::Driver;
pub use requests::Requests;

/// What keeps a tunnel from being opened over TCP.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// The name is none that TLS can check.
    #[error("`{0}` is no name of a server")]
    Name(String),
    /// TLS refused a setting.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    stream: SslStream<TcpStream>,
    version: Version,
}

impl Dialled {
    /// Does the TLS handshake as a client of `name`, a DNS name or an IP address.
    ///
    /// # Errors
    /// The handshake's, or a name that cannot be checked.
    pub async fn new(tcp: TcpStream, name: &str, tls: &TcpTls) -> Result<Self, TcpError> {
        ServerName::try_from(name).map_err(|_| TcpError::Name(name.to_owned()))?;
        tcp.set_nodelay(true)?;
        let stream = SslStreamBuilder::new(tls.begin(name)?, tcp).connect().await;
        let stream = stream.map_err(|e| refused(&e))?;
        let version = match stream.ssl().selected_alpn_protocol() {
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

/// Why a handshake failed.
fn refused(e: &HandshakeError<TcpStream>) -> io::Error {
    if let Some(e) = e.as_io_error() {
        return io::Error::new(e.kind(), e.to_string());
    }
    let cause = e.source().and_then(|e| e.downcast_ref::<boring::ssl::Error>());
    let reasons = cause.and_then(boring::ssl::Error::ssl_error).map_or(&[][..], ErrorStack::errors);
    if reasons.iter().all(|e| e.reason() != Some("CERTIFICATE_VERIFY_FAILED")) {
        return io::Error::other(e.to_string());
    }
    let why = match e.ssl().map(SslRef::verify_result) {
        // Nothing was verified but the key.
        None | Some(Ok(()) | Err(X509VerifyError::INVALID_CALL)) => "its key is not the pinned one",
        Some(Err(why)) => why.error_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, why)
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

#[cfg(test)]
mod tests;
