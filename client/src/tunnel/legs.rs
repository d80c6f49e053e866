//! Further paths: a connection for each interface that the session itself is not on, joined to its bond.

use std::time::{Duration, Instant};

use bauta_masque::bond::capsules::{self, BondCapsule};
use bauta_masque::bond::field;
use bauta_masque::datagram::{H3_NO_ERROR, H3_REQUEST_CANCELLED};
use bauta_masque_io::{ConnId, Header};
use tracing::{debug, info, warn};

use super::Tunnel;
use super::bonding;
use super::endpoints::{LinkId, link_of};
use super::session::{Session, Step};
use crate::backoff::Backoff;
use crate::connect::{Connector, MTU_PATIENCE, Mark, RETRY};
use crate::headers;
use crate::interfaces::{self, Paths, Usable};
use crate::stage::{Failure, Stage};

/// How old a token may be that is used: it lives for 30 s at the gateway.
const TOKEN_AGE: Duration = Duration::from_secs(25);

/// The connection of one link, on its way into the bond.
pub(super) struct Leg {
    link: LinkId,
    connector: Option<Connector>,
    conn: Option<ConnId>,
    /// When SETTINGS came.
    settled: Option<Instant>,
    /// The session it has asked to join, and the stream of the request.
    joined: Option<(ConnId, u64)>,
    retry: Instant,
    backoff: Backoff,
}

impl Leg {
    fn new(link: LinkId, now: Instant) -> Leg {
        let (connector, conn, settled, joined) = (None, None, None, None);
        Leg { link, connector, conn, settled, joined, retry: now, backoff: Backoff::new(link) }
    }

    fn fail(&mut self, now: Instant) {
        (self.connector, self.conn, self.settled, self.joined) = (None, None, None, None);
        self.retry = now + self.backoff.next_wait();
    }
}

