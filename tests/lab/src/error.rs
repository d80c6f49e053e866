//! What can go wrong in the lab, each with what to do about it.

use std::path::PathBuf;
use std::{fmt, io};

use crate::link::ParseError;

/// The result of everything in the lab.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// An error of the lab. `Debug` reads like `Display`, so that a test's `unwrap` tells people what
/// to do.
#[derive(thiserror::Error)]
pub enum LabError {
    /// Namespaces, TUN devices and real-time threads need privileges.
    #[error(
        "{0} needs root: run the namespace suite as root, e.g. `sudo -E cargo test -p bauta-lab`"
    )]
    NotRoot(&'static str),
    /// A file, a device or a system call refused.
    #[error("{what}: {source}")]
    System {
        /// What was attempted, on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start `{program}`: {source} (is it installed?)")]
    Spawn {
        /// The command line.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` failed ({status}):\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// The exit status, in words.
        status: String,
        /// The last lines it printed.
        output: String,
    },
    /// Something awaited did not come.
    #[error("`{command}`: no {awaited} within {seconds:.1} s; its last words:\n{output}")]
    Timeout {
        /// The command line or label.
        command: String,
        /// What was awaited.
        awaited: String,
        /// How long, in seconds.
        seconds: f64,
        /// The last lines it printed.
        output: String,
    },
    /// There is no such network namespace.
    #[error("no network namespace `{name}` at {path}: make it with `ip netns add {name}`")]
    NoNamespace {
        /// The name as given.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A link's description is wrong.
    #[error(transparent)]
    Spec(#[from] ParseError),
    /// A name or a number is out of its bounds.
    #[error("{0}")]
    Invalid(String),
}

impl fmt::Debug for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl LabError {
    /// The error of a system call, with what was attempted.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// Adds what was attempted to an error of the system.
pub(crate) trait Context<T> {
    /// Names the attempt; `what` is called on failure only.
    fn attempting<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn attempting<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| LabError::system(what(), e))
    }
}
