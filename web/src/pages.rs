//! Static sites: one behaviour, whether the files are built in or in a folder.
//!
//! `tower-http`'s `ServeDir` finds files, cuts ranges and evaluates conditions; `Compression`
//! squeezes what has no precompressed neighbour. Here is what they leave out: `If-Range`, methods,
//! the site's own 404 page, answers to HEAD equal to those to GET, and validators of bodies that
//! were compressed on the way.

mod at_hand;
mod folder;
mod kept;
mod open;
mod sample;

#[cfg(test)]
mod tests;

pub(crate) use folder::Folder;
pub(crate) use sample::Sample;

use crate::{Body, page};
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, HeaderName},
    request::Parts,
};
use kept::{Kept, Notes};
use tower::ServiceExt;
use tower_http::{
    CompressionLevel,
    compression::Compression,
    services::{
        ServeDir,
        fs::{Backend, DefaultServeDirFallback},
    },
};

/// Request headers that change what is sent of a file.
const SELECTING: [HeaderName; 7] = [
    header::ACCEPT_ENCODING,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];
/// Shorter bodies are not worth compressing.
const COMPRESS_FROM: u64 = 512;
/// The quality of compression on the fly: most of the gain, for about 20 ns an octet.
const QUALITY: CompressionLevel = CompressionLevel::Precise(4);

type Compressible = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Where files come from, and what the site they make likes to add to its answers.
pub(crate) trait Store: Backend {
    /// The same store, noting what it is asked.
    fn noting(&self, notes: Notes) -> Self;

    /// Adds headers of this site's own to an answer.
    fn dress(_path: &str, _headers: &mut HeaderMap) {}
}

/// A static site over a store of files.
pub(crate) struct Pages<S> {
    store: S,
    kept: Kept,
}

/// What looks up one file.
type Files<S> = Compression<ServeDir<DefaultServeDirFallback, S>, Compressible>;

fn files<S: Store>(store: S) -> Files<S> {
    let files = ServeDir::with_backend("", store)
        .ignore_multi_range_requests(true)
        .precompressed_br()
        .precompressed_gzip();
    Compression::new(files).quality(QUALITY).compress_when(compressible as Compressible)
}

