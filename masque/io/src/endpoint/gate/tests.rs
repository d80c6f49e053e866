use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket as Plain};

use super::program::assemble;
use super::*;
use crate::udp::{BindOptions, UdpSocket};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const ANSWERS: u32 = 2000;
const HANDSHAKES: u32 = 1000;

fn limits() -> DoorLimits {
    DoorLimits {
        answers_per_second: ANSWERS,
        handshakes_per_second: HANDSHAKES,
        free_handshakes: 200,
        ..DoorLimits::default()
    }
}

fn gate() -> (Gate, Instant) {
    let now = crate::clock::now();
    (Gate::new(&limits(), SEED, now), now)
}

fn initial(token: usize) -> Vec<u8> {
    let mut packet = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 8], &[8], &[9; 8]].concat();
    packet.push(token as u8);
    packet.resize(1200, 0x5a);
    packet
}

fn source(n: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a42_0900 + n), 4433).into()
}

const HONEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 50_000);

/// Plays `seconds` of a flood of `rate` from what `from` gives, and returns how many of it came
/// through in the last second, and of one honest packet each 10 ms how many of all.
fn flood(
    gate: &mut Gate,
    now: &mut Instant,
    rate: u32,
    seconds: u32,
    packet: &[u8],
    from: impl Fn(u32) -> SocketAddr,
) -> (u32, u32) {
    let (mut through, mut honest) = (0, 0);
    let shows = Shows::of(packet).unwrap();
    for n in 0..rate * seconds {
        *now += Duration::from_secs(1) / rate;
        if n.is_multiple_of(rate / 100) && gate.passes(&initial(0), HONEST) {
            gate.count(HONEST, Shows::Nothing);
            honest += 1;
        }
        if gate.passes(packet, from(n)) {
            gate.count(from(n), shows);
            through += u32::from(n >= rate * (seconds - 1));
        }
        gate.handle_timeout(*now);
    }
    (through, honest)
}

#[test]
fn first_packets_are_told_by_what_they_show() {
    assert_eq!(Shows::of(&initial(0)), Some(Shows::Nothing));
    assert_eq!(Shows::of(&initial(28)), Some(Shows::Token));
    assert_eq!(Shows::of(&initial(40)), Some(Shows::Token));
    assert_eq!(Shows::of(&initial(27)), Some(Shows::Nothing));
    assert_eq!(Shows::of(&initial(41)), Some(Shows::Nothing));
    let with = |first, version| [&[first, 0, 0, 0, version][..], &initial(30)[5..]].concat();
    assert_eq!(Shows::of(&with(0xc3, 2)), Some(Shows::Nothing), "another version");
    assert_eq!(Shows::of(&with(0xd3, 1)), Some(Shows::Nothing), "0-RTT");
    assert_eq!(Shows::of(&with(0xe3, 1)), None, "Handshake");
    assert_eq!(Shows::of(&with(0x43, 1)), None, "a short header");
    for len in 0..20 {
        let _ = Shows::of(&initial(30)[..len]);
    }
    assert_eq!(Shows::of(&[]), None);
    let mut long = initial(30);
    long[5] = 255;
    assert_eq!(Shows::of(&long), Some(Shows::Nothing));
}

#[test]
fn what_can_be_answered_is_never_turned_away() {
    let (mut gate, mut now) = gate();
    let (through, honest) = flood(&mut gate, &mut now, 1800, 5, &initial(0), source);
    assert_eq!((through, honest), (1800, 500));
    assert!(!gate.is_narrow());
    assert!(gate.timeout().is_none(), "no timer while it is calm");
    // Nor what may begin without an answer.
    let limits = DoorLimits { free_handshakes: 20_000, ..limits() };
    let mut gate = Gate::new(&limits, SEED, now);
    let (through, _) = flood(&mut gate, &mut now, 20_000, 3, &initial(0), source);
    assert_eq!(through, 20_000);
}

#[test]
fn a_flood_from_some_sources_leaves_the_door_to_others_and_ends() {
    let (mut gate, mut now) = gate();
    let few = |n| source(n % 200);
    let (through, honest) = flood(&mut gate, &mut now, 50_000, 5, &initial(0), few);
    assert!(gate.is_narrow());
    assert!((ANSWERS / 8..=ANSWERS * 5 / 4).contains(&through), "{through}");
    assert_eq!(honest, 500, "an honest source was turned away");
    for _ in 0..CALM {
        let Some(due) = gate.timeout() else { break };
        now = due;
        gate.handle_timeout(now);
    }
    assert!(!gate.is_narrow(), "it does not end");
    assert!(gate.passes(&initial(0), source(1)));
}

