//! What a local program says to an HTTP proxy: CONNECT, or a request for an absolute `http://` URI (RFC 9112 §3.2).

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::dial::Target;

/// The longest request head taken, in bytes.
pub const MAX_HEAD: usize = 32 * 1024;

/// A request, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub target: Target,
    /// What to send there first: nothing for CONNECT, the rewritten request otherwise.
    pub first: Vec<u8>,
    /// Whether the program awaits `200` before it goes on.
    pub connect: bool,
}

/// Why a request is refused.
#[derive(Debug, Error)]
pub enum HttpProxyError {
    /// The program went away.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too long.
    #[error("the head of the request is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// It is not a request for a proxy.
    #[error("{0}")]
    Malformed(&'static str),
}

impl HttpProxyError {
    /// The status line it is answered with.
    pub fn status(&self) -> &'static str {
        match self {
            HttpProxyError::TooLong => "431 Request Header Fields Too Large",
            _ => "400 Bad Request",
        }
    }
}

/// Reads the head of a request; bytes after it go along in `first`.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Request, HttpProxyError> {
    let mut buf = Vec::with_capacity(2048);
    loop {
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = buf.split_off(end + 4);
            return parse(&buf, &rest);
        }
        if buf.len() > MAX_HEAD {
            return Err(HttpProxyError::TooLong);
        }
    }
}

fn parse(head: &[u8], rest: &[u8]) -> Result<Request, HttpProxyError> {
    use HttpProxyError::Malformed;
    let text = std::str::from_utf8(head).map_err(|_| Malformed("the head is not UTF-8"))?;
    let (line, headers) = text.split_once("\r\n").ok_or(Malformed("no request line"))?;
    let mut words = line.split(' ');
    let (Some(method), Some(uri), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed("the request line has not three parts"));
    };
    if !version.starts_with("HTTP/1.") {
        return Err(Malformed("not HTTP/1"));
    }
    let not_a_target = |_| Malformed("the target is not host:port");
    if method == "CONNECT" {
        let target = Target::parse(uri, None).map_err(not_a_target)?;
        return Ok(Request { target, first: rest.to_vec(), connect: true });
    }
    let uri = uri
        .strip_prefix("http://")
        .ok_or(Malformed("a proxy takes CONNECT or an absolute http:// URI"))?;
    let end = uri.find(['/', '?']).unwrap_or(uri.len());
    let (authority, path) = uri.split_at(end);
    let target = Target::parse(authority, Some(80)).map_err(not_a_target)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut first = format!("{method} {slash}{path} HTTP/1.1\r\n");
    for header in headers.lines().filter(|line| !line.is_empty() && !is_hop_by_hop(line)) {
        first.push_str(header);
        first.push_str("\r\n");
    }
    // One request a connection: the next one may be for another host.
    first.push_str("Connection: close\r\n\r\n");
    let mut first = first.into_bytes();
    first.extend_from_slice(rest);
    Ok(Request { target, first, connect: false })
}

fn is_hop_by_hop(header: &str) -> bool {
    let name = header.split(':').next().unwrap_or("");
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization"]
        .iter()
        .any(|hop| name.eq_ignore_ascii_case(hop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Request, HttpProxyError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut text.as_bytes()))
    }

    #[test]
    fn connect_names_a_target_and_keeps_what_follows() {
        let r = request("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\nhello")
            .unwrap();
        assert_eq!((r.target, r.connect), (Target::new("example.org", 443).unwrap(), true));
        assert_eq!(r.first, b"hello");
        assert!(
            request("CONNECT [2001:db8::1]:22 HTTP/1.1\r\n\r\n").unwrap().target.host()
                == "2001:db8::1"
        );
    }

    #[test]
    fn an_absolute_uri_becomes_a_request_to_the_origin() {
        let r = request(
            "GET http://example.org:8080?q HTTP/1.1\r\nHost: example.org:8080\r\nProxy-Connection: x\r\n\
             PROXY-AUTHORIZATION: y\r\nAccept: */*\r\n\r\n",
        )
        .unwrap();
        assert_eq!(r.target, Target::new("example.org", 8080).unwrap());
        let expected = "GET /?q HTTP/1.1\r\nHost: example.org:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(r.first).unwrap(), expected);
    }

    #[test]
    fn other_requests_are_refused() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET https://h/ HTTP/1.1\r\n\r\n",
            "CONNECT h HTTP/1.1\r\n\r\n",
            "CONNECT h:0 HTTP/1.1\r\n\r\n",
            "CONNECT h:1 HTTP/2\r\n\r\n",
            "CONNECT  h:1 HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(request(bad), Err(HttpProxyError::Malformed(_))), "{bad:?}");
        }
        assert!(matches!(request("GET http://h/ HTTP/1.1\r\n"), Err(HttpProxyError::Io(_))));
        assert!(matches!(request(&"x".repeat(MAX_HEAD + 1)), Err(HttpProxyError::TooLong)));
    }
}
