//! HTTP on a connection over TCP: any number of tunnels on HTTP/2, one on HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use bauta_masque::concealed::EXPORTED;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version as HttpVersion};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::upgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_boring::SslStream;

use super::{Answer, TcpError, TunnelRequest, TunnelStream, Version};
use crate::concealed::Export;
use crate::tcp::exporter::{Exporter, Shared};
use crate::tls::browser::chromium;

/// A connection's window before it is opened further (RFC 9113 §6.9.2), bytes.
const FIRST_WINDOW: u32 = 65_535;
/// Silence after which the server is pinged on HTTP/2.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Time for its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the server's SETTINGS.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(5);
/// How often they are looked for.
const SETTINGS_STEP: Duration = Duration::from_millis(2);

/// The task that moves a connection on.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Sender {
    /// And whether the server's SETTINGS allow extended CONNECT.
    Http2(http2::SendRequest<Empty<Bytes>>, watch::Receiver<bool>),
    Http1(http1::SendRequest<Empty<Bytes>>),
}

/// A connection on which tunnels are asked for. It lives as long as this or one of the streams.
pub struct Requests {
    sender: Sender,
    exporter: Exporter<SslStream<TcpStream>>,
    driver: Arc<Driver>,
}

impl Requests {
    pub(super) async fn new(
        stream: SslStream<TcpStream>,
        version: Version,
    ) -> Result<Self, TcpError> {
        let stream = Shared::new(stream);
        let exporter = stream.exporter();
        let io = TokioIo::new(stream);
        let (sender, driver) = match version {
            Version::Http2 => {
                let (send, connection) = browser_like()?.handshake(io).await?;
                let (tell, allowed) = watch::channel(false);
                (Sender::Http2(send, allowed), drive(watched(connection, tell)))
            }
            Version::Http1 => {
                let (send, connection) = http1::handshake(io).await?;
                (Sender::Http1(send), drive(connection.with_upgrades()))
            }
        };
        Ok(Self { sender, exporter, driver: Arc::new(driver) })
    }

    /// Which HTTP it speaks.
    pub fn version(&self) -> Version {
        match self.sender {
            Sender::Http2(..) => Version::Http2,
            Sender::Http1(_) => Version::Http1,
        }
    }

    /// Whether no more can be asked.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http2(send, _) => send.is_closed(),
            Sender::Http1(send) => send.is_closed(),
        }
    }

    /// Another handle to the same connection, for a request beside others; HTTP/1.1 has none.
    pub fn another(&self) -> Option<Self> {
        let Sender::Http2(send, allowed) = &self.sender else { return None };
        let sender = Sender::Http2(send.clone(), allowed.clone());
        Some(Self { sender, exporter: self.exporter.clone(), driver: self.driver.clone() })
    }

    /// Waits until the server allows extended CONNECT, which HTTP/1.1 does without.
    ///
    /// # Errors
    /// It does not.
    pub async fn extended_connect(&mut self) -> Result<(), TcpError> {
        let Sender::Http2(_, allowed) = &mut self.sender else { return Ok(()) };
        match tokio::time::timeout(SETTINGS_PATIENCE, allowed.wait_for(|allowed| *allowed)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(TcpError::NoExtendedConnect),
        }
    }

    /// Asks for a tunnel.
    ///
    /// # Errors
    /// HTTP's, before an answer came.
    pub async fn ask(mut self, request: &TunnelRequest) -> Result<Answer, TcpError> {
        if request.protocol.is_some() {
            self.extended_connect().await?;
        }
        let asked = match self.version() {
            Version::Http2 => over_http2(request)?,
            Version::Http1 => over_http1(request)?,
        };
        let upgrades = self.version() == Version::Http1 && request.protocol.is_some();
        let mut response = match &mut self.sender {
            Sender::Http2(send, _) => send.send_request(asked).await?,
            Sender::Http1(send) => send.send_request(asked).await?,
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let accepted = match upgrades {
            true => status == StatusCode::SWITCHING_PROTOCOLS,
            false => status.is_success(),
        };
        let stream = if accepted {
            let io = TokioIo::new(upgrade::on(&mut response).await?);
            Some(TunnelStream { io, _connection: self.driver })
        } else {
            None
        };
        Ok(Answer { status, headers, stream })
    }
}

impl Export for Requests {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        self.exporter.export(context)
    }
}

/// HTTP/2 that begins as the captured browser does.
fn browser_like() -> Result<http2::Builder<TokioExecutor>, TcpError> {
    let first = &chromium()?.tcp.http2;
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_frame_size(None)
        .initial_connection_window_size(FIRST_WINDOW.saturating_add(first.window_update));
    for &(id, value) in &first.settings {
        match id {
            HEADER_TABLE_SIZE => http2.header_table_size(value),
            INITIAL_WINDOW_SIZE => http2.initial_stream_window_size(value),
            MAX_FRAME_SIZE => http2.max_frame_size(value),
            MAX_HEADER_LIST_SIZE => http2.max_header_list_size(value),
            // hyper switches pushes off by itself, and has no say in the rest.
            _ => &mut http2,
        };
    }
    Ok(http2)
}

// RFC 9113 §6.5.2.
const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

fn over_http2(request: &TunnelRequest) -> Result<Request<Empty<Bytes>>, TcpError> {
    let uri = Uri::builder().authority(request.authority.as_str());
    let mut asked = Request::builder().method(Method::CONNECT).version(HttpVersion::HTTP_2);
    asked = match request.protocol {
        Some(protocol) => asked
            .uri(uri.scheme("https").path_and_query(request.path.as_str()).build()?)
            .extension(Protocol::from_static(protocol)),
        None => asked.uri(uri.build()?),
    };
    let mut asked = asked.body(Empty::new())?;
    asked.headers_mut().extend(request.fields.clone());
    Ok(asked)
}

fn over_http1(request: &TunnelRequest) -> Result<Request<Empty<Bytes>>, TcpError> {
    let asked = match request.protocol {
        Some(_) => Request::builder().uri(request.path.as_str()),
        None => Request::builder().method(Method::CONNECT).uri(request.authority.as_str()),
    };
    let mut asked = asked.body(Empty::new())?;
    let fields = asked.headers_mut();
    let host = HeaderValue::from_str(&request.authority).map_err(http::Error::from)?;
    fields.insert(HOST, host);
    if let Some(protocol) = request.protocol {
        fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static(protocol));
    }
    fields.extend(request.fields.clone());
    Ok(asked)
}

/// Tells when the server's SETTINGS allow extended CONNECT (RFC 8441 §4); hyper does not say when they come.
async fn watched(
    mut connection: http2::Connection<
        TokioIo<Shared<SslStream<TcpStream>>>,
        Empty<Bytes>,
        TokioExecutor,
    >,
    tell: watch::Sender<bool>,
) -> hyper::Result<()> {
    let mut look = tokio::time::interval(SETTINGS_STEP);
    let mut steps = SETTINGS_PATIENCE.as_millis() / SETTINGS_STEP.as_millis();
    let ended = loop {
        if steps == 0 || *tell.borrow() {
            break None;
        }
        tokio::select! {
            ended = &mut connection => break Some(ended),
            _ = look.tick() => steps -= 1,
        }
        if connection.is_extended_connect_protocol_enabled() {
            tell.send_replace(true);
        }
    };
    match ended {
        Some(ended) => ended,
        None => connection.await,
    }
}

fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Driver {
    Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP connection over TCP");
        }
    }))
}
