//! One CONNECT-IP session on one connection: from the handshake to addresses and routes.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::bonding::{self, Layer};
use super::visit::{Stay, Visit};
use bauta_masque::bond::field::{self, Offer};
use bauta_masque::{
    address::{AssignedAddress, Prefix},
    connect_ip::{Config, ConnectIp, Event},
    dns::DnsConfig,
    route::IpRange,
    shape::Shape,
};
use bauta_masque_io::{
    Carrier, ConnId, Connection, DatagramBuf, Header, StreamError, tcp::road::is_road,
};

use crate::{
    config::Settings,
    connect::MTU_PATIENCE,
    headers,
    liveness::Liveness,
    net::Net,
    stage::{Failure, Stage},
    state::Lease,
};

/// How long the gateway may take for each answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a family that was asked for may lag behind the other.
const FAMILY_PATIENCE: Duration = Duration::from_millis(500);
/// Packets kept while the addresses they are for are on their way: what the gateway sends in a round trip of a
/// hand-over at a modest rate.
const EARLY_PACKETS: usize = 256;
/// Nothing is due.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// The least MTU that IPv6 runs on (RFC 8200 §5).
pub(super) const MIN_IPV6: u16 = 1280;
/// The MTU where datagrams travel in capsules, and no packet size binds.
const CAPSULE_MTU: u16 = 1400;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// SETTINGS are awaited.
    Settings,
    /// A visit to the website is under way.
    Visit,
    /// Path MTU discovery is under way.
    PathMtu,
    /// The answer to CONNECT-IP is awaited.
    Asked,
    /// Accepted; addresses and routes are awaited.
    Accepted,
    /// Packets can flow.
    Ready,
}

/// What the gateway has given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) routes: Vec<Net>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) search: Vec<String>,
}

/// One session.
pub(super) struct Session {
    pub(super) conn: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) stream: Option<u64>,
    pub(super) ip: ConnectIp,
    pub(super) step: Step,
    pub(super) liveness: Liveness,
    pub(super) given: Given,
    /// Upstream has moved on; closed then.
    pub(super) retired: Option<Instant>,
    /// The gateway wants us to leave (GOAWAY).
    pub(super) leaving: bool,
    /// HTTP Datagrams are enabled; capsules carry packets otherwise.
    pub(super) datagrams: bool,
    /// Carried by TCP, which looks after itself.
    over_tcp: bool,
    /// Packets that came before the addresses they are for: QUIC keeps no order between the two.
    early: Vec<DatagramBuf>,
    /// The bond that was offered.
    pub(super) offer: Option<Offer>,
    /// The bond that was agreed upon.
    pub(super) layer: Option<Box<Layer>>,
    /// The longest packet it takes, bytes.
    pub(super) max_packet: usize,
    /// Packets that no QUIC packet of a browser's size has room for go in capsules, so that there is IPv6.
    pub(super) overflows: bool,
    /// What comes before the tunnel.
    pub(super) visit: Option<Visit>,
    /// What goes on beside it.
    pub(super) stay: Option<Stay>,
    asked_v4: bool,
    asked_v6: bool,
    answered: (bool, bool),
    routed: bool,
    since: Instant,
    assigned_since: Option<Instant>,
}

impl Session {
    pub(super) fn new(
        conn: ConnId,
        peer: SocketAddr,
        now: Instant,
        settings: &Settings,
    ) -> Session {
        // The kernel has taken a hop off what it forwards into the interface.
        let offer = bonding::offer(settings, false);
        let config = Config { decrement_ttl: false, bond: offer.is_some(), ..Config::client() };
        Session {
            conn,
            peer,
            stream: None,
            ip: ConnectIp::new(config),
            step: Step::Settings,
            liveness: Liveness::new(now, settings.keepalive),
            given: Given::default(),
            retired: None,
            leaving: false,
            datagrams: false,
            over_tcp: is_road(conn),
            early: Vec::new(),
            offer,
            layer: None,
            max_packet: 0,
            overflows: settings.shape == Shape::Web && settings.ipv6,
            visit: None,
            stay: None,
            asked_v4: false,
            asked_v6: false,
            answered: (false, false),
            routed: false,
            since: now,
            assigned_since: None,
        }
    }

    /// SETTINGS have come.
    pub(super) fn settings(&mut self, conn: &mut Connection, now: Instant) -> Result<(), Failure> {
        if !conn.extended_connect_enabled() {
            return Err(Failure::new(
                Stage::Settings,
                "the server does not take extended CONNECT",
                "it is no MASQUE gateway; is the host in the link right?",
            ));
        }
        self.datagrams = conn.datagrams_enabled();
        (self.step, self.since) = (Step::Visit, now);
        self.leave_site(conn, now);
        Ok(())
    }

