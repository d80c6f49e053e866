//! The gateway: a website for everybody and a tunnel for account holders, on one port.
//!
//! [`run`] starts it: sockets, TUN and rules as root, then one [`worker`] a core and the TCP side
//! beside them. A request meets [`router`], the one fork between the website and the tunnels.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod admin;
mod certificate;
pub mod cli;
pub mod config;
pub mod dial;
pub mod link;
pub mod log;
pub mod metrics;
pub mod nat;
mod one_time;
pub mod pool;
pub mod privileges;
pub mod router;
pub mod run;
pub mod shared;
pub mod tcp;
mod tunnel;
pub mod worker;