#[test]
fn a_flood_from_everywhere_is_cut_down_to_what_can_be_answered() {
    let (mut gate, mut now) = gate();
    let any = |n: u32| (Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9)), 1).into();
    let (through, honest) = flood(&mut gate, &mut now, 50_000, 5, &initial(0), any);
    assert!((ANSWERS / 8..=ANSWERS * 2).contains(&through), "{through}");
    assert!(honest > 0);
    // The same from addresses of IPv6, which share no 64 bits.
    let (mut gate, mut now) = self::gate();
    let any = |n: u32| (Ipv6Addr::from(u128::from(n.wrapping_mul(0x9e37_79b9)) << 70), 1).into();
    let (through, _) = flood(&mut gate, &mut now, 50_000, 5, &initial(0), any);
    assert!((ANSWERS / 8..=ANSWERS * 2).contains(&through), "{through}");
}

#[test]
fn a_flood_that_moves_from_source_to_source_is_bounded() {
    let (mut gate, mut now) = gate();
    // Each interval comes from a network of its own.
    let moving = |n: u32| source((n / 12_500) * 4096 + n % 100);
    let (through, _) = flood(&mut gate, &mut now, 50_000, 8, &initial(0), moving);
    assert!(through < 50_000 * 3 / 4, "{through}");
}

#[test]
fn tokens_have_a_share_of_their_own() {
    let (mut gate, mut now) = gate();
    flood(&mut gate, &mut now, 50_000, 3, &initial(0), |n| source(n % 200));
    let passed = (0..1000).filter(|_| gate.passes(&initial(30), source(1))).count();
    assert_eq!(passed, 1000, "a token of a loud source waits for nothing");
    // A flood of made-up tokens is bounded as well.
    let (through, _) = flood(&mut gate, &mut now, 50_000, 5, &initial(30), |n| source(n % 200));
    assert!(through <= 4 * HANDSHAKES * 5 / 4, "{through}");
}

/// Rules by which all buckets of an odd number are loud, of which what shows nothing is dropped and
/// what shows a token is not.
fn every_other() -> Rules {
    let (gate, _) = gate();
    Rules { loud: [0xaaaa_aaaa; WORDS], shares: [0, u32::MAX], ..gate.rules }
}

fn packets() -> Vec<Vec<u8>> {
    let mut packets = vec![initial(0), initial(30), initial(63)];
    for first in [0x43, 0xd3, 0xe3, 0xf3] {
        packets.push([&[first][..], &initial(30)[1..]].concat());
    }
    packets.push([&[0xc3, 1, 2, 3, 4][..], &initial(30)[5..]].concat());
    let mut odd = initial(30);
    odd[5] = 21;
    packets.push(odd);
    packets
}

async fn the_kernel_drops_what_the_rules_drop(bind: IpAddr, sources: Vec<IpAddr>) {
    let rules = every_other();
    let server = UdpSocket::bind((bind, 0).into(), &BindOptions::default()).unwrap();
    server.filter(Some(&assemble(&rules))).unwrap();
    let before = server.drops().unwrap();
    let (mut expected, mut dropped) = (Vec::new(), 0);
    for ip in sources {
        let sender = Plain::bind((ip, 0)).unwrap();
        let from = sender.local_addr().unwrap();
        let to = if ip.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            IpAddr::from(Ipv6Addr::LOCALHOST)
        };
        for packet in packets() {
            sender.send_to(&packet, (to, server.local_addr().port())).unwrap();
            if rules.passes(&packet, from, 1) {
                expected.push((packet, from));
            } else {
                dropped += 1;
            }
        }
    }
    assert!(dropped > 0 && !expected.is_empty());
    let (mut got, mut batch) = (Vec::new(), crate::udp::RecvBatch::new());
    let all = async {
        while got.len() < expected.len() {
            server.readable().await.unwrap();
            if server.try_recv(&mut batch).is_ok() {
                batch.for_each(|d| got.push((d.payload.to_vec(), d.from)));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("some did not arrive");
    assert!(got == expected, "what came is not what the rules let pass");
    assert_eq!(server.drops().unwrap().wrapping_sub(before), dropped);
    server.filter(None).unwrap();
}

#[tokio::test]
async fn the_kernel_drops_what_the_rules_drop_over_ipv4() {
    let sources = (1..60).map(|d| Ipv4Addr::new(127, 0, 3, d).into()).collect();
    the_kernel_drops_what_the_rules_drop(Ipv4Addr::UNSPECIFIED.into(), sources).await;
}

#[tokio::test]
async fn the_kernel_drops_what_the_rules_drop_on_a_dual_stack_socket() {
    let mut sources: Vec<IpAddr> = vec![Ipv6Addr::LOCALHOST.into()];
    sources.extend((1..60).map(|d| IpAddr::from(Ipv4Addr::new(127, 0, 4, d))));
    the_kernel_drops_what_the_rules_drop(Ipv6Addr::UNSPECIFIED.into(), sources).await;
}
