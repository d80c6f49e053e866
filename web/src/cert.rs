//! Where certificates come from: files, or an authority that speaks ACME.
//!
//! A [`CertSource`] hands out PEM; who serves with it is not its concern. What it is doing, when it
//! will do the next thing and why is in its [`Status`].

mod facts;
mod files;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

pub use facts::Facts;
pub use files::Files;

use crate::acme::schedule::Why;

/// A certificate chain, the site's own first, and its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The chain.
    pub chain: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
}

impl Pem {
    /// Takes a text apart in which the key comes first; `None` without a certificate.
    pub(crate) fn split(text: &[u8]) -> Option<Self> {
        let begin = b"-----BEGIN CERTIFICATE-----";
        let at = text.windows(begin.len()).position(|window| window == begin)?;
        Some(Self { chain: text[at..].into(), key: text[..at].into() })
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(..)")
    }
}

/// What gives a certificate now, and others later.
pub trait CertSource: Send {
    /// What there is at once, for the start; `None`: the first is still to come.
    ///
    /// # Errors
    /// What is there is of no use, or cannot be read.
    fn first(&mut self) -> Result<Option<Pem>, CertError>;

    /// The next one, whenever that is. Dropping the future loses nothing but an order in progress.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Pem> + Send + '_>>;

    /// What it is doing; changes as it goes on.
    fn status(&self) -> watch::Receiver<Status>;
}

/// The clock, as a function: nothing here knows where time comes from.
pub type Clock = fn() -> SystemTime;

/// Where a certificate stands, for people and programs. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `files`, `rustls-acme` or `instant-acme`.
    pub source: &'static str,
    /// Files, or the authority's directory.
    pub from: String,
    /// Names and addresses the certificate in force is for; empty while there is none.
    pub names: Vec<String>,
    /// From when it is valid.
    pub valid_from: Option<u64>,
    /// Until when.
    pub valid_until: Option<u64>,
    /// When the next order is due; `None`: none is, or one is on its way.
    pub next: Option<u64>,
    /// Why then.
    pub why: Option<Why>,
    /// An order is on its way.
    pub ordering: bool,
    /// Certificates fetched or read since the start.
    pub renewals: u64,
    /// Failures since the start.
    pub failures: u64,
    /// What went wrong last, until something goes right.
    pub error: Option<String>,
}

impl Status {
    /// Takes over what a certificate says of itself.
    pub(crate) fn show(&mut self, facts: &Facts) {
        self.names.clone_from(&facts.names);
        self.valid_from = Some(facts.validity.from);
        self.valid_until = Some(facts.validity.until);
    }
}

/// Why there is no certificate, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What is there is not what it should be.
    #[error("{from}: {problem}")]
    Malformed {
        /// Where it came from.
        from: String,
        /// What is wrong.
        problem: String,
    },
}

/// Seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