    /// Goes on with the visit to the website or, when it is over or there is none, to what the path carries.
    /// Returns whether there is something to send.
    pub(super) fn leave_site(&mut self, conn: &mut Connection, now: Instant) -> bool {
        if self.step != Step::Visit {
            return false;
        }
        if let Some(visit) = self.visit.as_mut().filter(|visit| !visit.is_over(now)) {
            return visit.go_on(conn, now);
        }
        if let Some(visit) = self.visit.take() {
            visit.end(conn);
        }
        conn.end_reserve();
        (self.step, self.since) = (Step::PathMtu, now);
        true
    }

    /// Goes on from path MTU discovery when it has settled, or has had its time.
    pub(super) fn is_mtu_known(&self, conn: &Connection, now: Instant) -> bool {
        self.step == Step::PathMtu && (conn.path_mtu_settled() || now >= self.since + MTU_PATIENCE)
    }

    /// Opens the tunnel and asks for addresses in one flight: the ones held before if they can be had.
    pub(super) fn ask(
        &mut self,
        conn: &mut Connection,
        settings: &Settings,
        (v4, v6): (bool, bool),
        lease: Lease,
        now: Instant,
    ) -> Result<(), Failure> {
        let mut list = headers::connect_ip(settings, conn);
        if let Some(offer) = self.offer {
            list.push(Header::new(field::NAME.as_bytes(), offer.serialize().as_bytes()));
        }
        let stream = conn.request(&list, false).map_err(|e| match e {
            StreamError::Blocked => Failure::new(
                Stage::ConnectIp,
                "the gateway allows no request on this connection",
                "it may be overloaded; its log says more",
            ),
            StreamError::Closed => Failure::new(
                Stage::ConnectIp,
                "the connection ended before the request was made",
                "the gateway may be restarting",
            ),
        })?;
        self.stream = Some(stream);
        self.want(conn, (v4, v6), lease);
        (self.step, self.since) = (Step::Asked, now);
        Ok(())
    }

    /// A stream over TCP was accepted: what remains is to ask for addresses.
    pub(super) fn accepted_over_tcp(
        &mut self,
        road: &mut impl Carrier,
        families: (bool, bool),
        lease: Lease,
        now: Instant,
    ) {
        self.stream = Some(0);
        self.want(road, families, lease);
        (self.step, self.since) = (Step::Accepted, now);
    }

    /// Whether the tunnel does without IPv6 only because the path was not known to carry it, and now is.
    pub(super) fn may_ask_for_v6(&self, conn: &impl Carrier) -> bool {
        self.step == Step::Ready && !self.asked_v6 && self.mtu(conn) >= MIN_IPV6
    }

    /// Asks for addresses once more on the stream that is open (RFC 9484 §4.7.2).
    pub(super) fn ask_again(
        &mut self,
        conn: &mut impl Carrier,
        families: (bool, bool),
        lease: Lease,
    ) {
        self.want(conn, families, lease);
    }

    fn want(&mut self, conn: &mut impl Carrier, (v4, v6): (bool, bool), lease: Lease) {
        (self.asked_v4, self.asked_v6) = (v4, v6);
        let any = |held: Option<IpAddr>, any: Net| Prefix::host(held.unwrap_or_else(|| any.addr()));
        let mut want = Vec::new();
        if v4 {
            want.push(any(lease.v4, Net::ALL_V4));
        }
        if v6 {
            want.push(any(lease.v6, Net::ALL_V6));
        }
        self.ip.request_addresses(&want);
        self.transmit(conn);
    }

    /// Keeps a packet that came before the addresses; gives it back where none are awaited, or too many are kept.
    pub(super) fn keep(&mut self, packet: DatagramBuf) -> Option<DatagramBuf> {
        let awaits = self.step < Step::Ready && self.given.addresses.is_empty();
        if !awaits || self.early.len() == EARLY_PACKETS {
            return Some(packet);
        }
        self.early.push(packet);
        None
    }

    /// What was kept, once there are addresses.
    pub(super) fn take_kept(&mut self) -> Vec<DatagramBuf> {
        if self.given.addresses.is_empty() { Vec::new() } else { std::mem::take(&mut self.early) }
    }

    /// Writes the capsules that wait.
    pub(super) fn transmit(&mut self, conn: &mut (impl Carrier + ?Sized)) {
        let Some(stream) = self.stream else { return };
        while let Some(bytes) = self.ip.poll_transmit() {
            conn.send_body(stream, bytes, false);
        }
    }

    /// The gateway has said 2xx.
    pub(super) fn accepted(&mut self, now: Instant) {
        if self.step == Step::Asked {
            (self.step, self.since) = (Step::Accepted, now);
        }
    }

