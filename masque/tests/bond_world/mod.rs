//! Two bonds, links between them and flows through them, in virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared by several programs, each of which uses a part"
)]

pub mod flow;
pub mod link;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bauta_masque::bond::field::Offer;
use bauta_masque::bond::{Bond, Config, Event, PathId, Queued, QuicStats, Received, Role};

use flow::{Flow, Tcp, Udp, flow_of};
use link::{Dice, Link, Spec};

/// What QUIC, UDP and IP put around an HTTP Datagram Payload, bytes.
pub const WIRE: usize = 60;
const MAX_PAYLOAD: usize = 1_440;
/// Packets that each end of a connection sends before a tunnel begins.
const BEFORE: u64 = 30;

enum Under {
    Datagram {
        to: usize,
        path: PathId,
        payload: Vec<u8>,
    },
    Capsule {
        to: usize,
        path: PathId,
        kind: u64,
        value: Vec<u8>,
    },
    /// A rival's packet, outside the tunnel.
    Beside {
        to: usize,
        packet: Vec<u8>,
    },
    Acked {
        end: usize,
        path: PathId,
        lost: bool,
        len: usize,
        rtt: u64,
    },
    Stats,
}

pub struct World {
    pub origin: Instant,
    pub now: u64,
    pub bonds: [Bond; 2],
    /// One up (0 to 1) and one down.
    pub links: Vec<[Link; 2]>,
    under_way: BTreeMap<(u64, u64), Under>,
    serial: u64,
    pub flows: Vec<Flow>,
    /// Whether the flow runs beside the tunnel, on link 0.
    beside: Vec<bool>,
    quic: Vec<[QuicStats; 2]>,
    pub events: Vec<(u64, usize, Event)>,
    pub plain: u64,
    pub numbered: u64,
    /// How often a bond's timer was due still right after all it had to say was fetched.
    pub overdue: u64,
    dice: Dice,
    buffer: Vec<u8>,
    /// What an end may send beyond all rules, for tests of bad input.
    pub mangle: Option<fn(&mut Dice, &mut Vec<u8>)>,
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn origin() -> Instant {
    Instant::now()
}

impl World {
    pub fn new(seed: u64, specs: &[Spec], tune: impl Fn(&mut Config)) -> Self {
        let start = origin();
        let agreed = Offer { paths: 8, ..Offer::default() }.agreed();
        let bond = |role| {
            let mut config = Config::new(role, agreed, seed);
            tune(&mut config);
            let mut bond = Bond::new(config, start);
            for id in 0..specs.len() {
                assert!(bond.add_path(start, id as PathId, MAX_PAYLOAD));
            }
            bond
        };
        let link = |(i, s): (usize, &Spec)| {
            [0, 1].map(|d| Link::new(s.clone(), seed * 1_000 + 2 * i as u64 + d))
        };
        let mut dice = Dice(seed ^ 0xf00d);
        let mut quic = |s: &Spec| {
            let rtt = Duration::from_secs_f64(2.0 * s.delay / 1e3);
            [0, 1].map(|_| {
                let lost = (0..BEFORE).filter(|_| dice.unit() < s.loss.share(0.0)).count() as u64;
                QuicStats { rtt, min_rtt: rtt, sent: BEFORE, lost, ..QuicStats::default() }
            })
        };
        let mut world = Self {
            origin: start,
            now: 0,
            bonds: [bond(Role::Client), bond(Role::Proxy)],
            links: specs.iter().enumerate().map(link).collect(),
            under_way: BTreeMap::new(),
            serial: 0,
            flows: Vec::new(),
            beside: Vec::new(),
            quic: specs.iter().map(&mut quic).collect(),
            events: Vec::new(),
            plain: 0,
            numbered: 0,
            overdue: 0,
            dice: Dice(seed ^ 0xbad),
            buffer: Vec::new(),
            mangle: None,
        };
        world.push(10_000, Under::Stats);
        world.drain();
        world
    }

    pub fn tcp(&mut self, limit: Option<u64>) -> usize {
        self.add(false, |id| Flow::Tcp(Box::new(Tcp::new(id, limit))))
    }

    pub fn rival(&mut self) -> usize {
        self.add(true, |id| Flow::Tcp(Box::new(Tcp::new(id, None))))
    }

    pub fn udp(&mut self, len: usize, rate: f64) -> usize {
        self.add(false, |id| Flow::Udp(Udp::new(id, len, rate)))
    }

