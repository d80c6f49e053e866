//! The gateway and the client as people run them, in network namespaces: a [`Scene`] is the lab's
//! topology with a running `bauta-gateway`, clients that can run `bauta`, and an internet with
//! something to reach. Linux and root only.
//!
//! ```no_run
//! # use bauta_e2e::{Setting, play};
//! play(Setting::default(), |scene| {
//!     scene.clients[0].up()?;
//!     scene.clients[0].ping("203.0.113.2", "-c3 -i0.2")?.assert_lossless()
//! });
//! ```

mod authorities;
mod client;
mod gateway;
mod ingress;
mod internet;
pub mod leaks;
mod machine;
mod measure;
mod pki;
mod programs;
mod scene;

pub use authorities::{Acme, EAB};
pub use client::{Client, Finished, json};
pub use gateway::{ADMIN, DOMAIN, Gateway};
pub use ingress::Ingress;
pub use internet::{Echo, Files, Names, dns, echo, files, hold, iperf};
pub use machine::Machine;
pub use measure::{Pings, Stream};
pub use pki::{Authority, Issued};
pub use programs::programs;
pub use scene::{Scene, Setting, play};

/// Long enough for anything that should happen at once, on a machine that is busy.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(10);
