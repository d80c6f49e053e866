//! The gateway: a website for everybody and a tunnel for account holders, on one port.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod admin;
pub mod cli;
pub mod config;
pub mod link;
pub mod log;
pub mod metrics;
pub mod nat;
pub mod pool;
pub mod privileges;
pub mod run;
