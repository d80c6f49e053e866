//! CONNECT-IP through the real gateway: TUN, rules and kernel, in namespaces of the test's own.
//!
//! Each test runs itself again inside a namespace that holds gateway and client; another one behind
//! a veth pair is the Internet. Without root there is nothing to test with, and they say so.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use bauta_masque::address::Prefix;
use bauta_masque::bond::capsules::{self, BondCapsule, CloseCode, Token};
use bauta_masque::capsule::{Capsule, CapsuleParser, KNOWN_BONDED_IP};
use bauta_masque::checksum;
use bauta_masque::connect_ip::{Config, ConnectIp, Event};
use bauta_masque_io::clock;
use common::{Client, Gateway};

const TUNNEL: &str = "allow = [\"203.0.113.0/24\", \"2001:db8:1::/64\"]\nname = \"bautat0\"\n\
                      dns = [\"203.0.113.2\"]";
const INSIDE: &str = "BAUTA_TEST_INSIDE";

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).status().unwrap();
    assert!(done.success(), "ip {args}");
}

/// Two namespaces, gone with this.
struct World(String, String);

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.0, &self.1] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `test` in a world of its own.
fn in_a_world<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(test());
    }
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root for namespaces");
    }
    let id = format!("{}{}", std::process::id(), name.len());
    let world = World(format!("bauta-gw-{id}"), format!("bauta-net-{id}"));
    let (gw, net) = (&world.0, &world.1);
    ip(&format!("netns add {gw}"));
    ip(&format!("netns add {net}"));
    ip(&format!("-n {gw} link set lo up"));
    ip(&format!("-n {gw} link add out type veth peer name in netns {net}"));
    for (ns, link, last) in [(gw, "out", 1), (net, "in", 2)] {
        ip(&format!("-n {ns} addr add 203.0.113.{last}/24 dev {link}"));
        ip(&format!("-n {ns} addr add 2001:db8:1::{last}/64 dev {link} nodad"));
        ip(&format!("-n {ns} link set {link} up"));
    }
    let done = Command::new("ip")
        .args(["netns", "exec", gw])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(done.success(), "failed inside the namespace");
}

/// A client's end of a session.
struct Tunnel {
    client: Client,
    session: ConnectIp,
    stream: u64,
    read: usize,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
    dns: bool,
}

impl Tunnel {
    /// Opens one, and asks for these addresses if there are any.
    async fn open(gateway: &Gateway, wish: &[Prefix]) -> Self {
        let mut client = gateway.connect().await;
        let stream = client.connect_ip(&gateway.token);
        let mut session = ConnectIp::new(Config::client());
        session.request_addresses(wish);
        while let Some(capsules) = session.poll_transmit() {
            client.conn().send_body(stream, capsules, false);
        }
        client.until(|heard| heard.heads.contains_key(&stream)).await;
        assert_eq!(client.heard.status(stream), Some("200"));
        let mut tunnel = Self { client, session, stream, read: 0, v4: None, v6: None, dns: false };
        for _ in 0..100 {
            if tunnel.v4.is_some() && tunnel.v6.is_some() && tunnel.dns {
                break;
            }
            tunnel.listen(Duration::from_millis(20)).await;
        }
        tunnel
    }

    async fn listen(&mut self, time: Duration) {
        self.client.run(time, |_| false).await;
        let body = self.client.heard.body(self.stream)[self.read..].to_vec();
        self.read += body.len();
        self.session.handle_stream(clock::now(), &body).unwrap();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::AddressesAssigned(list) => {
                    let of = |v6: bool| {
                        let usable = list.iter().filter(|a| !a.is_refusal());
                        usable.map(|a| a.prefix.addr).find(|a| a.is_ipv6() == v6)
                    };
                    (self.v4, self.v6) = (of(false), of(true));
                }
                Event::DnsAssigned(list) => self.dns = !list.is_empty(),
                _ => {}
            }
        }
    }

    fn send(&mut self, packet: &[u8]) {
        self.client.conn().send_datagram(self.stream, &[0], packet).unwrap();
    }

    /// Whether an echo reply that ends with `tail` comes within the time.
    async fn hears(&mut self, tail: &[u8], time: Duration) -> bool {
        let reply = |d: &[u8]| match d[1] >> 4 {
            4 => d[1 + 20] == 0,
            _ => d[1 + 40] == 129,
        };
        let hears = |d: &[u8]| d.ends_with(tail) && reply(d);
        self.client.run(time, |heard| heard.datagrams.iter().any(|(_, d)| hears(d))).await
    }
}

