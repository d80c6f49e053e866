//! The client: puts a machine, or a single port of it, behind a Bauta gateway.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`], [`link`], [`secret`] | settings from a file, the environment and a `bauta://` link |
//! | [`stage`] | the named steps of coming up, failures with advice, exit codes |
//! | [`tunnel`] | CONNECT-IP: connecting, hand-over, migration, reconnecting |
//! | [`routes`], [`killswitch`], [`dns`], [`state`] | what is changed on this machine, and how it is undone |
//! | [`page`] | what a browser fetches for a page of the gateway's website |
//! | [`dial`], [`forward`], [`proxy`] | TCP and UDP flows without an interface and without root |
//! | [`control`], [`status`] | how `status` and `down` talk to a running tunnel |
#![forbid(unsafe_code)]

pub mod backoff;
pub mod check;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connect;
pub mod console;
pub mod control;
pub mod dial;
pub mod dns;
pub mod forward;
pub mod headers;
pub mod http_proxy;
pub mod interfaces;
pub mod key;
pub mod killswitch;
pub mod link;
pub mod liveness;
pub mod net;
pub mod page;
pub mod proxy;
pub mod quic;
pub mod rate;
pub mod resolve;
pub mod routes;
pub mod secret;
pub mod socks;
pub mod stage;
pub mod state;
pub mod status;
pub mod tcp;
pub mod tunnel;
pub mod watch;

/// Where helper programs (`nft`, `resolvectl`) are looked for, whatever the caller's `PATH` says.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
