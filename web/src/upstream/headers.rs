//! What a reverse proxy takes out of headers, and what it puts in.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{self, AsHeaderName},
};
use std::net::IpAddr;

/// Fields that concern one connection (RFC 9110 §7.6.1), and those meant for a proxy.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Fields in which a client may not speak of itself.
const CLAIMS: [HeaderName; 6] = [
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-real-ip"),
];

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Whether a client asks to switch its HTTP/1.1 connection to WebSocket (RFC 6455 §4.1).
pub(super) fn wants_websocket<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && lists(request.headers(), header::CONNECTION, "upgrade")
        && lists(request.headers(), header::UPGRADE, "websocket")
}

/// Makes a client's header one for the upstream.
pub(super) fn to_upstream(headers: &mut HeaderMap, switch: bool) {
    let trailers = lists(headers, header::TE, "trailers");
    strip(headers);
    // Whoever is in front answers it; the client is told to go on when its body is first read.
    headers.remove(header::EXPECT);
    for name in CLAIMS {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if switch {
        headers.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
    }
    // HTTP/2 and HTTP/3 split cookies; HTTP/1.1 has one field (RFC 9113 §8.2.3).
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().map(|c| c.as_bytes()).collect();
    if cookies.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Makes an upstream's header one for a client.
pub(super) fn from_upstream(headers: &mut HeaderMap, switching: bool) {
    strip(headers);
    // Where else this site can be reached is not the upstream's to say, and there is no proxy.
    headers.remove(header::ALT_SVC);
    headers.remove("proxy-status");
    if switching {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, WEBSOCKET);
    }
}

/// Tells the upstream of the client.
pub(super) fn forwarded(headers: &mut HeaderMap, host: Option<&HeaderValue>, from: Option<IpAddr>) {
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if let Some(from) = from.and_then(|address| HeaderValue::try_from(address.to_string()).ok()) {
        headers.insert(X_FORWARDED_FOR, from);
    }
}

/// Removes what was meant for the neighbour alone, by its own word or by custom.
fn strip(headers: &mut HeaderMap) {
    for name in tokens(headers, header::CONNECTION) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn lists(headers: &HeaderMap, name: impl AsHeaderName, token: &str) -> bool {
    tokens(headers, name).contains(&token.to_owned())
}

/// The members of a comma-separated list, in lower case, without parameters.
fn tokens(headers: &HeaderMap, name: impl AsHeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let members = values.flat_map(|value| value.split(','));
    let bare = members.map(|member| member.split(';').next().unwrap_or_default());
    bare.map(|member| member.trim().to_ascii_lowercase()).collect()
}
