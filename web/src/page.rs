//! Small pages for answers that have no file, and the end of bodies nobody reads.

use crate::Body;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::time::Duration;

/// Octets of an unwanted request body that are read away, so that a client still sending sees the
/// answer and not a reset.
const DISCARD_BYTES: usize = 256 * 1024;
/// For how long they are waited for.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A page that says the status and no more.
pub(crate) fn plain(status: StatusCode) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{code} {reason}</title>\n\
         <body style=\"margin:20vh auto;max-width:32rem;padding:0 1rem;font-family:Georgia,serif;\
         color:#2b2622;background:#faf7f2\">\n<h1>{reason}</h1>\n<p>Error {code}</p>\n</html>\n",
        code = status.as_u16(),
    );
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, html.len().into());
    *response.body_mut() = Body::from(html);
    response
}

/// The answer to a method a static resource does not know (RFC 9110 §15.5.6).
pub(crate) fn method_not_allowed() -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Reads a body away beside the answer, within bounds.
pub(crate) fn discard(mut body: Body) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(DISCARD_TIME, async move {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    }));
}