    /// Something the gateway has told. Returns whether what is given has changed.
    pub(super) fn told(&mut self, event: Event, now: Instant) -> bool {
        let before = self.given.clone();
        match event {
            Event::AddressesAssigned(list) => {
                self.assigned_since.get_or_insert(now);
                for assigned in &list {
                    let v4 = assigned.prefix.addr.is_ipv4();
                    self.answered = (self.answered.0 || v4, self.answered.1 || !v4);
                }
                let given = list.iter().filter(|a| !a.is_refusal());
                self.given.addresses = given.map(|a: &AssignedAddress| usable(a.prefix)).collect();
                self.given.addresses.dedup();
            }
            Event::RoutesAdvertised(ranges) => {
                self.routed = true;
                self.given.routes = networks(&ranges);
            }
            Event::DnsAssigned(list) => {
                self.given.dns = list.iter().flat_map(DnsConfig::addresses).collect();
                self.given.search = list.into_iter().flat_map(|d| d.search_domains).collect();
            }
            Event::AddressRequested(_) => {
                // The gateway asks us for addresses (site-to-site): none. The answer is a refusal.
                self.ip.assign(Vec::new());
            }
            Event::DatagramCapsule(_)
            | Event::Bond { .. }
            | Event::LinkProven
            | Event::LinkUnproven => {}
        }
        self.given != before
    }

    /// Whether packets can flow now that could not before; an error when the gateway gives nothing.
    pub(super) fn becomes_ready(&mut self, now: Instant) -> Result<bool, Failure> {
        let late = now >= self.since + ANSWER_PATIENCE;
        match self.step {
            Step::Accepted => {}
            Step::Asked if late => {
                return Err(Failure::new(
                    Stage::ConnectIp,
                    format_args!("no answer to CONNECT-IP in {} s", ANSWER_PATIENCE.as_secs()),
                    "the gateway's log says more",
                ));
            }
            Step::Settings if late => {
                return Err(Failure::new(
                    Stage::Settings,
                    "the server sends no HTTP/3 SETTINGS",
                    "is the port in the link the gateway's?",
                ));
            }
            _ => return Ok(false),
        }
        let answered = (!self.asked_v4 || self.answered.0) && (!self.asked_v6 || self.answered.1);
        let waited = self.assigned_since.is_some_and(|since| now >= since + FAMILY_PATIENCE);
        if !self.given.addresses.is_empty() && self.routed && (answered || waited) {
            self.step = Step::Ready;
            return Ok(true);
        }
        if answered && self.given.addresses.is_empty() && self.assigned_since.is_some() {
            return Err(Failure::new(
                Stage::Addresses,
                "the gateway has no address for this client",
                "its pool may be used up, or another session of this account holds it",
            ));
        }
        if late {
            let what = if self.given.addresses.is_empty() { "address" } else { "routes" };
            let seconds = ANSWER_PATIENCE.as_secs();
            return Err(Failure::new(
                Stage::Addresses,
                format_args!("the gateway accepted the tunnel, but gave no {what} in {seconds} s"),
                "the gateway's log says more",
            ));
        }
        Ok(false)
    }

    /// When this session wants to be looked at.
    pub(super) fn timeout(&self, rtt: Duration) -> Instant {
        if let Some(end) = self.retired {
            return end;
        }
        match self.step {
            Step::PathMtu => self.since + MTU_PATIENCE,
            Step::Visit => self.visit.as_ref().map_or(self.since, Visit::timeout),
            Step::Settings | Step::Asked => self.since + ANSWER_PATIENCE,
            Step::Accepted => {
                let end = self.since + ANSWER_PATIENCE;
                self.assigned_since.map_or(end, |since| end.min(since + FAMILY_PATIENCE))
            }
            Step::Ready if self.over_tcp => self.since + FAR,
            Step::Ready => {
                let alive = self.liveness.timeout(rtt);
                let view = self.visit.as_ref().map(Visit::timeout);
                let stay = self.stay.as_ref().map(|stay| stay.next);
                view.into_iter().chain(stay).fold(alive, Instant::min)
            }
        }
    }

    /// The largest packet that is carried, bytes.
    pub(super) fn mtu(&self, conn: &(impl Carrier + ?Sized)) -> u16 {
        let fits = self.fitting(conn);
        if self.overflows { fits.max(MIN_IPV6) } else { fits }
    }

    /// The largest packet that fits into a datagram, bytes.
    fn fitting(&self, conn: &(impl Carrier + ?Sized)) -> u16 {
        let stream = self.stream.unwrap_or(0);
        if self.max_packet > 0 {
            return u16::try_from(self.max_packet).unwrap_or(u16::MAX);
        }
        // What the bond may add, until it is known whether there is one.
        let undecided = self.offer.is_some() && self.step < Step::Accepted;
        let reserve = 1 + if undecided { bauta_masque::bond::OVERHEAD } else { 0 };
        match conn.max_datagram_payload(stream) {
            Some(max) if self.datagrams => {
                u16::try_from(max.saturating_sub(reserve)).unwrap_or(u16::MAX)
            }
            _ => CAPSULE_MTU,
        }
    }
}