/// An ICMP echo request.
fn echo_v4(from: Ipv4Addr, to: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    let mut icmp = [&[8, 0, 0, 0, 0, 7, 0, 1], data].concat();
    let sum = checksum::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let len = (20 + icmp.len()) as u16;
    let mut head = [&[0x45, 0][..], &len.to_be_bytes(), &[0, 0, 0, 0, 64, 1, 0, 0]].concat();
    head.extend(from.octets().into_iter().chain(to.octets()));
    let sum = checksum::checksum(&head);
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [head, icmp].concat()
}

fn echo_v6(from: Ipv6Addr, to: Ipv6Addr, data: &[u8]) -> Vec<u8> {
    let mut icmp = [&[128, 0, 0, 0, 0, 7, 0, 1], data].concat();
    let pseudo =
        [&from.octets()[..], &to.octets(), &(icmp.len() as u32).to_be_bytes(), &[0, 0, 0, 58]]
            .concat();
    let sum = checksum::checksum(&[&pseudo[..], &icmp].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let len = (icmp.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0][..], &len, &[58, 64], &from.octets(), &to.octets(), &icmp].concat()
}

fn v4(ip: Option<IpAddr>) -> Ipv4Addr {
    match ip {
        Some(IpAddr::V4(ip)) => ip,
        other => panic!("no IPv4 address: {other:?}"),
    }
}

fn v6(ip: Option<IpAddr>) -> Ipv6Addr {
    match ip {
        Some(IpAddr::V6(ip)) => ip,
        other => panic!("no IPv6 address: {other:?}"),
    }
}

const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_of_both_families_go_out_and_come_back() {
    in_a_world("packets_of_both_families_go_out_and_come_back", async || {
        let gateway = Gateway::start_with(TUNNEL);
        // No ADDRESS_REQUEST at all: addresses come unasked.
        let mut tunnel = Tunnel::open(&gateway, &[]).await;
        assert!(tunnel.dns);
        let (own, own6) = (v4(tunnel.v4), v6(tunnel.v6));
        assert_eq!((own, own6.segments()[7]), (Ipv4Addr::new(10, 77, 0, 2), 2));
        tunnel.send(&echo_v4(own, HOST, b"over IPv4"));
        assert!(tunnel.hears(b"over IPv4", SECOND).await);
        // The first packets until the path's size is known may find no room for IPv6.
        for _ in 0..5 {
            tunnel.send(&echo_v6(own6, HOST6, b"over IPv6"));
            if tunnel.hears(b"over IPv6", SECOND).await {
                break;
            }
        }
        assert!(tunnel.hears(b"over IPv6", SECOND).await);
        // Somebody else's source, a metadata service, another client: nothing goes out.
        tunnel.send(&echo_v4(Ipv4Addr::new(10, 77, 9, 9), HOST, b"spoofed"));
        tunnel.send(&echo_v4(own, Ipv4Addr::new(169, 254, 169, 254), b"metadata"));
        tunnel.send(&echo_v4(own, Ipv4Addr::new(10, 77, 0, 3), b"neighbour"));
        assert!(!tunnel.hears(b"spoofed", SECOND / 4).await);
        let metrics = gateway.admin("/metrics");
        let drops = |why: &str| {
            let line = format!("bauta_connect_ip_dropped_packets_total{{why=\"{why}\"}} ");
            let count = metrics.split(&line).nth(1).unwrap().lines().next().unwrap();
            count.parse::<u64>().unwrap()
        };
        assert_eq!(drops("spoofed_source"), 1, "{metrics}");
        assert!(drops("prohibited") + drops("link_local") >= 2, "{metrics}");
        let sessions = gateway.admin("/sessions");
        assert!(sessions.contains("\"10.77.0.2\""), "{sessions}");
    });
}

