//! A CONNECT-IP session (RFC 9484): one IP tunnel on one request stream, either end of it.
//!
//! The control side is capsules: [`ConnectIp::handle_stream`] in, [`ConnectIp::poll_transmit`] and
//! [`ConnectIp::poll_event`] out. The data side is two calls a packet, [`ConnectIp::handle_datagram`]
//! from the peer and [`ConnectIp::encapsulate`] to it, which neither allocate nor copy unless an
//! ICMP message answers.
//!
//! A packet that policy refuses is a forwarding error and never ends the session (§7.2); only a
//! capsule that breaks the RFC does.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use bytes::Bytes;

use crate::address::{AssignedAddress, Prefix, RequestedAddress};
use crate::capsule::{CapsuleParser, KNOWN_BONDED_IP, KNOWN_IP};
use crate::dns::DnsConfig;
use crate::icmp::RateLimit;
use crate::route::{IpRange, RouteTable};
pub use crate::session::{Role, SessionError};

mod control;
mod data;
mod prefixes;
mod probe;
mod reason;

use prefixes::PrefixSet;
use probe::Probe;
pub use probe::{PROBE_ATTEMPTS, PROBE_TIMEOUT};
pub use reason::DropReason;

/// The most DATAGRAM and bond capsules that wait to be polled; more are dropped and counted.
pub const MAX_EVENTS: usize = 1_024;

/// The most addresses one session may ever request.
pub const MAX_REQUESTS: usize = 1_024;

/// The least MTU of an IPv6 link (RFC 8200 §5), in bytes.
pub const MIN_IPV6_MTU: usize = 1_280;

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// The source of ICMPv4 messages made here, and at a proxy an address that answers echoes.
    pub router_v4: Ipv4Addr,
    /// The same for ICMPv6.
    pub router_v6: Ipv6Addr,
    /// Proxy: what the request's `target` limits the tunnel to; empty for no limit. A name's
    /// resolved addresses go here as host prefixes.
    pub target: Vec<Prefix>,
    /// Proxy: the request's `ipproto`.
    pub ipproto: Option<u8>,
    /// ICMP errors a second, and echo replies a second, this session makes at most.
    pub icmp_per_second: u32,
    /// How many of either it makes at once.
    pub icmp_burst: u32,
    /// Whether a hop is taken off what is forwarded into the tunnel (§7.1). Switch it off where a
    /// kernel routes into the tunnel and has done so already.
    pub decrement_ttl: bool,
    /// Whether the peer may send from the ranges it advertised, for site-to-site tunnels.
    pub accept_peer_routes: bool,
    /// Where the identifiers of our own echo requests begin.
    pub seed: u64,
    /// Whether a [bond](crate::bond) was negotiated: its capsules become [`Event::Bond`]; else
    /// they are as unknown as any.
    pub bond: bool,
}

impl Config {
    /// A proxy whose side of the tunnel has these addresses.
    pub fn proxy(router_v4: Ipv4Addr, router_v6: Ipv6Addr) -> Self {
        Self {
            role: Role::Proxy,
            router_v4,
            router_v6,
            target: Vec::new(),
            ipproto: None,
            icmp_per_second: 100,
            icmp_burst: 50,
            decrement_ttl: true,
            accept_peer_routes: false,
            seed: 0,
            bond: false,
        }
    }

    /// A client. Its ICMP errors come from the IPv4 dummy address (RFC 7600) and a link-local one,
    /// since a host discards what claims to come from itself.
    pub fn client() -> Self {
        let v6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        Self { role: Role::Client, ..Self::proxy(Ipv4Addr::new(192, 0, 0, 8), v6) }
    }
}

/// What the session tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer wants addresses. Answer with [`ConnectIp::assign`]; what is left out is refused.
    AddressRequested(Vec<RequestedAddress>),
    /// The full list of what we may send from. Entries that are
    /// [refusals](AssignedAddress::is_refusal) answer a request of ours with "none".
    AddressesAssigned(Vec<AssignedAddress>),
    /// The full list of where the peer routes to.
    RoutesAdvertised(Vec<IpRange>),
    /// The resolvers the peer would have us use. Heed them only from a peer trusted to say so.
    DnsAssigned(Vec<DnsConfig>),
    /// An HTTP Datagram that came as a capsule: hand it to [`ConnectIp::handle_datagram`].
    DatagramCapsule(Bytes),
    /// A capsule for [`Bond::handle_capsule`](crate::bond::Bond::handle_capsule).
    Bond {
        /// The capsule type.
        kind: u64,
        /// Its value.
        value: Bytes,
    },
    /// The peer answered an echo of 1280 bytes: the tunnel is fit for IPv6.
    LinkProven,
    /// It did not: an endpoint that assigned or uses IPv6 must abort the stream (§7.1).
    LinkUnproven,
}

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Send it on: from [`ConnectIp::handle_datagram`] to the TUN, from [`ConnectIp::encapsulate`]
    /// to the peer behind [`CONTEXT_ID_ZERO`](crate::datagram::CONTEXT_ID_ZERO).
    Forward(&'a mut [u8]),
    /// Do not, and send this back where the packet came from.
    Reply(Icmp),
    /// Do not.
    Drop(DropReason),
}

