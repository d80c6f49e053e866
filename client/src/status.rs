//! What `bauta status` tells, as JSON and for people.

mod paths;

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::net::Net;
pub use paths::{Path, Repair};

/// Where the tunnel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The first connection is being made.
    #[default]
    Connecting,
    /// Packets flow.
    Up,
    /// The connection is lost; nothing flows, and nothing leaks.
    Reconnecting,
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The interface.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Where the tunnel is.
    pub phase: Phase,
    /// Seconds since the phase began.
    pub phase_seconds: u64,
    /// The gateway as it was named.
    pub server: String,
    /// Its address in use.
    pub gateway: Option<SocketAddr>,
    /// What carries the tunnel: HTTP/3, or HTTP/2 or HTTP/1.1 over TCP; empty while nothing does.
    #[serde(default)]
    pub carriage: String,
    /// Our address towards it.
    pub local: Option<IpAddr>,
    /// Addresses of the interface.
    pub addresses: Vec<IpAddr>,
    /// Networks through the tunnel.
    pub routes: Vec<Net>,
    /// Whether the tunnel takes everything.
    pub full: bool,
    /// Whether nothing may leave outside.
    pub kill_switch: bool,
    /// Name servers set.
    pub dns: Vec<IpAddr>,
    /// The interface's MTU, bytes.
    pub mtu: u16,
    /// Smoothed round-trip time to the gateway, milliseconds.
    pub rtt_ms: f64,
    /// Packets and bytes, and what became of them.
    pub traffic: Traffic,
    /// Packets the current key has protected, of `packet_limit`.
    pub packets_protected: u64,
    /// Packets a key may protect.
    pub packet_limit: u64,
    /// Sessions moved to a fresh connection without a break.
    pub handovers: u64,
    /// Connections made anew after one was lost.
    pub reconnects: u64,
    /// Changes of the local address survived.
    pub migrations: u64,
    /// The paths of the bond, if there is one.
    #[serde(default)]
    pub paths: Vec<Path>,
    /// What its repair has done.
    #[serde(default)]
    pub repair: Option<Repair>,
    /// The last failure, if the tunnel is not up.
    pub failure: Option<String>,
}

/// Packets of the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets sent into the tunnel.
    pub up_packets: u64,
    /// Bytes sent into the tunnel.
    pub up_bytes: u64,
    /// Packets that came out of it.
    pub down_packets: u64,
    /// Bytes that came out of it.
    pub down_bytes: u64,
    /// Packets answered with an ICMP error, most of them "too big".
    pub icmp_errors: u64,
    /// Packets of this machine that were dropped: without a tunnel, or not to be carried.
    pub up_dropped: u64,
    /// Packets from the gateway that were dropped: malformed, or not for this machine.
    pub down_dropped: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: &[IpAddr]| match items {
            [] => "none".into(),
            _ => items.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        };
        let phase = match self.phase {
            Phase::Connecting => "connecting",
            Phase::Up => "up",
            Phase::Reconnecting => "reconnecting (nothing leaves outside)",
        };
        writeln!(f, "{}: {phase} for {}", self.name, duration(self.phase_seconds))?;
        if let Some(failure) = &self.failure {
            writeln!(f, "  last failure  {failure}")?;
        }
        let gateway = self.gateway.map_or_else(|| "not connected".into(), |g| g.to_string());
        writeln!(
            f,
            "  gateway       {} ({gateway}), round trip {:.1} ms{}{}",
            self.server,
            self.rtt_ms,
            if self.carriage.is_empty() { "" } else { ", by " },
            self.carriage
        )?;
        writeln!(f, "  addresses     {}", list(&self.addresses))?;
        let mut routes = String::new();
        for net in self.routes.iter().take(4) {
            let _ = write!(routes, "{net} ");
        }
        if self.routes.len() > 4 {
            let _ = write!(routes, "and {} more", self.routes.len() - 4);
        }
        let kind = if self.full { "everything" } else { "some networks" };
        writeln!(f, "  carries       {kind}: {}", routes.trim_end())?;
        let guard = if self.kill_switch { "on" } else { "off" };
        writeln!(f, "  kill switch   {guard}; DNS {}; MTU {}", list(&self.dns), self.mtu)?;
        for path in &self.paths {
            writeln!(f, "  path          {path}")?;
        }
        if let Some(repair) = &self.repair {
            writeln!(f, "  repair        {repair}")?;
        }
        let t = &self.traffic;
        writeln!(f, "  sent          {} packets, {}", t.up_packets, bytes(t.up_bytes))?;
        writeln!(f, "  received      {} packets, {}", t.down_packets, bytes(t.down_bytes))?;
        writeln!(
            f,
            "  dropped       {} outgoing, {} incoming; {} answered with ICMP",
            t.up_dropped, t.down_dropped, t.icmp_errors
        )?;
        write!(
            f,
            "  moves         {} hand-overs, {} migrations, {} reconnects; key at {:.1} % of its limit",
            self.handovers,
            self.migrations,
            self.reconnects,
            self.packets_protected as f64 * 100.0 / self.packet_limit.max(1) as f64
        )
    }
}

fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let power = (n.max(1).ilog10() / 3).min(4);
    if power == 0 {
        return format!("{n} B");
    }
    format!("{:.1} {}", n as f64 / 1000f64.powi(power as i32), units[power as usize])
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let status = Status { name: "bauta0".into(), phase: Phase::Up, ..Status::default() };
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.contains("\"phase\":\"up\""));
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }

    #[test]
    fn people_read_units() {
        assert_eq!(
            (bytes(0), bytes(999), bytes(1_500_000)),
            ("0 B".into(), "999 B".into(), "1.5 MB".into())
        );
        assert_eq!(
            (duration(59), duration(61), duration(7260)),
            ("59 s".into(), "1 min 1 s".into(), "2 h 1 min".into())
        );
    }

    #[test]
    fn a_lost_tunnel_says_that_nothing_leaks() {
        let status = Status {
            phase: Phase::Reconnecting,
            failure: Some("QUIC handshake: no answer".into()),
            ..Status::default()
        };
        let text = status.to_string();
        assert!(text.contains("nothing leaves outside") && text.contains("no answer"));
    }
}
