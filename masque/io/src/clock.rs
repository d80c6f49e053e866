//! The one clock. Everything below the programs takes time as an argument; here is where it comes from.

use std::time::{Instant, SystemTime};

/// Monotonic time, for timers and measurements.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
#[inline]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time, for certificates, `Date` and logs; it may jump.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
#[inline]
pub fn unix_time() -> SystemTime {
    SystemTime::now()
}
