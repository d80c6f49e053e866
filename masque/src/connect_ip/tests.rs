mod control;
mod data;
mod link;
mod speed;

use super::*;
use crate::filter::Policy;
use crate::packet::tests::{fix_v4, v4, v6};
use crate::testing::start;

const ROUTER4: &str = "10.7.0.1";
const ROUTER6: &str = "2a00:7::1";
const CLIENT4: &str = "10.7.0.2";
const CLIENT6: &str = "2a00:7::2";
const WEB4: &str = "93.184.215.14";
const WEB6: &str = "2606:2800::1";

fn prefix(s: &str) -> Prefix {
    s.parse().unwrap()
}

fn proxy_config() -> Config {
    Config::proxy(ROUTER4.parse().unwrap(), ROUTER6.parse().unwrap())
}

/// The policy of a gateway whose clients may not reach each other.
fn policy() -> Policy {
    Policy { pools: vec![prefix("10.7.0.0/16"), prefix("2a00:7::/64")], ..Policy::default() }
}

/// Carries every capsule across, both ways.
fn pump(a: &mut ConnectIp, b: &mut ConnectIp) {
    loop {
        let mut moved = false;
        while let Some(bytes) = a.poll_transmit() {
            b.handle_stream(start(), &bytes).unwrap();
            moved = true;
        }
        while let Some(bytes) = b.poll_transmit() {
            a.handle_stream(start(), &bytes).unwrap();
            moved = true;
        }
        if !moved {
            return;
        }
    }
}

fn events(session: &mut ConnectIp) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// A proxy and a client with one address of each family and routes to everything.
fn tunnel_with(config: Config) -> (ConnectIp, ConnectIp) {
    let mut proxy = ConnectIp::new(config);
    let mut client = ConnectIp::new(Config::client());
    proxy.assign([CLIENT4, CLIENT6].map(|a| AssignedAddress::unsolicited(prefix(a))).to_vec());
    proxy.advertise(&[IpRange::ALL_V4, IpRange::ALL_V6]).unwrap();
    pump(&mut proxy, &mut client);
    events(&mut client);
    (proxy, client)
}

fn tunnel() -> (ConnectIp, ConnectIp) {
    tunnel_with(proxy_config())
}

/// The HTTP Datagram Payload of a packet.
fn payload(packet: &[u8]) -> Vec<u8> {
    [&[0], packet].concat()
}

/// A verdict in short: `Ok` is forwarded, `Err` has the reason and the reply if there was one.
type Short = Result<Vec<u8>, (DropReason, Option<Vec<u8>>)>;

fn short(verdict: Verdict<'_>) -> Short {
    match verdict {
        Verdict::Forward(packet) => Ok(packet.to_vec()),
        Verdict::Reply(icmp) => Err((icmp.reason, Some(icmp.packet))),
        Verdict::Drop(reason) => Err((reason, None)),
    }
}

fn inward(session: &mut ConnectIp, packet: &[u8]) -> Short {
    short(session.handle_datagram(start(), &mut payload(packet), &policy()))
}

fn outward(session: &mut ConnectIp, packet: &[u8]) -> Short {
    short(session.encapsulate(start(), &mut packet.to_vec(), 1_401))
}

fn reason(verdict: Short) -> Option<DropReason> {
    verdict.err().map(|(reason, _)| reason)
}

/// Type and code of the ICMP message in a reply.
fn told(verdict: Short) -> Option<(DropReason, u8, u8)> {
    let (reason, Some(packet)) = verdict.err()? else { return None };
    let at = if packet[0] >> 4 == 4 { 20 } else { 40 };
    Some((reason, packet[at], packet[at + 1]))
}
