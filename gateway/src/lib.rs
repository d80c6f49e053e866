//! The gateway: a website for everybody and a tunnel for account holders, on one port.
#![forbid(unsafe_code)]

pub mod config;
