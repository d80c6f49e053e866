//! A reverse proxy for one HTTP/1.1 server: bodies and trailers stream both ways, connections are
//! kept alive and shared, and a client that goes away takes its upstream request with it.
//!
//! A request's trailers reach the upstream if its header announced them in `Trailer`: HTTP/1.1 wants
//! it so, HTTP/2 and HTTP/3 do not. WebSocket passes over HTTP/1.1 alone, not over extended CONNECT.

mod body;
mod headers;

#[cfg(test)]
mod tests;

use crate::{Body, ClientAddr, SiteError, Timeouts, page};
use body::{Patient, Progress};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, Scheme},
};
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use std::{error::Error as _, io, pin::pin, time::Duration};
use tokio::time::timeout;

/// Connections kept for later requests, and for how long.
const IDLE_CONNECTIONS: usize = 64;
const IDLE_TIME: Duration = Duration::from_secs(30);

/// The way to another server.
pub(crate) struct Upstream {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    /// What every path begins with there; without a final slash.
    prefix: String,
    preserve_host: bool,
    forwarded: bool,
    timeouts: Timeouts,
}

impl Upstream {
    pub(crate) fn new(
        url: &str,
        preserve_host: bool,
        forwarded: bool,
        timeouts: Timeouts,
    ) -> Result<Self, SiteError> {
        let wrong = |reason: &str| SiteError::Upstream { url: url.into(), reason: reason.into() };
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            return Err(wrong(
                "https is not supported; give an http:// address on this machine or a network you \
                 trust",
            ));
        }
        let authority = match uri.authority() {
            Some(authority) if uri.scheme() == Some(&Scheme::HTTP) => authority.clone(),
            _ => return Err(wrong("expected http://host[:port][/prefix]")),
        };
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong("neither a user nor a query has a meaning here; remove it"));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeouts.connect));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { client, authority, prefix, preserve_host, forwarded, timeouts })
    }

    /// Passes a request on and its answer back; 502 and 504 when there is none.
    pub(crate) async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let Some(target) = self.target(request.uri()) else {
            page::discard(request.into_body());
            return page::plain(StatusCode::NOT_FOUND);
        };
        let connect = request.method() == Method::CONNECT;
        if connect {
            page::discard(std::mem::take(request.body_mut()));
            request.headers_mut().remove(header::CONTENT_LENGTH);
            *request.method_mut() = Method::GET;
        }
        // A protocol switch is end to end: only WebSocket's is passed on.
        let switch = headers::wants_websocket(&request).then(|| upgrade::on(&mut request));
        self.rewrite(&mut request, target, switch.is_some());
        match self.exchange(request).await {
            Ok(response) if connect && response.status().is_success() => page::method_not_allowed(),
            Ok(response) => self.passed(response, switch),
            Err(status) => page::plain(status),
        }
    }

    /// The resource there: `None` for the authority form, for `*`, and for paths that would climb
    /// out of the prefix.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path_and_query().filter(|path| path.as_str().starts_with('/'))?;
        let climbs = |segment: &str| segment.to_ascii_lowercase().replace("%2e", ".") == "..";
        if !self.prefix.is_empty() && path.path().split(['/', '\\']).any(climbs) {
            return None;
        }
        Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.prefix))
            .build()
            .ok()
    }

    /// Turns a client's request into one of ours.
    fn rewrite(&self, request: &mut Request<Body>, target: Uri, switch: bool) {
        let host = match request.uri().authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => request.headers().get(header::HOST).cloned(),
        };
        let client = request.extensions().get().copied().filter(|_| self.forwarded);
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        *request.extensions_mut() = http::Extensions::new();
        let fields = request.headers_mut();
        headers::to_upstream(fields, switch);
        if self.forwarded {
            headers::forwarded(fields, host.as_ref(), client.map(|ClientAddr(address)| address));
        }
        fields.remove(header::HOST);
        if let Some(host) = host
            && self.preserve_host
        {
            fields.insert(header::HOST, host);
        }
    }

    /// Sends a request and waits for the head of its answer, as long as the request's body moves.
    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>, StatusCode> {
        let (request, progress) = Progress::watch(request);
        let mut answer = pin!(self.client.request(request));
        let mut seen = 0;
        loop {
            match timeout(self.timeouts.header, &mut answer).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => return Err(gateway_error(&error)),
                Err(_) if progress.count() == seen => return Err(StatusCode::GATEWAY_TIMEOUT),
                Err(_) => seen = progress.count(),
            }
        }
    }

    /// Turns the upstream's answer into one of ours.
    fn passed(&self, mut response: Response<Incoming>, ours: Option<OnUpgrade>) -> Response<Body> {
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A switch nobody asked for, and a demand only a proxy may make.
        if (switching && ours.is_none())
            || response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            return page::plain(StatusCode::BAD_GATEWAY);
        }
        if let Some(ours) = ours
            && switching
        {
            tokio::spawn(join(ours, upgrade::on(&mut response)));
        }
        let (mut parts, body) = response.into_parts();
        headers::from_upstream(&mut parts.headers, switching);
        parts.version = Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        Response::from_parts(parts, Body::new(Patient::new(body, self.timeouts.idle)))
    }
}

/// Carries octets between two switched connections until both directions have ended.
async fn join(ours: OnUpgrade, theirs: OnUpgrade) {
    if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
        // Either side may end as it likes.
        let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
    }
}

/// 504 for an upstream that did not accept a connection in time, 502 for all else.
fn gateway_error(error: &Error) -> StatusCode {
    tracing::debug!(%error, cause = error.source(), "the upstream did not answer");
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::TimedOut) {
            return StatusCode::GATEWAY_TIMEOUT;
        }
        cause = error.source();
    }
    StatusCode::BAD_GATEWAY
}