    fn add(&mut self, beside: bool, make: impl FnOnce(u16) -> Flow) -> usize {
        self.flows.push(make(self.flows.len() as u16));
        self.beside.push(beside);
        self.flows.len() - 1
    }

    pub fn tcp_of(&self, at: usize) -> &Tcp {
        match &self.flows[at] {
            Flow::Tcp(tcp) => tcp,
            Flow::Udp(_) => panic!("flow {at} is UDP"),
        }
    }

    pub fn udp_of(&self, at: usize) -> &Udp {
        match &self.flows[at] {
            Flow::Udp(udp) => udp,
            Flow::Tcp(_) => panic!("flow {at} is TCP"),
        }
    }

    /// The longest silence of a stream of UDP since this was asked last, microseconds.
    pub fn longest(&mut self, at: usize) -> u64 {
        match &mut self.flows[at] {
            Flow::Udp(udp) => std::mem::take(&mut udp.longest_gap).0,
            Flow::Tcp(_) => panic!("flow {at} is TCP"),
        }
    }

    pub fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    fn push(&mut self, at: u64, what: Under) {
        self.serial += 1;
        self.under_way.insert((at, self.serial), what);
    }

    /// Sends an HTTP Datagram Payload over a path.
    fn transmit(&mut self, from: usize, path: PathId, mut payload: Vec<u8>) {
        if payload[0] == 0 {
            self.plain += 1;
        } else {
            self.numbered += 1;
        }
        if let Some(mangle) = self.mangle {
            mangle(&mut self.dice, &mut payload);
        }
        let link = &mut self.links[usize::from(path)][from];
        let rtt = 2.0 * link.spec.delay * 1e3;
        let arrives = link.send(self.now, payload.len() + WIRE);
        let (lost, len) = (arrives.is_none(), payload.len());
        let took = arrives.map_or(rtt as u64, |at| at - self.now + (rtt / 2.0) as u64);
        let acked = Under::Acked { end: from, path, lost, len, rtt: took };
        self.push(self.now + took, acked);
        if let Some(at) = arrives {
            self.push(at, Under::Datagram { to: 1 - from, path, payload });
        }
    }

    /// An inner packet enters the tunnel at an end.
    fn enter(&mut self, end: usize, flow: usize, packet: Vec<u8>) {
        if self.beside[flow] {
            let at = self.links[0][end].send(self.now, packet.len());
            if let Some(at) = at {
                self.push(at, Under::Beside { to: 1 - end, packet });
            }
            return;
        }
        let now = self.instant();
        if self.bonds[end].is_bypassed() {
            return self.transmit(end, 0, [&[0], &packet[..]].concat());
        }
        let queued = self.bonds[end].handle_packet(now, &packet);
        assert!(matches!(queued, Queued::Taken), "{queued:?}");
    }

    /// An inner packet leaves it.
    fn leave(&mut self, end: usize, packet: &[u8]) {
        // What a forger cut short belongs to nobody.
        if packet.len() < 120 {
            return;
        }
        let at = flow_of(packet);
        let Some(flow) = self.flows.get_mut(at) else { return };
        let answer = match flow {
            Flow::Tcp(tcp) if end == 1 => tcp.on_data(self.now, packet),
            Flow::Tcp(tcp) => {
                tcp.on_ack(self.now, packet);
                None
            }
            Flow::Udp(udp) => {
                udp.on_data(self.now, packet);
                None
            }
        };
        if let Some(answer) = answer {
            self.enter(end, at, answer);
        }
    }

    fn arrive(&mut self, what: Under) {
        let now = self.instant();
        match what {
            Under::Datagram { to, path, mut payload } => {
                match self.bonds[to].handle_datagram(now, path, &mut payload) {
                    Received::Packet(packet) => {
                        let packet = packet[1..].to_vec();
                        self.leave(to, &packet);
                    }
                    Received::Taken | Received::Dropped(_) => {}
                }
            }
            Under::Capsule { to, path, kind, value } => {
                self.bonds[to].handle_capsule(now, path, kind, &value).unwrap();
            }
            Under::Beside { to, packet } => self.leave(to, &packet),
            Under::Acked { end, path, lost, len, rtt } => {
                let quic = &mut self.quic[usize::from(path)][end];
                quic.sent += 1;
                quic.lost += u64::from(lost);
                quic.acked_bytes += if lost { 0 } else { len as u64 };
                if !lost {
                    let rtt = Duration::from_micros(rtt);
                    quic.rtt_var = (3 * quic.rtt_var + quic.rtt.abs_diff(rtt)) / 4;
                    quic.rtt = (7 * quic.rtt + rtt) / 8;
                    quic.min_rtt = quic.min_rtt.min(rtt);
                }
            }
            Under::Stats => {
                for end in 0..2 {
                    for path in 0..self.links.len() {
                        let stats = self.quic[path][end];
                        self.bonds[end].handle_path_stats(now, path as PathId, stats);
                    }
                }
                self.push(self.now + 10_000, Under::Stats);
            }
        }
    }

