//! A proxy and a client, an hour of virtual time over a seeded network that loses, delays and
//! reorders datagrams and cuts the stream where it likes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bauta_masque::address::{AssignedAddress, Prefix};
use bauta_masque::connect_ip::{Config, ConnectIp, Event, Verdict};
use bauta_masque::filter::Policy;
use bauta_masque::route::IpRange;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
const HOUR: Duration = Duration::from_secs(3600);
/// One packet each way.
const BEAT: Duration = Duration::from_millis(10);
/// The client's address changes this often.
const RENUMBERING: Duration = Duration::from_secs(300);
const MAX_PAYLOAD: usize = 1400;

/// Splitmix64: a network's whims, all of them from one seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Proxy,
    Client,
}

enum Carried {
    Stream(Vec<u8>),
    Datagram(Vec<u8>),
}

/// What is under way, by its time of arrival.
struct Network {
    dice: Dice,
    loss_percent: u64,
    under_way: BTreeMap<(Instant, u64), (End, Carried)>,
    /// The stream is in order: nothing of it arrives before this.
    stream_until: [Option<Instant>; 2],
    sent: u64,
    lost: u64,
}

impl Network {
    fn push(&mut self, at: Instant, to: End, what: Carried) {
        let tie = self.dice.next();
        self.under_way.insert((at, tie), (to, what));
    }

    fn datagram(&mut self, now: Instant, to: End, packet: &[u8]) {
        self.sent += 1;
        if self.dice.below(100) < self.loss_percent {
            self.lost += 1;
            return;
        }
        let delay = Duration::from_micros(10_000 + self.dice.below(30_000));
        self.push(now + delay, to, Carried::Datagram([&[0], packet].concat()));
    }

    fn stream(&mut self, now: Instant, to: End, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = 1 + self.dice.below(rest.len() as u64) as usize;
            let earliest = self.stream_until[to as usize].unwrap_or(now).max(now);
            let at = earliest + Duration::from_micros(1 + self.dice.below(40_000));
            self.stream_until[to as usize] = Some(at);
            self.push(at, to, Carried::Stream(rest[..cut].to_vec()));
            rest = &rest[cut..];
        }
    }
}

/// A UDP packet with a number in it.
fn packet(source: Ipv4Addr, destination: Ipv4Addr, number: u64) -> Vec<u8> {
    let mut p = vec![0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0];
    p.extend(source.octets());
    p.extend(destination.octets());
    p.extend([0, 53, 0, 53, 0, 16, 0, 0]);
    p.extend(number.to_be_bytes());
    p
}

fn number(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[28..36].try_into().unwrap())
}

fn host(n: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 7, 0, 2 + n as u8)
}

fn assigned(address: Ipv4Addr) -> Vec<AssignedAddress> {
    vec![AssignedAddress::unsolicited(Prefix::host(address.into()))]
}

struct World {
    net: Network,
    proxy: ConnectIp,
    client: ConnectIp,
    policy: Policy,
    /// What the proxy assigned, and since when.
    given: Vec<(Instant, Ipv4Addr)>,
    /// What the client knows.
    known: Option<Ipv4Addr>,
    forwarded: [u64; 2],
    dropped: u64,
}

impl World {
    fn new(seed: u64, loss_percent: u64) -> Self {
        let policy = Policy { pools: vec!["10.7.0.0/16".parse().unwrap()], ..Policy::default() };
        Self {
            net: Network {
                dice: Dice(seed),
                loss_percent,
                under_way: BTreeMap::new(),
                stream_until: [None; 2],
                sent: 0,
                lost: 0,
            },
            proxy: ConnectIp::new(Config::proxy(ROUTER, "2a00:7::1".parse().unwrap())),
            client: ConnectIp::new(Config::client()),
            policy,
            given: Vec::new(),
            known: None,
            forwarded: [0; 2],
            dropped: 0,
        }
    }

    fn renumber(&mut self, now: Instant) {
        let address = host(self.given.len() as u64);
        self.given.push((now, address));
        self.proxy.assign(assigned(address));
        self.proxy.advertise(&[IpRange::ALL_V4]).unwrap();
        self.pump(now);
    }

    /// Drains both sessions, as the contract wants after each change.
    fn pump(&mut self, now: Instant) {
        while let Some(bytes) = self.proxy.poll_transmit() {
            self.net.stream(now, End::Client, &bytes);
        }
        while let Some(bytes) = self.client.poll_transmit() {
            self.net.stream(now, End::Proxy, &bytes);
        }
        while let Some(event) = self.client.poll_event() {
            if let Event::AddressesAssigned(list) = event {
                let first = list.first().map(|a| a.prefix.addr);
                self.known = first.map(|ip| ip.to_string().parse().unwrap());
            }
        }
        while self.proxy.poll_event().is_some() {}
    }

