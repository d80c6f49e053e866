//! What a site is made from.

use std::{io, net::IpAddr, path::PathBuf, time::Duration};

/// A website: where its answers come from, and where else it can be reached.
#[derive(Clone, Debug, Default)]
pub struct SiteConfig {
    /// Where answers come from.
    pub source: Source,
    /// The value of `Alt-Svc` (RFC 7838) on every response to HTTP/1.1 and HTTP/2; see
    /// [`alt_svc`]. Requests whose version is HTTP/3 are answered without it.
    pub alt_svc: Option<String>,
}

/// Where a site's answers come from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// The built-in site of a small workshop, to begin with. It is the same everywhere, so that it
    /// tells those who have seen it what serves it: a gateway in earnest has a site of its own.
    #[default]
    Sample,
    /// Static files.
    Folder {
        /// The folder that is `/`. Its `404.html`, if there is one, is the site's 404 page.
        path: PathBuf,
    },
    /// A reverse proxy for another server.
    Upstream {
        /// `http://host[:port][/prefix]`.
        url: String,
        /// Whether the upstream sees the `Host` the client asked for, rather than its own.
        preserve_host: bool,
        /// Whether the upstream learns of the client through `X-Forwarded-For` (if the request
        /// carries a [`ClientAddr`]), `X-Forwarded-Host` and `X-Forwarded-Proto`. What a client
        /// sends under these names is removed in either case.
        forwarded: bool,
        /// How long the upstream may take.
        timeouts: Timeouts,
    },
}

impl Source {
    /// An upstream with the default settings: its own `Host`, forwarded headers on.
    pub fn upstream(url: impl Into<String>) -> Self {
        let timeouts = Timeouts::default();
        Self::Upstream { url: url.into(), preserve_host: false, forwarded: true, timeouts }
    }
}

/// How long an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection; 10 s.
    pub connect: Duration,
    /// To begin its answer, counted from the last progress of the request's body; 60 s.
    pub header: Duration,
    /// Between two pieces of an answer's body that somebody waits for; 60 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: Duration::from_secs(10), header: minute, idle: minute }
    }
}

/// A request extension: the address a request came from, for `X-Forwarded-For`.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddr(pub IpAddr);

/// The value of `Alt-Svc` that offers HTTP/3 on a UDP port of the same host, for a day.
pub fn alt_svc(port: u16) -> String {
    format!("h3=\":{port}\"; ma=86400")
}

/// Why a site cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The folder cannot be read.
    #[error("site folder {path}: {error}; give an existing folder this process may read")]
    Folder {
        /// The folder as configured.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The upstream's URL is of no use.
    #[error("site upstream {url:?}: {reason}")]
    Upstream {
        /// The URL as configured.
        url: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The `Alt-Svc` value is no header value.
    #[error("Alt-Svc {0:?} is not a valid header value")]
    AltSvc(String),
}