/// The address of the interface out of what was assigned: the only one, or the first that is a host's.
fn usable(prefix: Prefix) -> IpAddr {
    match prefix.addr {
        IpAddr::V4(addr) if prefix.len < 31 => IpAddr::V4((addr.to_bits() + 1).into()),
        IpAddr::V6(addr) if prefix.len < 127 => IpAddr::V6((addr.to_bits() + 1).into()),
        addr => addr,
    }
}

/// The networks of an advertisement, whatever the protocol: what is not carried is answered with ICMP, not sent
/// outside.
fn networks(ranges: &[IpRange]) -> Vec<Net> {
    let mut nets: Vec<Net> = ranges.iter().flat_map(IpRange::prefixes).map(Net).collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

#[cfg(test)]
mod tests {
    use super::*;
    use bauta_masque_io::clock;

    fn session(now: Instant) -> Session {
        let link = ("test".to_string(), "bauta://t@h".to_string());
        let settings =
            Settings::load(crate::config::Sources { link: Some(link), ..Default::default() })
                .unwrap();
        let mut s = Session::new(0, "192.0.2.1:443".parse().unwrap(), now, &settings);
        (s.asked_v4, s.asked_v6, s.step) = (true, true, Step::Accepted);
        s
    }

    fn assigned(list: &[&str]) -> Event {
        let prefix = |p: &&str| AssignedAddress::unsolicited(p.parse().unwrap());
        Event::AddressesAssigned(list.iter().map(prefix).collect())
    }

    #[test]
    fn a_session_is_ready_with_an_address_of_each_family_and_routes() {
        let now = clock::now();
        let mut s = session(now);
        assert!(s.told(assigned(&["10.9.0.2/32", "2001:db8::2/128"]), now));
        assert!(!s.becomes_ready(now).unwrap());
        s.told(Event::RoutesAdvertised(vec![IpRange::ALL_V4, IpRange::ALL_V6]), now);
        assert!(s.becomes_ready(now).unwrap());
        assert_eq!(s.given.routes, [Net::ALL_V4, Net::ALL_V6]);
        assert!(!s.becomes_ready(now).unwrap(), "only once");
    }

    #[test]
    fn one_family_is_enough_after_a_while_or_when_the_other_is_refused() {
        let now = clock::now();
        let mut s = session(now);
        s.told(assigned(&["10.9.0.2/32"]), now);
        s.told(Event::RoutesAdvertised(vec![IpRange::ALL_V4]), now);
        assert!(!s.becomes_ready(now).unwrap());
        assert!(s.becomes_ready(now + FAMILY_PATIENCE).unwrap());
        let mut s = session(now);
        s.told(assigned(&["10.9.0.2/32", "::/128"]), now);
        s.told(Event::RoutesAdvertised(vec![IpRange::ALL_V4]), now);
        assert!(s.becomes_ready(now).unwrap());
        assert_eq!(s.given.addresses.len(), 1);
    }

    #[test]
    fn packets_that_overtake_their_addresses_are_kept_for_them() {
        let now = clock::now();
        let mut s = session(now);
        let packet = || DatagramBuf::copy_of(&[0x45; 20]);
        assert!((0..EARLY_PACKETS).all(|_| s.keep(packet()).is_none()));
        assert!(s.keep(packet()).is_some() && s.take_kept().is_empty());
        s.told(assigned(&["10.9.0.2/32"]), now);
        assert_eq!(s.take_kept().len(), EARLY_PACKETS);
        assert!(s.keep(packet()).is_some() && s.take_kept().is_empty());
    }

    #[test]
    fn a_gateway_without_addresses_is_a_failure_with_a_name() {
        let now = clock::now();
        let mut s = session(now);
        s.told(assigned(&["0.0.0.0/32", "::/128"]), now);
        assert!(s.becomes_ready(now).unwrap_err().what.contains("no address"));
        let mut s = session(now);
        assert!(
            s.becomes_ready(now + ANSWER_PATIENCE).unwrap_err().what.contains("gave no address")
        );
    }

    #[test]
    fn an_assigned_network_yields_a_host_address() {
        let of = |p: &str| usable(p.parse().unwrap()).to_string();
        assert_eq!(of("10.9.0.0/24"), "10.9.0.1");
        assert_eq!(of("2001:db8::/64"), "2001:db8::1");
        assert_eq!(of("10.9.0.7/32"), "10.9.0.7");
        assert_eq!(of("10.9.0.6/31"), "10.9.0.6");
    }
}
