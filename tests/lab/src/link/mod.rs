//! The link emulator: what a network path does to packets, decided by a seed.
//!
//! [`LinkSpec`] says what one direction does, [`Link`] decides each packet's fate without clock
//! or I/O, [`Emulator`] carries real packets between two namespaces accordingly and says how
//! late it was.

mod emulator;
mod icmp;
mod model;
mod pairs;
mod parse;
mod rng;
mod schedule;
mod spec;
mod stats;
mod trace;
mod units;
mod worker;

pub use emulator::{Emulator, EmulatorStats, End};
pub use model::{DropReason, Fate, Link};
pub use pairs::{PathPair, SIXTEEN_PAIRS};
pub use parse::ParseError;
pub use spec::{Direction, GilbertElliott, Jitter, LinkPair, LinkSpec, Loss, MtuHole, Queue};
pub use stats::{Lateness, Stats};
pub use trace::{Row, Trace, TraceRate};
pub use units::{format_rate, parse_bytes, parse_duration, parse_percent, parse_rate};
