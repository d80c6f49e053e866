//! What a running tunnel says about itself.

use std::time::Instant;

use bauta_masque_io::tcp::Version;

use super::Tunnel;
use super::endpoints::{Link, link_of};
use crate::status::{Path, Repair, Status};

impl Tunnel<'_> {
    /// A snapshot for `bauta status`.
    pub(super) fn status(&mut self, now: Instant) -> Status {
        let applied = self.system.applied().cloned();
        let current = self.sessions.current;
        let peer = self.sessions.current().map(|s| s.peer);
        let mut status = Status {
            name: self.settings.name.clone(),
            pid: std::process::id(),
            phase: self.phase,
            phase_seconds: now.saturating_duration_since(self.since).as_secs(),
            server: self.settings.server.to_string(),
            gateway: peer,
            local: self.local,
            full: self.system.full(),
            kill_switch: self.system.drops(),
            traffic: self.sessions.traffic,
            packet_limit: self.settings.packet_limit,
            handovers: self.handovers,
            reconnects: self.reconnects,
            migrations: self.migrations,
            failure: self.failure.clone(),
            ..Status::default()
        };
        if let Some(tun) = &self.sessions.tun {
            let lost = tun.drops();
            status.traffic.up_dropped += lost.malformed;
            status.traffic.down_dropped += lost.full + lost.refused;
        }
        if let Some(lane) = current.and_then(|id| self.lanes.get(id)) {
            status.rtt_ms = lane.rtt.as_secs_f64() * 1e3;
            status.carriage = match lane.version {
                Version::Http2 => "HTTP/2 over TCP",
                Version::Http1 => "HTTP/1.1 over TCP",
            }
            .into();
        }
        if let Some(layer) = self.sessions.current().and_then(|s| s.layer.as_ref()) {
            for member in layer.bonded.members() {
                let link = self.endpoint.links().iter().find(|l| l.id == link_of(member.conn));
                let name = link.map_or("gone", Link::name);
                let report = layer.bonded.bond.path_report(member.path);
                status.paths.extend(report.map(|r| Path::new(member.path, name, &r)));
            }
            status.repair = Some(Repair::from(&layer.bonded.bond.report()));
        }
        if let Some(conn) = current.and_then(|id| self.endpoint.get(id)) {
            status.carriage = "HTTP/3".into();
            status.rtt_ms = conn.rtt().as_secs_f64() * 1e3;
            status.packets_protected = conn.packets_protected();
        }
        if let Some(applied) = applied {
            (status.addresses, status.routes, status.dns) =
                (applied.addresses, applied.routes, applied.dns);
            status.mtu = applied.mtu;
        }
        status
    }
}
