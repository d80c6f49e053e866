//! The whole ingress over veth, in namespaces of its own. Needs root.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests, and what helps them")]

mod ingress;
mod process;
mod wire;
