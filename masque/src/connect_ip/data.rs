//! The data side: one verdict a packet, without allocation unless ICMP answers.

use std::net::IpAddr;
use std::time::Instant;

use super::{ConnectIp, DropReason, Icmp, MIN_IPV6_MTU, Role, Verdict};
use crate::filter::{Policy, is_link_local};
use crate::icmp::{self, ALL_NODES, IcmpError};
use crate::packet::{PacketView, decrement_ttl};
use crate::{fragment, varint};

/// Why a packet goes no further, and what its sender may be told.
#[derive(Clone, Copy)]
enum Refusal {
    /// Nothing.
    Silent(DropReason),
    /// An ICMP error.
    Error(DropReason, IcmpError),
    /// The reply to its echo request, from this address.
    Echo(IpAddr),
}

use DropReason as R;
use Refusal::{Echo, Error, Silent};

impl ConnectIp {
    /// Judges an HTTP Datagram Payload from the peer, Context ID onward. A reply goes to the peer.
    #[inline]
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        payload: &'a mut [u8],
        policy: &Policy,
    ) -> Verdict<'a> {
        let at = match varint::decode(payload) {
            Some((0, at)) => at,
            Some(_) => return Verdict::Drop(R::UnknownContext),
            None => return Verdict::Drop(R::NoContext),
        };
        let packet = &mut payload[at..];
        let Ok(view) = PacketView::parse(packet) else { return Verdict::Drop(R::Malformed) };
        let verdict = match self.config.role {
            Role::Proxy => self.up_at_proxy(&view, policy),
            Role::Client => self.down_at_client(&view),
        };
        match verdict {
            Ok(()) => Verdict::Forward(packet),
            Err(refusal) => self.refuse(now, &view, refusal),
        }
    }

    /// Judges a packet from the TUN, to be sent to the peer. `max_payload` is the longest HTTP
    /// Datagram Payload the connection carries now, in bytes. A reply goes back to the TUN. The
    /// packet is changed (by one hop) only if it is forwarded.
    #[inline]
    pub fn encapsulate<'a>(
        &mut self,
        now: Instant,
        packet: &'a mut [u8],
        max_payload: usize,
    ) -> Verdict<'a> {
        let Ok(view) = PacketView::parse(packet) else { return Verdict::Drop(R::Malformed) };
        let verdict = match self.config.role {
            Role::Proxy => self.down_at_proxy(&view),
            Role::Client => self.up_at_client(&view),
        };
        let verdict = verdict.and_then(|own| {
            let hop = !own && self.config.decrement_ttl;
            match view.ttl() {
                0 | 1 if hop => Err(Error(R::TimeExceeded, IcmpError::TimeExceeded)),
                _ => fits(&view, max_payload).map(|()| hop),
            }
        });
        match verdict {
            Err(refusal) => self.refuse(now, &view, refusal),
            Ok(true) if decrement_ttl(packet).is_err() => Verdict::Drop(R::TimeExceeded),
            Ok(_) => Verdict::Forward(packet),
        }
    }

    #[inline]
    fn up_at_proxy(&mut self, view: &PacketView<'_>, policy: &Policy) -> Result<(), Refusal> {
        let (source, destination) = (view.source(), view.destination());
        if self.probe.is_some() && self.settles_probe(view) {
            return Err(Silent(R::Answered));
        }
        if view.is_source_routed() {
            return Err(Silent(R::SourceRouted));
        }
        if is_link_local(destination) || is_link_local(source) {
            return Err(self.on_link(view));
        }
        if !self.accepted.contains(source) && !self.is_of_site(source, view.protocol()) {
            return Err(Error(R::SpoofedSource, IcmpError::SourcePolicy));
        }
        if self.is_router(destination) && view.is_icmp() {
            return Err(Echo(destination));
        }
        if self.to_us.set.contains(destination) {
            return Ok(());
        }
        if !self.routes_to_peer.table.allows(destination, view.protocol()) {
            return Err(Error(R::NoRoute, IcmpError::NoRoute));
        }
        policy.check(destination).map_err(|_| Error(R::Prohibited, IcmpError::Prohibited))
    }

    #[inline]
    fn down_at_client(&mut self, view: &PacketView<'_>) -> Result<(), Refusal> {
        let (source, destination) = (view.source(), view.destination());
        if self.probe.is_some() && self.settles_probe(view) {
            return Err(Silent(R::Answered));
        }
        if view.is_source_routed() {
            return Err(Silent(R::SourceRouted));
        }
        if is_link_local(destination) || is_link_local(source) && !view.is_icmp() {
            return Err(self.on_link(view));
        }
        if !self.to_us.set.contains(destination)
            && !self.routes_to_peer.table.allows(destination, view.protocol())
        {
            return Err(Silent(R::NotOurs));
        }
        let nobody = source.is_loopback() || source.is_multicast() || source.is_unspecified();
        if nobody || self.to_us.set.contains(source) {
            return Err(Silent(R::SpoofedSource));
        }
        // ICMP may come from any router on the way (§7.2.1).
        if !view.is_icmp() && !self.routes_from_peer.table.allows(source, view.protocol()) {
            return Err(Silent(R::SpoofedSource));
        }
        Ok(())
    }

    /// Whether the packet is one of our own making.
    #[inline]
    fn down_at_proxy(&self, view: &PacketView<'_>) -> Result<bool, Refusal> {
        let (source, destination) = (view.source(), view.destination());
        if is_link_local(destination) || is_link_local(source) {
            return Err(Silent(R::LinkLocal));
        }
        if !self.to_peer.set.contains(destination)
            && !self.routes_from_peer.table.allows(destination, view.protocol())
        {
            return Err(Error(R::NoRoute, IcmpError::NoRoute));
        }
        if view.is_icmp() {
            self.about_its_own(view)?;
        } else if self.is_scoped() && !self.routes_to_peer.table.allows(source, view.protocol()) {
            return Err(Silent(R::OutOfScope));
        }
        Ok(self.is_router(source) || self.to_us.set.contains(source))
    }

    /// Whether the packet is one of our own making.
    #[inline]
    fn up_at_client(&self, view: &PacketView<'_>) -> Result<bool, Refusal> {
        let (source, destination) = (view.source(), view.destination());
        if is_link_local(destination) || is_link_local(source) {
            return Err(Silent(R::LinkLocal));
        }
        let own = self.to_us.set.contains(source);
        if !own && !self.routes_to_peer.table.allows(source, view.protocol()) {
            return Err(Silent(R::SpoofedSource));
        }
        if !self.routes_from_peer.table.allows(destination, view.protocol()) {
            return Err(Error(R::NoRoute, IcmpError::NoRoute));
        }
        Ok(own)
    }

    /// A link-local packet from the peer ends here; an echo to all nodes is answered (§7.1).
    #[cold]
    fn on_link(&self, view: &PacketView<'_>) -> Refusal {
        if view.destination() == IpAddr::V6(ALL_NODES) {
            return Echo(self.face_v6().into());
        }
        Silent(R::LinkLocal)
    }

    /// An ICMP error may only reach the peer whose packet it quotes (§11): where several share an
    /// address, the scope of the request tells them apart.
    fn about_its_own(&self, view: &PacketView<'_>) -> Result<(), Refusal> {
        if !icmp::is_error(view) {
            return Ok(());
        }
        let own = |addr, protocol| {
            self.accepted.contains(addr) || self.routes_from_peer.table.allows(addr, protocol)
        };
        let matches = icmp::quoted(view).is_some_and(|q| {
            own(q.source, q.protocol)
                && (!self.is_scoped()
                    || self.routes_to_peer.table.allows(q.destination, q.protocol))
        });
        if matches { Ok(()) } else { Err(Silent(R::ForeignQuote)) }
    }

    #[inline]
    fn is_scoped(&self) -> bool {
        self.config.ipproto.is_some() || !self.config.target.is_empty()
    }

    #[inline]
    fn is_router(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => a == self.config.router_v4,
            IpAddr::V6(a) => a == self.config.router_v6,
        }
    }

    /// Whether the peer advertised a network of its own that holds `source`.
    #[cold]
    fn is_of_site(&self, source: IpAddr, protocol: u8) -> bool {
        self.config.accept_peer_routes && self.routes_from_peer.table.allows(source, protocol)
    }

    #[cold]
    fn refuse(
        &mut self,
        now: Instant,
        view: &PacketView<'_>,
        refusal: Refusal,
    ) -> Verdict<'static> {
        let (reason, reply) = match refusal {
            Silent(reason) => (reason, None),
            Error(reason, about) if self.errors.allow(now) => {
                let router: IpAddr = match view.is_v4() {
                    true => self.config.router_v4.into(),
                    false => self.config.router_v6.into(),
                };
                (reason, icmp::error(about, view, router))
            }
            Error(reason, _) => (reason, None),
            Echo(own) if self.echoes.allow(now) => (R::Answered, icmp::echo_reply(view, own)),
            Echo(_) => (R::Answered, None),
        };
        match reply {
            Some(packet) => Verdict::Reply(Icmp { packet, reason }),
            None => Verdict::Drop(reason),
        }
    }
}

/// Whether the packet and its Context ID fit (§10.1), else what its sender hears.
#[inline]
fn fits(view: &PacketView<'_>, max_payload: usize) -> Result<(), Refusal> {
    if view.bytes().len() < max_payload {
        return Ok(());
    }
    let mtu = max_payload.saturating_sub(1);
    let least = if view.is_v4() { fragment::MIN_MTU } else { MIN_IPV6_MTU };
    Err(match () {
        () if mtu < least => Silent(R::MtuBelowMinimum),
        () if view.dont_fragment() => Error(R::TooBig, IcmpError::TooBig(mtu as u32)),
        () => Silent(R::NeedsFragmentation),
    })
}
