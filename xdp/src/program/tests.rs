//! The program on whole packets, by `BPF_PROG_TEST_RUN`. Needs root.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::ring::XskRing;
use crate::sys;

const ARP: u16 = 0x0806;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const HOP_BY_HOP: u8 = 0;

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn udp(port: u16, payload: usize) -> Vec<u8> {
    let mut segment = 40000u16.to_be_bytes().to_vec();
    segment.extend(port.to_be_bytes());
    segment.extend(((8 + payload) as u16).to_be_bytes());
    segment.extend(vec![0; 2 + payload]);
    segment
}

fn ipv4(protocol: u8, options: usize, segment: &[u8]) -> Vec<u8> {
    let total = (20 + options + segment.len()) as u16;
    let mut packet = vec![0x45 + (options / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]); // "don't fragment" is no fragment
    packet.extend([198, 51, 100, 7, 203, 0, 113, 1]);
    packet.extend(vec![1; options]);
    packet.extend(segment);
    packet
}

fn ipv6(next_header: u8, segment: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((segment.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    for last in [7, 1] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(segment);
    packet
}

fn to_v4(port: u16) -> Vec<u8> {
    ethernet(V4, &ipv4(UDP, 0, &udp(port, 20)))
}

fn to_v6(port: u16) -> Vec<u8> {
    ethernet(V6, &ipv6(UDP, &udp(port, 20)))
}

fn with(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

/// A frame of exactly `length` bytes to our port.
fn long(length: usize) -> Vec<u8> {
    ethernet(V4, &ipv4(UDP, 0, &udp(443, length - 42)))
}

fn tagged(ethertype: u16) -> Vec<u8> {
    let mut tag = vec![0, 10];
    tag.extend(V4.to_be_bytes());
    tag.extend(ipv4(UDP, 0, &udp(443, 20)));
    ethernet(ethertype, &tag)
}

fn truncated(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

/// The program loaded, with a socket in its map or without.
struct Loaded {
    program: OwnedFd,
    _map: OwnedFd,
    ring: Option<XskRing>,
}

impl Loaded {
    fn new(listening: &[&str], with_ring: bool) -> Self {
        let on: Vec<SocketAddr> = listening.iter().map(|a| a.parse().unwrap()).collect();
        let map = sys::xsk_map(1).unwrap();
        let code = assemble(&Filter::listening(&on).unwrap(), map.as_fd());
        let program = sys::load(sys::XDP, &code, None).unwrap();
        let ring = with_ring.then(|| {
            let mut ring = XskRing::unbound(1, 0).unwrap();
            ring.enter(map.try_clone().unwrap()).unwrap();
            ring
        });
        Self { program, _map: map, ring }
    }

    #[track_caller]
    fn assert(&self, verdict: i32, table: &[(&str, Vec<u8>)]) {
        for (what, frame) in table {
            let got = sys::test_run(self.program.as_fd(), frame).unwrap();
            assert_eq!(got, verdict.unsigned_abs(), "{what}");
        }
    }
}

#[test]
fn udp_to_our_port_is_redirected_and_everything_else_passes() {
    let program = Loaded::new(&["[::]:443", "0.0.0.0:8443"], true);
    program.assert(
        XDP_REDIRECT,
        &[
            ("IPv4", to_v4(443)),
            ("IPv4, the other port", to_v4(8443)),
            ("IPv6", to_v6(443)),
            ("IPv4, no payload", ethernet(V4, &ipv4(UDP, 0, &udp(443, 0)))),
            ("IPv6, no payload", ethernet(V6, &ipv6(UDP, &udp(443, 0)))),
            ("IPv4, ECN and DSCP set", with(to_v4(443), 15, 0xff)),
            ("IPv6, traffic class and flow label set", with(to_v6(443), 14, 0x6f)),
            ("IPv4, fragmentation allowed", with(to_v4(443), 20, 0)),
            ("the longest frame", long(MAX_FRAME)),
        ],
    );
    program.assert(
        XDP_PASS,
        &[
            ("ARP", ethernet(ARP, &[0; 28])),
            ("ICMP", ethernet(V4, &ipv4(ICMP, 0, &udp(443, 20)))),
            ("ICMPv6", ethernet(V6, &ipv6(ICMPV6, &udp(443, 20)))),
            ("TCP over IPv4", ethernet(V4, &ipv4(TCP, 0, &udp(443, 20)))),
            ("TCP over IPv6", ethernet(V6, &ipv6(TCP, &udp(443, 20)))),
            ("IPv4, another port", to_v4(444)),
            ("IPv4, our port in the wrong byte order", to_v4(443u16.swap_bytes())),
            ("IPv6, a port only open on IPv4", to_v6(8443)),
            ("IPv4, from our port", with(with(to_v4(53), 34, 1), 35, 0xbb)),
            ("VLAN", tagged(0x8100)),
            ("VLAN in VLAN", tagged(0x88a8)),
            ("IPv4 with options", ethernet(V4, &ipv4(UDP, 4, &udp(443, 20)))),
            ("IPv4, first fragment", with(to_v4(443), 20, 0x20)),
            ("IPv4, later fragment", with(to_v4(443), 21, 0x40)),
            ("IPv4, later fragment, high bits", with(to_v4(443), 20, 0x01)),
            ("IPv4, header too short for its own field", with(to_v4(443), 14, 0x44)),
            ("IPv6, fragment header", ethernet(V6, &ipv6(FRAGMENT_HEADER, &udp(443, 20)))),
            ("IPv6, hop-by-hop options", ethernet(V6, &ipv6(HOP_BY_HOP, &udp(443, 20)))),
            ("IPv4 called IPv6", ethernet(V6, &ipv4(UDP, 0, &udp(443, 40)))),
            ("IPv6 called IPv4", ethernet(V4, &ipv6(UDP, &udp(443, 20)))),
            ("to a group of hosts", with(to_v4(443), 0, 0x01)),
            ("broadcast", with(to_v4(443), 0, 0xff)),
            ("an Ethernet header alone", truncated(to_v4(443), 14)),
            ("cut in IPv4's header", truncated(to_v4(443), 33)),
            ("cut in UDP's header over IPv4", truncated(to_v4(443), 41)),
            ("cut in IPv6's header", truncated(to_v6(443), 50)),
            ("cut in UDP's header over IPv6", truncated(to_v6(443), 61)),
            ("one byte too long", long(MAX_FRAME + 1)),
            ("jumbo", long(3000)),
        ],
    );
}

#[test]
fn a_queue_without_a_ring_passes_everything() {
    let program = Loaded::new(&["[::]:443"], false);
    program.assert(XDP_PASS, &[("IPv4", to_v4(443)), ("IPv6", to_v6(443))]);
}

#[test]
fn a_dropped_ring_is_out_of_the_map_although_a_copy_of_its_socket_lives() {
    let mut program = Loaded::new(&["[::]:443"], true);
    let copy = program.ring.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
    program.assert(XDP_REDIRECT, &[("before", to_v4(443))]);
    program.ring = None;
    program.assert(XDP_PASS, &[("after", to_v4(443))]);
    drop(copy);
}

#[test]
fn with_addresses_given_what_goes_to_others_is_forwarded_by_the_kernel() {
    let program = Loaded::new(&["203.0.113.1:443", "[2001:db8::1]:8443"], true);
    program.assert(XDP_REDIRECT, &[("IPv4", to_v4(443)), ("IPv6", to_v6(8443))]);
    program.assert(
        XDP_PASS,
        &[
            ("IPv4, another host", with(to_v4(443), 33, 2)),
            ("IPv4, another network", with(to_v4(443), 30, 204)),
            ("IPv4, the port of the other address", to_v4(8443)),
            ("IPv6, the port of the other address", to_v6(443)),
            ("IPv6, another host", with(to_v6(8443), 53, 2)),
            ("IPv6, another network", with(to_v6(8443), 38, 0x21)),
        ],
    );
}

#[test]
fn addresses_whose_words_have_the_sign_bit_compare_whole() {
    let program = Loaded::new(&["[fe80::ffff:ffff:ffff:ffff]:1"], true);
    let mut frame = to_v6(1);
    frame[38..46].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
    frame[46..54].fill(0xff);
    program.assert(XDP_REDIRECT, &[("the address", frame.clone())]);
    program.assert(XDP_PASS, &[("one bit off", with(frame, 53, 0xfe))]);
}

#[test]
fn the_largest_filter_is_accepted_by_the_verifier() {
    let on: Vec<String> = (1..=crate::MAX_LISTENERS).map(|n| format!("[::]:{n}")).collect();
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    let program = Loaded::new(&on, true);
    program.assert(XDP_REDIRECT, &[("the last rule", to_v6(64)), ("the first", to_v4(1))]);
    program.assert(XDP_PASS, &[("no rule", to_v6(65))]);

    let on: Vec<String> = (1..=64).map(|n| format!("[2001:db8::{n:x}]:443")).collect();
    let on: Vec<&str> = on.iter().map(String::as_str).collect();
    Loaded::new(&on, true).assert(XDP_REDIRECT, &[("the first address", to_v6(443))]);
}

#[test]
fn the_program_for_one_port_is_short() {
    let map = sys::xsk_map(1).unwrap();
    let filter = Filter::listening(&["[::]:443".parse().unwrap()]).unwrap();
    assert_eq!(assemble(&filter, map.as_fd()).len(), 42);
}