impl Tunnel<'_> {
    /// Several interfaces carry this tunnel.
    pub(super) fn is_multipath(&self) -> bool {
        self.settings.paths != Paths::Routed
    }

    /// What the connections of this tunnel are marked with; `worker`: where they are to lead.
    pub(super) fn mark(&self, worker: Option<(usize, usize)>) -> Option<Mark> {
        let key = self.settings.credential.mark();
        (self.settings.resilience && !self.ordinary).then_some(Mark { key, worker })
    }

    /// When a leg wants to be looked at.
    pub(super) fn legs_timeout(&self) -> Option<Instant> {
        let of = |leg: &Leg| match (&leg.connector, leg.conn) {
            (Some(connector), _) => Some(connector.timeout()),
            (None, None) => Some(leg.retry),
            (None, Some(_)) if leg.joined.is_none() => leg.settled.map(|at| at + MTU_PATIENCE),
            _ => None,
        };
        self.legs.iter().filter_map(of).min()
    }

    /// Moves every leg on.
    pub(super) fn advance_legs(&mut self, now: Instant) {
        if !self.is_multipath() {
            return;
        }
        let Some(current) = self.sessions.current else { return };
        let taken: Vec<LinkId> = self.sessions.list.iter().map(|s| link_of(s.conn)).collect();
        self.legs.retain(|leg| leg.conn.is_some() || !taken.contains(&leg.link));
        for link in self.endpoint.links().iter().map(|link| link.id).collect::<Vec<_>>() {
            if !taken.contains(&link) && !self.legs.iter().any(|leg| leg.link == link) {
                self.legs.push(Leg::new(link, now));
            }
        }
        for mut leg in std::mem::take(&mut self.legs) {
            if self.endpoint.link(leg.link).is_some() {
                self.advance_leg(&mut leg, current, now);
                self.legs.push(leg);
            }
        }
    }

    fn advance_leg(&mut self, leg: &mut Leg, current: ConnId, now: Instant) {
        let Some(layer) = self.sessions.get(current).and_then(|s| s.layer.as_ref()) else { return };
        if layer.paths < 2 {
            return;
        }
        let workers = usize::from(layer.workers);
        if let Some(id) = leg.conn {
            let Some(conn) = self.endpoint.get(id) else { return leg.fail(now) };
            if conn.packets_protected() >= self.settings.packet_limit / 4 * 3 {
                debug!(conn = id, "a path moves to a fresh connection");
                conn.close(H3_NO_ERROR, b"");
                self.endpoint.touch(id);
                self.parted(id, now);
                (leg.conn, leg.settled, leg.joined, leg.retry) = (None, None, None, now);
            } else if leg
                .settled
                .is_some_and(|at| conn.path_mtu_settled() || now >= at + MTU_PATIENCE)
                && leg.joined.is_none_or(|(session, _)| session != current)
            {
                self.ask_to_join(leg, id, current, now);
            }
        } else if leg.connector.is_none() && now >= leg.retry {
            let worker = self
                .endpoint
                .get(current)
                .and_then(|conn| (workers > 0).then(|| conn.worker(workers)))
                .map(|n| (n, workers));
            let mark = self.mark(worker);
            let Some(link) = self.endpoint.link(leg.link) else { return };
            let gateways = link.gateways(&self.gateways).to_vec();
            let connector = Connector::new(now, &gateways, &self.settings.sni, RETRY);
            leg.connector = Some(connector.marked(mark));
        }
        if let Some(connector) = &mut leg.connector
            && let Some(link) = self.endpoint.link(leg.link)
            && let Err(failure) = connector.advance(now, &mut link.endpoint, &mut self.quic)
        {
            debug!(path = link.name(), %failure, "a path cannot be had for now");
            leg.fail(now);
        }
    }

    fn ask_to_join(&mut self, leg: &mut Leg, id: ConnId, current: ConnId, now: Instant) {
        let fresh = |at: Instant| now < at + TOKEN_AGE;
        let session = self.sessions.get(current).and_then(|s| s.layer.as_ref());
        if session.and_then(|layer| layer.token).is_none_or(|(_, at)| !fresh(at)) {
            return;
        }
        let Some(offer) = bonding::offer(self.settings, true) else { return };
        let Some(conn) = self.endpoint.get(id) else { return };
        let mut head = headers::connect_ip(self.settings, conn);
        head.push(Header::new(field::NAME.as_bytes(), offer.serialize().as_bytes()));
        if let Ok(stream) = conn.request(&head, false) {
            leg.joined = Some((current, stream));
            self.sessions.joining.retain(|j| j.conn != id);
            self.sessions.joining.push(super::sessions::Joining::new(id, stream));
            self.endpoint.touch(id);
        }
    }

    /// A leg's request to join was granted: the token is spent.
    pub(super) fn join(&mut self, id: ConnId, stream: u64, now: Instant) {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.conn == Some(id)) else { return };
        let Some((session, asked)) = leg.joined.filter(|(_, asked)| *asked == stream) else {
            return;
        };
        let Some(conn) = self.endpoint.get(id) else { return };
        let max = conn.max_datagram_payload(stream).unwrap_or(0);
        let layer = self.sessions.get(session).and_then(|s| s.layer.as_mut());
        let spent = layer.and_then(|layer| {
            let (token, _) = layer.token.take()?;
            let path = layer.bonded.free_path()?;
            layer.bonded.join(now, path, (id, stream), max).then_some((token, path))
        });
        let Some((token, path)) = spent else {
            conn.reset(asked, H3_REQUEST_CANCELLED);
            leg.joined = None;
            return self.endpoint.touch(id);
        };
        let mut capsule = Vec::new();
        capsules::encode(&BondCapsule::Join { token, path }, &mut capsule);
        conn.send_body(stream, capsule.into(), false);
        leg.backoff.reset();
        self.endpoint.touch(id);
        let name = self.endpoint.link(link_of(id)).map_or("", |link| link.name());
        info!(interface = name, path, "another path carries the tunnel");
    }

    /// A leg has something to say: `true` if the note was about one.
    pub(super) fn leg_established(&mut self, id: ConnId) -> bool {
        let Self { legs, endpoint, .. } = self;
        let owner = |leg: &&mut Leg| leg.connector.as_ref().is_some_and(|c| c.owns(id));
        let Some(leg) = legs.iter_mut().find(owner) else { return false };
        if let Some(connector) = &mut leg.connector {
            let _ = connector.won(id, endpoint);
        }
        (leg.connector, leg.conn) = (None, Some(id));
        true
    }

    pub(super) fn leg_settled(&mut self, id: ConnId, now: Instant) -> bool {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.conn == Some(id)) else { return false };
        leg.settled = Some(now);
        if let Some(conn) = self.endpoint.get(id) {
            conn.end_reserve();
            self.endpoint.touch(id);
        }
        true
    }

    pub(super) fn leg_ended(&mut self, id: ConnId, stream: u64, now: Instant) {
        self.sessions.joining.retain(|j| (j.conn, j.stream) != (id, stream));
        for session in &mut self.sessions.list {
            if let Some(layer) = &mut session.layer {
                layer.bonded.leave(now, id, stream);
            }
        }
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.conn == Some(id)) else { return };
        if leg.joined.is_some_and(|(_, asked)| asked == stream) {
            debug!(conn = id, "a path was not let in, or let go");
            if let Some(conn) = self.endpoint.get(id) {
                conn.close(H3_NO_ERROR, b"");
                self.endpoint.touch(id);
            }
            leg.fail(now);
        }
    }

    pub(super) fn leg_closed(
        &mut self,
        id: ConnId,
        closed: &bauta_masque_io::Closed,
        now: Instant,
    ) {
        self.parted(id, now);
        for leg in &mut self.legs {
            if let Some(connector) = &mut leg.connector {
                connector.closed(id, closed, now);
            }
            if leg.conn == Some(id) {
                leg.fail(now);
            }
        }
    }

    /// A connection is part of no bond any more.
    fn parted(&mut self, id: ConnId, now: Instant) {
        self.sessions.joining.retain(|j| j.conn != id);
        for layer in self.sessions.list.iter_mut().filter_map(|s| s.layer.as_mut()) {
            let gone: Vec<u64> =
                layer.bonded.members().iter().filter(|m| m.conn == id).map(|m| m.stream).collect();
            for stream in gone {
                layer.bonded.leave(now, id, stream);
            }
        }
    }

    /// The session's own connection carries nothing any more, others of its bond do: a new session
    /// begins on one of them, with the same addresses; meanwhile the bond goes on.
    pub(super) fn succeed(&mut self, now: Instant) -> bool {
        let Some(current) = self.sessions.current() else { return false };
        if !current.has_other_paths() {
            return false;
        }
        if self.is_connecting() {
            return true;
        }
        let alive = |leg: &&mut Leg| {
            leg.settled.is_some()
                && leg.conn.is_some_and(|id| {
                    let layer = current.layer.as_ref();
                    layer.is_some_and(|layer| {
                        layer.bonded.members().iter().any(|m| {
                            m.conn == id
                                && layer.bonded.bond.path_report(m.path).is_some_and(|r| r.alive)
                        })
                    })
                })
        };
        let Some(leg) = self.legs.iter_mut().find(alive) else { return true };
        let Some(id) = leg.conn.take() else { return true };
        (leg.settled, leg.joined) = (None, None);
        let Some(conn) = self.endpoint.get(id) else { return true };
        let Some(peer) = conn.peer() else { return true };
        let mut session = Session::new(id, peer, now, self.settings);
        if session.settings(conn, now).is_ok() {
            info!(from = link_of(id), "the session moves to another of its paths");
            debug_assert_eq!(session.step, Step::PathMtu);
            self.sessions.list.push(session);
            self.endpoint.set_main(link_of(id));
        }
        true
    }

    /// Interfaces come and go.
    pub(super) fn refresh_links(&mut self, now: Instant) -> Result<(), Failure> {
        let settings = self.settings;
        let (tun, mark) = (&settings.name, settings.mark);
        let usable = interfaces::usable(&settings.paths, &self.gateways, tun, mark);
        let mut gone: Vec<(LinkId, String)> = Vec::new();
        for link in self.endpoint.links() {
            let same = |u: &&Usable| {
                link.interface.as_ref().is_some_and(|i| i.name == u.name && i.local == u.local)
            };
            if !usable.iter().any(|u| same(&u)) {
                gone.push((link.id, link.name().to_owned()));
            }
        }
        for (id, name) in gone {
            self.link_gone(id, now);
            let hosts = self.sessions.list.iter().any(|s| link_of(s.conn) == id);
            if !hosts {
                info!(interface = name, "an interface does not lead to the gateway any more");
                self.endpoint.remove(id);
                self.legs.retain(|leg| leg.link != id);
            }
        }
        for interface in usable {
            let there = self.endpoint.links().iter().any(|link| {
                link.interface
                    .as_ref()
                    .is_some_and(|i| i.name == interface.name && i.local == interface.local)
            });
            if !there {
                info!(interface = interface.name, "an interface leads to the gateway");
                self.endpoint.add(self.settings, Some(interface))?;
            } else if let Some(id) =
                self.endpoint.links().iter().find(|l| l.name() == interface.name).map(|l| l.id)
            {
                self.link_back(id, now);
            }
        }
        if self.endpoint.links().is_empty() && !self.was_up {
            let named = match &settings.paths {
                Paths::Named(names) => names.join(", "),
                _ => "of this machine".into(),
            };
            return Err(Failure::new(
                Stage::Handshake,
                format_args!("no interface {named} leads to the gateway"),
                "is it up, and has it an address and a route there?",
            ));
        }
        Ok(())
    }

    /// What the kernel says at once: nothing goes over this link now.
    pub(super) fn link_gone(&mut self, id: LinkId, now: Instant) {
        let mut own = false;
        for session in &mut self.sessions.list {
            let Some(layer) = &mut session.layer else { continue };
            let on_it: Vec<ConnId> = layer
                .bonded
                .members()
                .iter()
                .map(|m| m.conn)
                .filter(|c| link_of(*c) == id)
                .collect();
            for conn in on_it {
                layer.bonded.link_down(now, conn);
            }
            own |= link_of(session.conn) == id && Some(session.conn) == self.sessions.current;
        }
        if own && !self.succeed(now) {
            warn!("the interface that carried the tunnel is gone; others are tried");
        }
    }

    fn link_back(&mut self, id: LinkId, now: Instant) {
        for layer in self.sessions.list.iter_mut().filter_map(|s| s.layer.as_mut()) {
            let on_it: Vec<ConnId> = layer
                .bonded
                .members()
                .iter()
                .map(|m| m.conn)
                .filter(|c| link_of(*c) == id)
                .collect();
            for conn in on_it {
                layer.bonded.link_up(now, conn);
            }
        }
    }
}
