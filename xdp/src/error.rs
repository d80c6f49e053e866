//! What can go wrong, each with what to do about it.

use std::io;

/// The result of anything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step of opening the ingress failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system has no AF_XDP.
    #[error("AF_XDP exists on Linux only")]
    Unsupported,
    /// There is no such interface in this network namespace.
    #[error("interface `{name}`: {source}")]
    Interface {
        /// The interface as it was named.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// What it carries has no Ethernet header, which the program reads.
    #[error("interface `{name}` carries no Ethernet frames (is it a tunnel?)")]
    NotEthernet {
        /// The interface as it was named.
        name: String,
    },
    /// The verifier refused the program.
    #[error("the kernel refused the program: {source}; the end of its log:\n{log}")]
    Verifier {
        /// The system's reason.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A system call failed.
    #[error("{what}: {source}{hint}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
        /// What to do about it, or nothing.
        hint: &'static str,
    },
}
