//! Certificates and TLS for both stacks: rustls over TCP, BoringSSL under QUIC.
//!
//! One [`Certified`] feeds both. Over TCP a [`HotCertificate`] is exchanged under running
//! listeners; under QUIC a new [`quiche::Config`] serves the connections that come after.
//! Key logging is never on.

pub mod browser;
mod certificate;
mod client;
mod server;
mod transport;

use std::io;
use std::path::PathBuf;

pub use browser::TcpTls;
pub use certificate::{Certified, HotCertificate, certificate_spki};
pub use client::{
    ClientTls, Roots, quic_client_config, quic_client_config_as, rustls_client_config,
};
pub(crate) use server::shed_handshake;
pub use server::{
    AcmeAware, AskingNames, TicketKey, quic_asking_config, quic_server_config,
    rustls_asking_config, rustls_server_config,
};
pub use transport::{MAX_REQUESTS, TransportConfig};

/// Key exchange under QUIC, in order of preference: what today's browsers offer.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";

/// What is wrong with a certificate, a key or the TLS settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A PEM text does not hold what it should.
    #[error("{origin}: {problem}")]
    Malformed {
        /// The file, or where the text came from.
        origin: String,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
    /// The key is not the one the certificate was issued for.
    #[error(
        "the private key in {key} does not belong to the first certificate in {chain}: the certificate of this host must come first, and the key be the one it was requested with"
    )]
    KeyMismatch {
        /// Where the certificates came from.
        chain: String,
        /// Where the key came from.
        key: String,
    },
    /// The certificate's time is over.
    #[error("the certificate in {chain} expired on {not_after}: renew it")]
    Expired {
        /// Where the certificates came from.
        chain: String,
        /// Its last moment.
        not_after: String,
    },
    /// The certificate's time has not begun.
    #[error("the certificate in {chain} is valid only from {not_before}: is the clock right?")]
    NotYetValid {
        /// Where the certificates came from.
        chain: String,
        /// Its first moment.
        not_before: String,
    },
    /// This system has no certificate authorities where they are looked for.
    #[error(
        "no trusted certificate authorities found: install the package ca-certificates, or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// A TLS library refused a setting.
    #[error("TLS settings: {0}")]
    Settings(String),
}

impl From<boring::error::ErrorStack> for TlsError {
    fn from(e: boring::error::ErrorStack) -> Self {
        Self::Settings(e.to_string())
    }
}

impl From<quiche::Error> for TlsError {
    fn from(e: quiche::Error) -> Self {
        Self::Settings(e.to_string())
    }
}

impl From<rustls::Error> for TlsError {
    fn from(e: rustls::Error) -> Self {
        Self::Settings(e.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests;