/// A whole ICMP packet that answers another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// The packet, IP header included.
    pub packet: Vec<u8>,
    /// What became of the packet it answers, for the metrics.
    pub reason: DropReason,
}

/// A list of assigned addresses and its form for the data path.
#[derive(Debug, Default)]
struct Addresses {
    list: Vec<AssignedAddress>,
    set: PrefixSet,
}

/// Ranges and their form for the data path.
#[derive(Debug, Default)]
struct Routes {
    list: Vec<IpRange>,
    table: RouteTable,
    /// Whether an advertisement was ever made.
    told: bool,
}

/// The session's state.
#[derive(Debug)]
pub struct ConnectIp {
    config: Config,
    parser: CapsuleParser,
    transmit: VecDeque<Bytes>,
    events: VecDeque<Event>,
    packets: VecDeque<Vec<u8>>,
    queued_datagrams: usize,
    overflow: u64,
    failed: bool,
    to_peer: Addresses,
    to_us: Addresses,
    /// What the peer may send from: `to_peer`, and after `retire` what it had then.
    accepted: PrefixSet,
    retired: Option<PrefixSet>,
    routes_to_peer: Routes,
    routes_from_peer: Routes,
    /// Requests handed out by `poll_event` and not answered yet.
    pending: Vec<RequestedAddress>,
    seen_requests: BTreeSet<u64>,
    next_request: u64,
    /// A DNS_ASSIGN that waits for the first ROUTE_ADVERTISEMENT.
    held_dns: Option<Vec<DnsConfig>>,
    errors: RateLimit,
    echoes: RateLimit,
    probe: Option<Probe>,
}

impl ConnectIp {
    /// A session on a stream that has just been accepted.
    pub fn new(config: Config) -> Self {
        let limit = RateLimit::new(config.icmp_per_second, config.icmp_burst);
        let known = if config.bond { KNOWN_BONDED_IP } else { KNOWN_IP };
        Self {
            config,
            parser: CapsuleParser::new(known),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            packets: VecDeque::new(),
            queued_datagrams: 0,
            overflow: 0,
            failed: false,
            to_peer: Addresses::default(),
            to_us: Addresses::default(),
            accepted: PrefixSet::default(),
            retired: None,
            routes_to_peer: Routes::default(),
            routes_from_peer: Routes::default(),
            pending: Vec::new(),
            seen_requests: BTreeSet::new(),
            next_request: 1,
            held_dns: None,
            errors: limit.clone(),
            echoes: limit,
            probe: None,
        }
    }

    /// Which end this is.
    pub const fn role(&self) -> Role {
        self.config.role
    }

    /// The next bytes to write to the request stream, whole capsules.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let next = self.transmit.pop_front();
        if next.is_none() {
            self.transmit = VecDeque::new();
        }
        next
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let Some(event) = self.events.pop_front() else {
            // Sessions are many, and all but their beginning is silence here.
            self.events = VecDeque::new();
            return None;
        };
        match &event {
            Event::AddressRequested(list) => self.pending.extend(list),
            Event::DatagramCapsule(_) | Event::Bond { .. } => self.queued_datagrams -= 1,
            _ => {}
        }
        Some(event)
    }

    /// The next packet of our own for the peer, to be sent like one that
    /// [`encapsulate`](Self::encapsulate) forwards.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.probe.as_ref().map(Probe::due)
    }

    /// What the peer was told it may send from.
    pub fn assigned_to_peer(&self) -> &[AssignedAddress] {
        &self.to_peer.list
    }

    /// What we may send from, refusals left out.
    pub fn assigned_to_us(&self) -> &[AssignedAddress] {
        &self.to_us.list
    }

    /// Where the peer routes to.
    pub fn routes_from_peer(&self) -> &[IpRange] {
        &self.routes_from_peer.list
    }

    /// Where the peer was told we route to, the request's scope applied.
    pub fn routes_to_peer(&self) -> &[IpRange] {
        &self.routes_to_peer.list
    }

    /// Whether the peer may send from `addr` now.
    pub fn may_send_from(&self, addr: IpAddr) -> bool {
        self.accepted.contains(addr)
    }

    /// DATAGRAM capsules that were dropped: too long, or more at once than [`MAX_EVENTS`].
    pub fn dropped_capsules(&self) -> u64 {
        self.overflow + self.parser.oversize_datagrams()
    }

    /// An error if IPv6 is in use and the connection can carry HTTP Datagram Payloads of
    /// `max_payload` bytes only, too few for IPv6's 1280 and a Context ID: abort the stream (§7.1).
    pub fn check_mtu(&self, max_payload: usize) -> Result<(), SessionError> {
        let v6 = self.to_peer.set.has_v6() || self.to_us.set.has_v6();
        match max_payload.saturating_sub(1) {
            mtu if v6 && mtu < MIN_IPV6_MTU => Err(SessionError::LinkTooSmall(mtu)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
