//! A laboratory for networks: namespaces wired together, programs run inside them, and a seeded
//! link emulator between them. For tests and benches; Linux and root only.
//!
//! - [`Net`], [`Namespace`], [`Process`], [`Capture`]: everything goes when the value goes, also
//!   (at the next start) after a SIGKILL.
//! - [`link`]: the emulator: a pure model in [`link::Link`], threads and TUN devices around it in
//!   [`Emulator`], and the program `bauta-link` for people.
//! - [`Topology`]: clients, a gateway and an internet, with the addresses all tests share.

mod capture;
pub mod clock;
mod error;
pub mod link;
mod names;
mod net;
mod netns;
mod process;
mod sweep;
mod sys;
mod topology;

pub use capture::{Capture, Captured};
pub use error::{LabError, Result};
pub use link::{Direction, Emulator, End, LinkPair, LinkSpec, SIXTEEN_PAIRS};
pub use net::{Namespace, Net, require_root};
pub use netns::Netns;
pub use process::Process;
pub use sweep::stale as sweep_stale;
pub use topology::{Access, Topology, TopologyBuilder, addresses};