#[test]
fn a_newer_session_takes_the_address_over_and_a_restart_remembers_it() {
    in_a_world("a_newer_session_takes_the_address_over_and_a_restart_remembers_it", async || {
        let mut gateway = Gateway::start_with(&format!("{TUNNEL}\nsessions = 2"));
        let mut old = Tunnel::open(&gateway, &[]).await;
        let other = Tunnel::open(&gateway, &[]).await;
        let own = v4(old.v4);
        assert_ne!(own, v4(other.v4));
        let wish = [Prefix::host(own.into()), Prefix::host(v6(old.v6).into())];
        let mut new = Tunnel::open(&gateway, &wish).await;
        assert_eq!((new.v4, new.v6), (old.v4, old.v6));
        // What the older one still sends is let through; the answer goes to the newer.
        old.send(&echo_v4(own, HOST, b"by the old road"));
        old.client.run(SECOND / 10, |_| false).await;
        assert!(new.hears(b"by the old road", SECOND).await);
        assert!(!old.hears(b"by the old road", SECOND / 10).await);
        drop((old, new, other));
        tokio::time::sleep(2 * SECOND).await;
        gateway.crash_and_restart();
        let again = Tunnel::open(&gateway, &wish).await;
        assert_eq!(v4(again.v4), own);
    });
}

#[test]
fn an_ordinary_user_serves_and_cleans_up() {
    in_a_world("an_ordinary_user_serves_and_cleans_up", async || {
        let gateway = Gateway::start_as("nobody", TUNNEL);
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(field("Uid:"), "65534");
        assert_eq!(field("CapEff:"), format!("{:016x}", 1 << 12), "CAP_NET_ADMIN alone");
        let mut tunnel = Tunnel::open(&gateway, &[]).await;
        tunnel.send(&echo_v4(v4(tunnel.v4), HOST, b"as nobody"));
        assert!(tunnel.hears(b"as nobody", SECOND).await);
        gateway.signal(nix::sys::signal::Signal::SIGHUP);
        tokio::time::sleep(SECOND / 2).await;
        assert!(gateway.log().contains("were read again"), "{}", gateway.log());
        let leases = gateway.dir.path().join("state/leases.json");
        tokio::time::sleep(SECOND).await;
        assert!(std::fs::read_to_string(leases).unwrap().contains("alice"));
        assert_eq!(gateway.stop(), 0);
        let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(forward.trim(), "0");
        let output = Command::new("nft").args(["list", "tables"]).output().unwrap();
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    });
}

#[test]
fn rules_and_switches_are_gone_afterwards_also_after_a_crash() {
    in_a_world("rules_and_switches_are_gone_afterwards_also_after_a_crash", async || {
        let switch = |path: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
        };
        let switches = || (switch("ipv4/ip_forward"), switch("ipv6/conf/all/forwarding"));
        let tables = || {
            let output = Command::new("nft").args(["list", "tables"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let before = switches();
        assert_eq!(before, ("0".into(), "0".into()));
        let mut gateway = Gateway::start_with(TUNNEL);
        assert_eq!(switches(), ("1".into(), "1".into()));
        assert!(tables().contains("table inet bauta_bautat0"));
        gateway.crash_and_restart();
        assert_eq!(tables().matches("bauta_bautat0").count(), 1);
        assert_eq!(gateway.stop(), 0);
        assert_eq!(switches(), before);
        assert!(!tables().contains("bauta"), "{}", tables());
        let links = Command::new("ip").arg("link").output().unwrap();
        assert!(!String::from_utf8_lossy(&links.stdout).contains("bautat0"));
    });
}

/// Asks for CONNECT-IP with a bond, says `first` on the stream, and returns the answer's field.
async fn bonded(client: &mut Client, token: &str, offer: &str, first: Vec<u8>) -> (u64, String) {
    let stream = offered(client, token, offer, first);
    client.until(|heard| heard.heads.contains_key(&stream)).await;
    assert_eq!(client.heard.status(stream), Some("200"));
    (stream, client.heard.field(stream, "bauta-bond").unwrap_or_default().to_owned())
}

/// The same without waiting for an answer.
fn offered(client: &mut Client, token: &str, offer: &str, first: Vec<u8>) -> u64 {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":authority", "site.test"),
        (":path", "/.well-known/masque/ip/*/*/"),
        ("capsule-protocol", "?1"),
        ("authorization", &format!("Bearer {token}")),
        ("bauta-bond", offer),
    ];
    let stream = client.request(&fields, false);
    client.conn().send_body(stream, first.into(), false);
    stream
}

