//! The website over HTTP/3.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Instant;

use bauta_masque::concealed::EXPORT_FIELD;
use bauta_masque::datagram::H3_INTERNAL_ERROR;
use bauta_masque::shape::PADDING;
use bauta_masque_io::{Header, NameValue, clock};
use bauta_web::{Body, ClientAddr, Site};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body::Body as _;

use super::What;
use super::pipe::Ends;
use crate::one_time;

/// Fields that belong to a connection, which HTTP/3 has none of (RFC 9114 §4.2).
const HOP_BY_HOP: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A request as the site takes it, without its body; `None` if it is malformed (RFC 9114 §4.3.1).
pub(crate) fn request(headers: &[Header], from: Option<std::net::IpAddr>) -> Option<Request<()>> {
    let (mut method, mut scheme, mut authority, mut path) = (None, None, None, None);
    let mut fields = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let (name, value) = (header.name(), header.value());
        let slot = match name {
            b":method" => &mut method,
            b":scheme" => &mut scheme,
            b":authority" => &mut authority,
            b":path" => &mut path,
            b":protocol" => continue,
            // Only servers may say such a thing, to each other (RFC 9729 §6.2).
            _ if name == EXPORT_FIELD.as_bytes() => continue,
            // Means nothing, to the site as little as to anybody.
            _ if name == PADDING.as_bytes() => continue,
            _ => {
                let malformed = name.iter().any(u8::is_ascii_uppercase)
                    || HOP_BY_HOP.iter().any(|hop| hop.as_bytes() == name);
                if malformed {
                    return None;
                }
                let name = HeaderName::from_lowercase(name).ok()?;
                fields.append(name, HeaderValue::from_bytes(value).ok()?);
                continue;
            }
        };
        // Pseudo-header fields come once, and before all others.
        if slot.is_some() || !fields.is_empty() {
            return None;
        }
        *slot = Some(value);
    }
    let method = Method::from_bytes(method?).ok()?;
    let host = authority.or_else(|| fields.get("host").map(HeaderValue::as_bytes))?;
    let uri = match (scheme, path) {
        (Some(scheme), Some(path)) if !path.is_empty() => {
            let builder = Uri::builder().scheme(scheme).authority(host).path_and_query(path);
            builder.build().ok()?
        }
        // Plain CONNECT has neither (RFC 9114 §4.4).
        (None, None) if method == Method::CONNECT => Uri::try_from(host).ok()?,
        _ => return None,
    };
    if let Ok(host) = HeaderValue::from_bytes(host) {
        fields.entry("host").or_insert(host);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_3;
    *request.headers_mut() = fields;
    if let Some(from) = from {
        request.extensions_mut().insert(ClientAddr(from));
    }
    Some(request)
}

/// Asks the site and sends its answer to a request that came at `arrived`.
pub(crate) async fn answer(
    site: Site,
    request: Request<()>,
    has_body: bool,
    arrived: Instant,
    ends: Ends,
) {
    let Ends { inbox, outbox } = ends;
    let head_only = request.method() == Method::HEAD;
    let request = request.map(|()| if has_body { Body::new(inbox) } else { Body::empty() });
    let (parts, mut body) = site.answer(request).await.into_parts();
    if parts.status.is_client_error() || parts.status.is_server_error() {
        outbox.tell(What::Failure);
        one_time::turn(arrived).await;
    }
    let bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let ended = head_only || bodiless || body.is_end_stream();
    outbox.tell(What::Head(response(parts.status, &parts.headers), ended));
    if ended {
        return;
    }
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return outbox.tell(What::End),
            Some(Err(error)) => {
                tracing::debug!(%error, "a body of the site broke off");
                return outbox.tell(What::Abort(H3_INTERNAL_ERROR));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => outbox.send(data).await,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return outbox.tell(What::Trailers(fields(&trailers)));
                    }
                }
            },
        }
    }
}

fn response(status: StatusCode, headers: &HeaderMap) -> Vec<Header> {
    let mut list = vec![Header::new(b":status", status.as_str().as_bytes())];
    list.extend(fields(headers));
    if !headers.contains_key("date") {
        let now = httpdate::fmt_http_date(clock::unix_time());
        list.push(Header::new(b"date", now.as_bytes()));
    }
    list
}

fn fields(headers: &HeaderMap) -> Vec<Header> {
    let kept = headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
    kept.map(|(name, value)| Header::new(name.as_str().as_bytes(), value.as_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[(&str, &str)]) -> Option<Request<()>> {
        let header = |(name, value): &(&str, &str)| Header::new(name.as_bytes(), value.as_bytes());
        request(&list.iter().map(header).collect::<Vec<_>>(), None)
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "https"), (":authority", "a.org"), (":path", "/x?y")];

    #[test]
    fn a_request_is_taken_whole() {
        let request = parse(&[&GET[..], &[("accept", "a"), ("accept", "b")]].concat()).unwrap();
        assert_eq!(request.uri(), "https://a.org/x?y");
        assert_eq!(request.headers().get_all("accept").iter().count(), 2);
        assert_eq!(request.headers()["host"], "a.org");
        let connect = parse(&[(":method", "CONNECT"), (":authority", "b.org:443")]).unwrap();
        assert_eq!(connect.uri(), "b.org:443");
    }

    #[test]
    fn malformed_requests_are_none() {
        assert!(parse(&GET[..3]).is_none(), "no path");
        assert!(parse(&[&GET[..], &GET[..1]].concat()).is_none(), "method twice");
        assert!(parse(&[&GET[..], &[("connection", "close")]].concat()).is_none());
        assert!(parse(&[&GET[..], &[("Accept", "a")]].concat()).is_none());
        assert!(parse(&[&[("accept", "a")], &GET[..]].concat()).is_none(), "pseudo after field");
        assert!(parse(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]).is_none());
    }

    #[test]
    fn a_response_has_a_date_and_no_connection_fields() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close"));
        headers.insert("etag", HeaderValue::from_static("\"1\""));
        let list = response(StatusCode::OK, &headers);
        let names: Vec<_> = list.iter().map(NameValue::name).collect();
        assert_eq!(names, [&b":status"[..], b"etag", b"date"]);
    }
}
