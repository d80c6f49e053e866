//! The steps of coming up, and what to do when one of them fails.

use std::{fmt, time::Duration};

use serde::Serialize;
use thiserror::Error;

/// A step, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Root, `/dev/net/tun`, no other client of the same name.
    Privileges,
    /// The gateway's addresses.
    Resolve,
    /// The QUIC handshake.
    Handshake,
    /// The gateway's certificate.
    Certificate,
    /// HTTP/3 SETTINGS: extended CONNECT and datagrams.
    Settings,
    /// What the path carries.
    PathMtu,
    /// The answer to CONNECT-IP.
    ConnectIp,
    /// ADDRESS_ASSIGN and ROUTE_ADVERTISEMENT.
    Addresses,
    /// The interface.
    Tun,
    /// The firewall.
    KillSwitch,
    /// Routes and rules.
    Routes,
    /// Name servers.
    Dns,
}

impl Stage {
    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Privileges => "privileges",
            Stage::Resolve => "resolve",
            Stage::Handshake => "QUIC handshake",
            Stage::Certificate => "certificate",
            Stage::Settings => "HTTP/3 settings",
            Stage::PathMtu => "path MTU",
            Stage::ConnectIp => "CONNECT-IP accepted",
            Stage::Addresses => "addresses",
            Stage::Tun => "TUN",
            Stage::KillSwitch => "kill switch",
            Stage::Routes => "routes",
            Stage::Dns => "DNS",
        }
    }

    /// The exit code of a client whose last word is a failure of this stage.
    pub fn exit_code(self) -> u8 {
        match self {
            Stage::Privileges | Stage::Tun => exit::PRIVILEGES,
            Stage::Resolve | Stage::Handshake => exit::UNREACHABLE,
            Stage::Certificate => exit::CERTIFICATE,
            Stage::Settings | Stage::PathMtu | Stage::ConnectIp | Stage::Addresses => exit::REFUSED,
            Stage::KillSwitch | Stage::Routes | Stage::Dns => exit::SYSTEM,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Exit codes.
pub mod exit {
    /// Something not listed here.
    pub const OTHER: u8 = 1;
    /// The configuration or the link is wrong.
    pub const CONFIG: u8 = 3;
    /// No privileges, no TUN, or another client of the same name.
    pub const PRIVILEGES: u8 = 4;
    /// The gateway cannot be resolved or reached.
    pub const UNREACHABLE: u8 = 5;
    /// The gateway's certificate is refused.
    pub const CERTIFICATE: u8 = 6;
    /// The gateway answers, but gives no tunnel.
    pub const REFUSED: u8 = 7;
    /// The firewall, routes or name servers of this machine cannot be set, or not be restored.
    pub const SYSTEM: u8 = 8;
    /// `status`: no tunnel of that name is up.
    pub const NOT_RUNNING: u8 = 9;

    /// The table for `--help`.
    pub const HELP: &str = "\
Exit codes:
  0  done (up: ended by `bauta down` or a signal, everything restored)
  1  something not listed here
  2  wrong command line
  3  the configuration or the link is wrong
  4  no privileges, no TUN device, or a tunnel of that name is already up
  5  the gateway cannot be resolved or reached
  6  the gateway's certificate is refused
  7  the gateway answers, but gives no tunnel (revoked link, no CONNECT-IP)
  8  firewall, routes or DNS of this machine cannot be set or restored
  9  status: no tunnel of that name is up";
}

/// A stage that failed: what happened, and what to do.
#[derive(Clone, Debug, Error)]
#[error("{stage}: {what}\n  → {advice}")]
pub struct Failure {
    /// Which.
    pub stage: Stage,
    /// What happened.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Failure {
    /// A failure.
    pub fn new(stage: Stage, what: impl fmt::Display, advice: impl fmt::Display) -> Failure {
        Failure { stage, what: what.to_string(), advice: advice.to_string() }
    }

    /// The handshake got no answer for `after`.
    pub fn silent(peer: impl fmt::Display, after: Duration) -> Failure {
        Failure::new(
            Stage::Handshake,
            format_args!("no answer from {peer} over UDP in {:.0} s", after.as_secs_f32()),
            "is the gateway running, and does this network let UDP to that port pass? \
             Try another network; `curl -I https://HOST/` shows whether TCP passes",
        )
    }

    /// TLS refused the certificate.
    pub fn certificate(name: &str, why: impl fmt::Display) -> Failure {
        Failure::new(
            Stage::Certificate,
            format_args!("the gateway's certificate is refused for {name}: {why}"),
            "a private authority needs `ca=` and another name `sni=` in the link; \
             if neither is expected somebody may be in between: do not go on",
        )
    }

    /// The answer to a tunnel request was not 2xx.
    pub fn status(status: u16, proxy_status: Option<&str>) -> Failure {
        let detail = proxy_status.map(|p| format!(" ({p})")).unwrap_or_default();
        let (what, advice) = match (status, proxy_status) {
            (404 | 405 | 400 | 501, None) => (
                format!("the gateway answered like a plain website (status {status})"),
                "is the link right, is this machine's key (`bauta key`) known there, or has either been revoked? `bauta-gateway user list` on the gateway shows",
            ),
            (300..=399, _) => (
                format!(
                    "the gateway redirected the request (status {status}); only 2xx opens a tunnel"
                ),
                "is the host in the link the gateway itself, not a front of it?",
            ),
            (429 | 503, _) => (
                format!("the gateway has no room (status {status}){detail}"),
                "too many sessions of this account, or no address left; close others or ask the operator",
            ),
            _ => (
                format!("the gateway refused the tunnel (status {status}){detail}"),
                "the gateway's log says why",
            ),
        };
        Failure::new(Stage::ConnectIp, what, advice)
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.stage.exit_code()
    }
}

/// Hears about each stage that is done.
pub trait Progress {
    /// `stage` is done; `detail` says with what result.
    fn done(&mut self, stage: Stage, detail: fmt::Arguments<'_>);
    /// Something the user should know, that stops nothing.
    fn notice(&mut self, text: fmt::Arguments<'_>);
    /// All stages are done.
    fn up(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_token_looks_like_a_website_and_says_so() {
        let failure = Failure::status(404, None);
        assert!(failure.what.contains("like a plain website"));
        assert!(failure.advice.contains("revoked"));
        assert_eq!(failure.exit_code(), exit::REFUSED);
    }

    #[test]
    fn a_full_gateway_is_told_from_a_wrong_link() {
        let failure = Failure::status(503, Some("gw; error=connection_limit_reached"));
        assert!(failure.what.contains("connection_limit_reached"));
        assert!(Failure::status(302, None).what.contains("redirected"));
    }

    #[test]
    fn the_failing_stage_is_named_first() {
        let text = Failure::silent("203.0.113.1:443", Duration::from_secs(10)).to_string();
        assert!(
            text.starts_with(
                "QUIC handshake: no answer from 203.0.113.1:443 over UDP in 10 s\n  → "
            )
        );
    }
}