impl<S: Store> Pages<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, kept: Kept::default() }
    }

    /// Answers any request. Each is first taken for a GET, so that a resource that does not exist
    /// is the same to every method.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        page::discard(body);
        let mut response = self.get(&parts).await;
        match response.status() {
            StatusCode::NOT_FOUND => response = self.not_found(&parts.headers).await,
            _ if parts.method != Method::GET && parts.method != Method::HEAD => {
                response = page::method_not_allowed();
            }
            StatusCode::INTERNAL_SERVER_ERROR => {
                response = page::plain(StatusCode::INTERNAL_SERVER_ERROR);
            }
            _ => {}
        }
        S::dress(parts.uri.path(), response.headers_mut());
        if parts.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn get(&self, parts: &Parts) -> Response<Body> {
        if let Some(variant) = kept::variant(&parts.headers, &SELECTING)
            && let Some(response) = self.kept.find(parts.uri.path(), &variant)
        {
            return response;
        }
        let Some(target) = target(&parts.uri) else {
            return page::plain(StatusCode::NOT_FOUND);
        };
        let mut headers = HeaderMap::new();
        for name in SELECTING {
            // Of a repeated header all values count; a list in one line says the same.
            let values: Vec<_> =
                parts.headers.get_all(&name).iter().map(|v| v.as_bytes()).collect();
            if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..]))
                && !values.is_empty()
            {
                headers.insert(name, value);
            }
        }
        // A unit nobody here knows is ignored (RFC 9110 §14.2).
        if headers.get(header::RANGE).is_some_and(|range| !range.as_bytes().starts_with(b"bytes="))
        {
            headers.remove(header::RANGE);
        }
        let if_range = headers.remove(header::IF_RANGE);
        let response = self.file(target.clone(), headers.clone()).await;
        match if_range {
            Some(validator)
                if headers.contains_key(header::RANGE) && !current(&validator, &response) =>
            {
                headers.remove(header::RANGE);
                self.file(target, headers).await
            }
            _ => response,
        }
    }

    /// One file, with what is missing in the answer put right.
    async fn file(&self, target: Uri, headers: HeaderMap) -> Response<Body> {
        let path = target.path().to_owned();
        let variant = kept::variant(&headers, &SELECTING);
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = target;
        *request.headers_mut() = headers;
        let notes = Notes::default();
        let store = self.store.noting(notes.clone());
        let mut response = match files(store).oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        };
        match response.status() {
            StatusCode::TEMPORARY_REDIRECT => {
                // A folder's URL ends in a slash for good.
                let mut moved = page::plain(StatusCode::MOVED_PERMANENTLY);
                if let Some(location) = response.headers_mut().remove(header::LOCATION) {
                    moved.headers_mut().insert(header::LOCATION, location);
                }
                return moved;
            }
            StatusCode::NOT_MODIFIED => {
                let vary = HeaderValue::from_static("accept-encoding");
                response.headers_mut().insert(header::VARY, vary);
            }
            _ => {}
        }
        complete(response.headers_mut());
        match variant {
            Some(variant) if response.status() == StatusCode::OK => {
                let kept = self.kept.keep(&path, variant, notes, response).await;
                kept.unwrap_or_else(|_| page::plain(StatusCode::INTERNAL_SERVER_ERROR))
            }
            _ => response,
        }
    }

    /// The site's own page for what does not exist, or a plain one.
    async fn not_found(&self, asked: &HeaderMap) -> Response<Body> {
        let mut headers = HeaderMap::new();
        if let Some(encodings) = asked.get(header::ACCEPT_ENCODING) {
            headers.insert(header::ACCEPT_ENCODING, encodings.clone());
        }
        let page = Uri::from_static("/404.html");
        let variant = kept::variant(&headers, &SELECTING);
        let kept = variant.and_then(|variant| self.kept.find(page.path(), &variant));
        let mut response = match kept {
            Some(response) => response,
            None => self.file(page, headers).await,
        };
        if response.status() != StatusCode::OK {
            return page::plain(StatusCode::NOT_FOUND);
        }
        *response.status_mut() = StatusCode::NOT_FOUND;
        for name in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
            response.headers_mut().remove(name);
        }
        response
    }
}

/// The path and query of a request, without an authority and with one leading slash: a redirect
/// made from it stays on this site. `None` for the authority form and for `*`.
fn target(uri: &Uri) -> Option<Uri> {
    let path = uri.path().strip_prefix('/')?.trim_start_matches('/');
    match uri.query() {
        Some(query) => format!("/{path}?{query}").parse().ok(),
        None => format!("/{path}").parse().ok(),
    }
}

/// Whether the validator of an `If-Range` is the one of this answer, by strong comparison for an
/// entity tag and exactly for a date (RFC 9110 §13.1.5).
fn current(validator: &HeaderValue, response: &Response<Body>) -> bool {
    let is = |name| response.headers().get(name) == Some(validator);
    is(header::ETAG) || is(header::LAST_MODIFIED)
}

/// Whether compression on the fly pays.
fn compressible(status: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let long =
        text(header::CONTENT_LENGTH).parse().is_ok_and(|length: u64| length >= COMPRESS_FROM);
    let kind = text(header::CONTENT_TYPE);
    let plain = kind.starts_with("text/")
        || ["javascript", "json", "xml", "wasm"].iter().any(|word| kind.ends_with(word));
    status == StatusCode::OK && long && plain
}

/// Puts right what `ServeDir` and `Compression` say of a body.
fn complete(headers: &mut HeaderMap) {
    if let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok())
        && kind.starts_with("text/")
        && !kind.contains("charset")
        && let Ok(kind) = HeaderValue::try_from(format!("{kind}; charset=utf-8"))
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    // Compressed on the fly (no ranges of it can be had): the octets are not the file's, so its
    // strong validator is only a weak one.
    let squeezed = headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::ACCEPT_RANGES);
    if squeezed
        && let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
        && let Ok(weak) = HeaderValue::try_from(format!("W/{tag}"))
    {
        headers.insert(header::ETAG, weak);
    }
}
