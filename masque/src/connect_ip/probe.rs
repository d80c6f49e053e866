//! Proving that the tunnel carries IPv6's 1280 bytes (RFC 9484 §7.1): an echo request of that
//! size, repeated a few times.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::{ConnectIp, Event, Role};
use crate::icmp::{self, ALL_NODES};
use crate::packet::PacketView;

/// How long an echo may take before it is repeated.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many echoes are tried.
pub const PROBE_ATTEMPTS: u16 = 5;

/// An echo under way.
#[derive(Debug)]
pub(super) struct Probe {
    id: u16,
    sequence: u16,
    due: Instant,
}

impl Probe {
    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

impl ConnectIp {
    /// Begins to ask the peer for proof. The outcome is [`Event::LinkProven`] or
    /// [`Event::LinkUnproven`]; drain [`poll_packet`](Self::poll_packet) afterwards.
    pub fn probe_link(&mut self, now: Instant) {
        let id = (self.config.seed ^ self.config.seed >> 32) as u16;
        self.send_probe(now, id, 0);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.probe.take_if(|p| p.due <= now) {
            None => {}
            Some(p) if p.sequence + 1 < PROBE_ATTEMPTS => {
                self.send_probe(now, p.id, p.sequence + 1);
            }
            Some(_) => self.events.push_back(Event::LinkUnproven),
        }
    }

    fn send_probe(&mut self, now: Instant, id: u16, sequence: u16) {
        let packet = icmp::mtu_probe(self.face_v6(), ALL_NODES, id, sequence);
        self.packets.push_back(packet);
        self.probe = Some(Probe { id, sequence, due: now + PROBE_TIMEOUT });
    }

    /// The IPv6 address our own packets come from.
    pub(super) fn face_v6(&self) -> Ipv6Addr {
        match (self.config.role, self.to_us.set.first_v6()) {
            (Role::Client, Some(IpAddr::V6(own))) => own,
            _ => self.config.router_v6,
        }
    }

    /// Whether `view` answers the echo under way.
    #[cold]
    pub(super) fn settles_probe(&mut self, view: &PacketView<'_>) -> bool {
        let Some(probe) = &self.probe else { return false };
        let [a, b] = probe.id.to_be_bytes();
        let answer = !view.is_v4()
            && view.is_icmp()
            && view.bytes().len() == icmp::MAX_V6
            && matches!(view.upper(), [129, 0, _, _, x, y, ..] if [*x, *y] == [a, b]);
        if answer {
            self.probe = None;
            self.events.push_back(Event::LinkProven);
        }
        answer
    }
}
