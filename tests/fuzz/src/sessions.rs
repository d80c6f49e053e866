//! Sessions.

use std::net::Ipv6Addr;
use std::time::Instant;

use bauta_masque::address::{AssignedAddress, Prefix};
use bauta_masque::connect_ip::{Config, ConnectIp, Event, Verdict};
use bauta_masque::connect_udp::{ConnectUdp, Role};
use bauta_masque::filter::Policy;
use bauta_masque::route::IpRange;

/// The first byte chooses the role; then come records of kind, length and bytes, each a piece of
/// the stream, a datagram, or a packet for the peer.
pub fn connect_ip(data: &[u8]) {
    let Some((role, mut data)) = data.split_first() else { return };
    #[expect(
        clippy::disallowed_methods,
        reason = "any moment does, and there is no other way to one"
    )]
    let now = Instant::now();
    let mut session = ConnectIp::new(match role & 1 {
        0 => Config::proxy([10, 7, 0, 1].into(), Ipv6Addr::from_bits(0xfd << 120 | 1)),
        _ => Config::client(),
    });
    session.assign(vec![AssignedAddress::unsolicited(Prefix::host([10, 7, 0, 2].into()))]);
    let Ok(()) = session.advertise(&[IpRange::ALL_V4]) else { panic!("a full tunnel is valid") };
    let policy = Policy::default();
    while let [kind, len, rest @ ..] = data {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*len)));
        data = after;
        match kind & 3 {
            0 => {
                if let Err(error) = session.handle_stream(now, piece) {
                    assert!(error.code() >= 0x33);
                }
            }
            1 => check(session.handle_datagram(now, &mut piece.to_vec(), &policy)),
            2 => check(session.encapsulate(now, &mut piece.to_vec(), usize::from(*kind) * 8)),
            _ => session.assign(vec![]),
        }
        while let Some(event) = session.poll_event() {
            if let Event::DatagramCapsule(payload) = event {
                check(session.handle_datagram(now, &mut payload.to_vec(), &policy));
            }
        }
    }
    let _ = session.handle_fin();
}

fn check(verdict: Verdict<'_>) {
    match verdict {
        Verdict::Reply(icmp) => assert!(icmp.packet.len() <= 65_535 + 48),
        Verdict::Forward(packet) => assert!(packet.len() >= 20),
        Verdict::Drop(_) => {}
    }
}

/// The bytes as a stream and as one datagram.
pub fn connect_udp(data: &[u8]) {
    for role in [Role::Proxy, Role::Client] {
        let mut session = ConnectUdp::new(role);
        let _ = session.handle_datagram(data);
        let _ = session.handle_stream(data);
        while session.poll_event().is_some() {}
        let _ = session.handle_fin();
    }
}
