//! The resilience layer: its parsers, and a bond under whatever a peer may send.

use std::time::{Duration, Instant};

use bauta_masque::bond::field::Offer;
use bauta_masque::bond::wire::{self, Datagram};
use bauta_masque::bond::{Bond, Config, QuicStats, Received, Role, capsules};

/// A datagram that parses lies within its bytes.
pub fn bond_wire(data: &[u8]) {
    let bytes = [&[2], data].concat();
    match wire::parse(&bytes, 2) {
        Ok(Datagram::Source(header)) => assert!(header.at < bytes.len()),
        Ok(Datagram::Repair(header)) => assert!(header.at < bytes.len() && header.span > 0),
        Ok(Datagram::Feedback(feedback)) => {
            assert!(feedback.paths().count() <= bauta_masque::bond::MAX_PATHS);
            assert!(feedback.missing().count() <= wire::MAX_RANGES);
        }
        _ => {}
    }
}

/// An offer that parses is written as one that parses to itself; a capsule likewise.
pub fn bond_control(data: &[u8]) {
    if let Some(offer) = Offer::parse(data) {
        assert_eq!(Offer::parse(offer.serialize().as_bytes()), Some(offer));
    }
    for kind in capsules::TYPES {
        if let Ok(capsule) = capsules::parse(kind, data) {
            let mut out = Vec::new();
            capsules::encode(&capsule, &mut out);
            assert!(out.len() <= capsules::MAX_CAPSULE + 8);
        }
    }
}

/// Records of kind, length and bytes: datagrams, capsules, packets, and time that goes by.
pub fn bond(data: &[u8]) {
    let Some((role, mut data)) = data.split_first() else { return };
    #[expect(
        clippy::disallowed_methods,
        reason = "any moment does, and there is no other way to one"
    )]
    let mut now = Instant::now();
    let role = if role & 1 == 0 { Role::Proxy } else { Role::Client };
    let agreed = Offer::default().agreed();
    let mut bond = Bond::new(Config { window: 256, ..Config::new(role, agreed, 7) }, now);
    assert!(bond.add_path(now, 0, 1_200) && bond.add_path(now, 1, 1_200));
    let ready = if role == Role::Proxy { capsules::BOND_ASSIGN } else { capsules::BOND_ACK };
    let _ = bond.handle_capsule(now, 0, ready, &[2]);
    let mut out = Vec::new();
    while let [kind, len, rest @ ..] = data {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*len)));
        data = after;
        now += Duration::from_micros(u64::from(*len) * 97);
        match kind & 7 {
            0..=3 => {
                let mut payload = [&[2, kind & 0xf0], piece].concat();
                if let Received::Packet(packet) = bond.handle_datagram(now, kind & 1, &mut payload)
                {
                    assert!(packet.len() > 1 && packet[0] == 0);
                }
            }
            4 => {
                let _ = bond.handle_capsule(now, 0, capsules::TYPES[usize::from(*len) % 6], piece);
            }
            5 => {
                let _ = bond.handle_packet(now, piece);
            }
            6 => bond.handle_path_stats(
                now,
                0,
                QuicStats { sent: (*len).into(), ..QuicStats::default() },
            ),
            _ => now += Duration::from_millis(u64::from(*len) * 8),
        }
        for _ in 0..64 {
            let Some(path) = bond.poll_transmit(now, &mut out) else { break };
            assert!(path < 2 && out.len() <= 1_300);
        }
        if bond.poll_timeout().is_some_and(|at| at <= now) {
            bond.handle_timeout(now);
        }
        while bond.poll_deliver(now).is_some() {}
        while bond.poll_capsule().is_some() || bond.poll_event().is_some() {}
        assert!(bond.report().held_packets <= 256);
    }
}
