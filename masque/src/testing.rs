//! What several tests share.

use std::time::Instant;

/// Some moment; tests only ever add to it.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
