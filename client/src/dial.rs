//! TCP and UDP flows through the gateway, without an interface and without root.

mod target;

pub use target::{Target, TargetError};