/// Waits for a bond's capsule of this kind and returns it.
async fn capsule(client: &mut Client, stream: u64, kind: u64) -> BondCapsule {
    let find = |body: &[u8]| {
        let mut found = None;
        let mut each = |c: Capsule<'_>| {
            if c.kind == kind {
                found = Some(capsules::parse(c.kind, c.value).unwrap());
            }
        };
        CapsuleParser::new(KNOWN_BONDED_IP).push(body, &mut each).unwrap();
        found
    };
    client.until(|heard| find(heard.body(stream)).is_some()).await;
    find(client.heard.body(stream)).unwrap()
}

fn join(token: Token, path: u8) -> Vec<u8> {
    let mut out = Vec::new();
    capsules::encode(&BondCapsule::Join { token, path }, &mut out);
    out
}

#[test]
fn only_a_fresh_token_lets_a_connection_join_and_only_once() {
    in_a_world("only_a_fresh_token_lets_a_connection_join_and_only_once", async || {
        let gateway = Gateway::start_with(&format!("{TUNNEL}\n"));
        let mut first = gateway.connect().await;
        let (stream, answer) =
            bonded(&mut first, &gateway.token, "v=1, ctx=2, paths=2, slc", Vec::new()).await;
        assert!(answer.contains("ctx=2") && answer.contains("paths=2"), "{answer}");
        let given = capsule(&mut first, stream, capsules::BOND_TOKEN).await;
        let BondCapsule::Token(token) = given else { panic!("{given:?}") };
        let offer = "v=1, ctx=2, paths=2, slc, join";
        for (token, path) in [(Token([7; 16]), 1), (Token([0; 16]), 0)] {
            let mut other = gateway.connect_beside(&mut first).await;
            let (stream, _) = bonded(&mut other, &gateway.token, offer, join(token, path)).await;
            let closed = capsule(&mut other, stream, capsules::BOND_CLOSE).await;
            assert_eq!(closed, BondCapsule::Close(CloseCode::BadToken));
            other.until(|heard| heard.finished.contains(&stream)).await;
        }
        let mut second = gateway.connect_beside(&mut first).await;
        let (joined, _) = bonded(&mut second, &gateway.token, offer, join(token, 1)).await;
        let mut third = gateway.connect_beside(&mut first).await;
        let (again, _) = bonded(&mut third, &gateway.token, offer, join(token, 1)).await;
        let closed = capsule(&mut third, again, capsules::BOND_CLOSE).await;
        assert_eq!(closed, BondCapsule::Close(CloseCode::BadToken));
        assert!(!second.heard.finished.contains(&joined));
        let metrics = gateway.admin("/metrics");
        assert!(metrics.contains("bauta_bond_joins_total{as=\"joined\"} 1\n"), "{metrics}");
        assert!(metrics.contains("bauta_tunnels{kind=\"connect-ip\"} 1\n"), "{metrics}");
        // And a capsule that is none ends the stream, not the tunnel.
        let mut fourth = gateway.connect_beside(&mut first).await;
        let bad = [&join(token, 1)[..4], &[1, 2, 3]].concat();
        let stream = offered(&mut fourth, &gateway.token, offer, bad);
        // The reset may overtake the head of the answer.
        fourth.until(|heard| heard.resets.contains_key(&stream)).await;
        assert!(gateway.admin("/metrics").contains("bauta_tunnels{kind=\"connect-ip\"} 1\n"));
    });
}

#[test]
fn a_gateway_that_offers_none_does_not_speak_of_bonds() {
    in_a_world("a_gateway_that_offers_none_does_not_speak_of_bonds", async || {
        let gateway = Gateway::start_with(&format!("{TUNNEL}\nresilience = false"));
        let mut client = gateway.connect().await;
        let (_, answer) =
            bonded(&mut client, &gateway.token, "v=1, ctx=2, paths=2, slc", Vec::new()).await;
        assert_eq!(answer, "");
    });
}