    fn drain(&mut self) {
        let now = self.instant();
        for end in 0..2 {
            loop {
                let mut idle = true;
                while let Some(packet) = self.bonds[end].poll_deliver(now) {
                    let packet = packet[1..].to_vec();
                    self.leave(end, &packet);
                    idle = false;
                }
                let mut buffer = std::mem::take(&mut self.buffer);
                while let Some(path) = self.bonds[end].poll_transmit(now, &mut buffer) {
                    self.transmit(end, path, buffer.clone());
                    idle = false;
                }
                self.buffer = buffer;
                while let Some((path, bytes)) = self.bonds[end].poll_capsule() {
                    let (kind, a) = bauta_masque::varint::decode(&bytes).unwrap();
                    let (_, b) = bauta_masque::varint::decode(&bytes[a..]).unwrap();
                    let value = bytes[a + b..].to_vec();
                    let delay = self.links[usize::from(path)][end].spec.delay * 1e3;
                    let at = self.now + delay as u64;
                    self.push(at, Under::Capsule { to: 1 - end, path, kind, value });
                }
                while let Some(event) = self.bonds[end].poll_event() {
                    self.events.push((self.now, end, event));
                }
                if idle {
                    break;
                }
            }
        }
    }

    fn feed(&mut self) {
        for at in 0..self.flows.len() {
            loop {
                let (reply, packet) = match &mut self.flows[at] {
                    Flow::Tcp(tcp) => {
                        let due = tcp.deadline() <= self.now;
                        let reply = if due { tcp.on_timer(self.now) } else { None };
                        (reply, tcp.poll(self.now))
                    }
                    Flow::Udp(udp) => (None, udp.poll(self.now)),
                };
                let idle = packet.is_none() && reply.is_none();
                if let Some(reply) = reply {
                    self.enter(1, at, reply);
                }
                if let Some(packet) = packet {
                    self.enter(0, at, packet);
                }
                if idle {
                    break;
                }
            }
        }
    }

    /// Runs until a moment, seconds.
    pub fn run_until(&mut self, seconds: f64) {
        let end = (seconds * 1e6) as u64;
        while self.now < end {
            self.feed();
            self.drain();
            let mut next = self.under_way.first_key_value().map_or(end, |((at, _), _)| *at);
            for flow in &self.flows {
                next = next.min(match flow {
                    Flow::Tcp(tcp) => tcp.deadline(),
                    Flow::Udp(udp) => udp.deadline(),
                });
            }
            for end in 0..2 {
                if let Some(at) = self.bonds[end].poll_timeout() {
                    let at = at.saturating_duration_since(self.origin).as_micros() as u64;
                    if at <= self.now {
                        self.overdue += 1;
                        let now = self.instant();
                        self.bonds[end].handle_timeout(now);
                        next = next.min(self.now + 20);
                    }
                    next = next.min(at.max(self.now + 1));
                }
            }
            self.now = next.clamp(self.now, end);
            for bond in &mut self.bonds {
                let now = self.origin + Duration::from_micros(self.now);
                if bond.poll_timeout().is_some_and(|at| at <= now) {
                    bond.handle_timeout(now);
                }
            }
            while let Some((&(at, _), _)) = self.under_way.first_key_value() {
                if at > self.now {
                    break;
                }
                let Some((_, what)) = self.under_way.pop_first() else { break };
                self.arrive(what);
            }
        }
    }

    /// Inner-IP Mbit/s of a flow over a span of seconds, given what it had delivered before.
    pub fn delivered(&self, at: usize) -> u64 {
        match &self.flows[at] {
            Flow::Tcp(tcp) => tcp.delivered,
            Flow::Udp(udp) => udp.bytes,
        }
    }
}

/// Mbit/s.
pub fn mbit(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 * 8.0 / seconds / 1e6
}
