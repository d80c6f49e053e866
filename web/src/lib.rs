//! The website: from a request to a response, the same for HTTP/1.1, HTTP/2 and HTTP/3.
//!
//! A [`Site`] answers from one [`Source`]: a built-in sample site, a static folder, or an upstream
//! server it is a reverse proxy for. Bodies stream both ways under the reader's own pace; none but
//! a small file's is ever held whole in memory, so a slow reader or a reset costs its own stream and
//! no other.
//!
//! # What everybody else gets
//! The server in front hands over *every* request it has no other use for, whatever its method, so
//! that a stranger's odd request meets the code that answers ordinary ones:
//!
//! | request | a static site (sample, folder) | an upstream |
//! | --- | --- | --- |
//! | any method, no such resource | 404, the site's own page | the upstream's answer |
//! | another method than GET or HEAD, existing resource | 405 and `Allow` | the upstream's answer |
//! | CONNECT with a path (extended, RFC 8441 and RFC 9220) | as any other method: 404 or 405 | the upstream's answer to GET of that path; 405 if that is a success, because a 2xx would open a tunnel |
//! | CONNECT without a path, `OPTIONS *` | 404, for it names no resource | 404 |
//!
//! No answer carries 401, 407, `Proxy-Status`, `Via` or a `Server` of ours; what an upstream says
//! of itself is passed on. `Date` belongs to the server in front.

#![forbid(unsafe_code)]

pub mod acme;
pub mod cert;
mod config;
mod page;
mod pages;
mod site;
mod upstream;

pub use config::{ClientAddr, SiteConfig, SiteError, Source, Timeouts, alt_svc};
pub use site::Site;

/// A streaming body, of requests and of responses.
pub type Body = axum::body::Body;