    /// A packet each way: the client's from the address it knows, the world's to the one given.
    fn beat(&mut self, now: Instant, n: u64) {
        if let Some(source) = self.known {
            let mut up = packet(source, WEB, n);
            match self.client.encapsulate(now, &mut up, MAX_PAYLOAD) {
                Verdict::Forward(p) => self.net.datagram(now, End::Proxy, p),
                _ => self.dropped += 1,
            }
        }
        let (_, destination) = *self.given.last().unwrap();
        let mut down = packet(WEB, destination, n);
        match self.proxy.encapsulate(now, &mut down, MAX_PAYLOAD) {
            Verdict::Forward(p) => self.net.datagram(now, End::Client, p),
            _ => self.dropped += 1,
        }
    }

    fn arrive(&mut self, now: Instant, to: End, what: Carried) {
        match (to, what) {
            (End::Proxy, Carried::Stream(bytes)) => {
                self.proxy.handle_stream(now, &bytes).unwrap();
            }
            (End::Client, Carried::Stream(bytes)) => {
                self.client.handle_stream(now, &bytes).unwrap();
            }
            (End::Proxy, Carried::Datagram(mut payload)) => {
                match self.proxy.handle_datagram(now, &mut payload, &self.policy) {
                    Verdict::Forward(p) => {
                        let source = Ipv4Addr::new(p[12], p[13], p[14], p[15]);
                        assert_eq!(source, self.given.last().unwrap().1, "an address taken back");
                        assert_eq!(p, packet(source, WEB, number(p)), "changed on its way");
                        self.forwarded[0] += 1;
                    }
                    Verdict::Reply(_) | Verdict::Drop(_) => self.dropped += 1,
                }
            }
            (End::Client, Carried::Datagram(mut payload)) => {
                match self.client.handle_datagram(now, &mut payload, &self.policy) {
                    Verdict::Forward(p) => {
                        let destination = Ipv4Addr::new(p[16], p[17], p[18], p[19]);
                        assert_eq!(Some(destination), self.known, "for somebody else");
                        self.forwarded[1] += 1;
                    }
                    Verdict::Reply(_) | Verdict::Drop(_) => self.dropped += 1,
                }
            }
        }
        self.pump(now);
    }

    fn run(&mut self, start: Instant, span: Duration) {
        let (mut beat, mut renumbering) = (start, start);
        let mut n = 0;
        while beat < start + span {
            if renumbering <= beat {
                self.renumber(renumbering);
                renumbering += RENUMBERING;
            }
            match self.net.under_way.first_key_value() {
                Some((&(at, _), _)) if at <= beat => {
                    let ((at, _), (to, what)) = self.net.under_way.pop_first().unwrap();
                    self.arrive(at, to, what);
                }
                _ => {
                    self.beat(beat, n);
                    (beat, n) = (beat + BEAT, n + 1);
                }
            }
        }
    }
}

/// Any instant will do: nothing here reads a clock.
#[expect(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn an_hour_of_losses_delays_and_renumbering_leaves_the_sessions_right() {
    for (seed, loss_percent) in [(1, 0), (2, 5), (3, 15), (4, 50)] {
        let mut world = World::new(seed, loss_percent);
        world.run(start(), HOUR);
        let arrived = world.net.sent - world.net.lost - world.net.under_way.len() as u64;
        let forwarded = world.forwarded[0] + world.forwarded[1];
        assert!(world.given.len() == 12 && forwarded <= arrived);
        // What is dropped was under way while the address changed: a tenth of a second each time.
        let astray = arrived - forwarded;
        assert!(astray <= 12 * 2 * 20, "seed {seed}: {astray} of {arrived} went astray");
        let share = world.net.lost * 100 / world.net.sent;
        assert!(share.abs_diff(loss_percent) <= 1, "seed {seed}: {share} % lost");
    }
}

#[test]
fn the_same_seed_gives_the_same_hour() {
    let outcome = |seed| {
        let mut world = World::new(seed, 10);
        world.run(start(), HOUR / 12);
        (world.forwarded, world.dropped, world.net.sent, world.net.lost)
    };
    assert_eq!(outcome(7), outcome(7));
    assert_ne!(outcome(7), outcome(8));
}
