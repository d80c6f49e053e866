//! What a bond adds to a packet: by number, as at the beginning and where packets are lost, and past it.

use std::time::Duration;

use bauta_masque::bond::field::Offer;
use bauta_masque::bond::{Bond, Config, Queued, Received, Role};
use bauta_masque_io::clock;

use crate::{INNER, TRAIN, road, row};

/// Packets by number that are measured: fewer than after which a clean path goes without.
const NUMBERED: usize = 40 * TRAIN;
/// The link's way there, in the bonds' own time.
const DELAY: Duration = Duration::from_micros(500);

struct Ends {
    near: Bond,
    far: Bond,
    now: std::time::Instant,
    datagram: Vec<u8>,
    delivered: usize,
}

impl Ends {
    fn new() -> Self {
        let now = clock::now();
        let agreed = Offer::default().agreed();
        let end = |role| {
            let mut bond = Bond::new(Config::new(role, agreed, 1), now);
            assert!(bond.add_path(now, 0, INNER + 40));
            bond
        };
        let (near, far) = (end(Role::Client), end(Role::Proxy));
        Self { near, far, now, datagram: Vec::new(), delivered: 0 }
    }

    /// Carries everything over, there, back and once more.
    fn settle(&mut self) {
        for up in [true, false, true, false] {
            let Self { near, far, now, datagram, delivered } = self;
            let (from, to) = if up { (near, far) } else { (far, near) };
            from.handle_timeout(*now);
            while let Some(path) = from.poll_transmit(*now, datagram) {
                if let Received::Packet(_) = to.handle_datagram(*now, path, datagram) {
                    *delivered += 1;
                }
                while to.poll_deliver(*now).is_some() {
                    *delivered += 1;
                }
            }
            while let Some((path, capsule)) = from.poll_capsule() {
                let (kind, value) = split(&capsule);
                to.handle_capsule(*now, path, kind, value).unwrap();
            }
            while from.poll_event().is_some() {}
            self.now += DELAY / 2;
        }
    }

    /// Nanoseconds a packet for `count` of them, in trains.
    fn send(&mut self, packet: &[u8], count: usize) -> f64 {
        let (start, before) = (clock::now(), self.delivered);
        while self.delivered < before + count {
            for _ in 0..TRAIN {
                assert_eq!(self.near.handle_packet(self.now, packet), Queued::Taken);
            }
            self.settle();
        }
        start.elapsed().as_nanos() as f64 / (self.delivered - before) as f64
    }
}

/// Type and value of a capsule whose type and length are known to be well-formed.
fn split(capsule: &[u8]) -> (u64, &[u8]) {
    let (kind, at) = bauta_masque::varint::decode(capsule).unwrap();
    let (_, len) = bauta_masque::varint::decode(&capsule[at..]).unwrap();
    (kind, &capsule[at + len..])
}

pub(crate) fn measure() {
    let packet = road::packet(INNER);
    let mut best = f64::MAX;
    for _ in 0..20 {
        let mut ends = Ends::new();
        ends.settle();
        // The first trains are held back by a rate that is not known yet.
        ends.send(&packet, NUMBERED);
        best = best.min(ends.send(&packet, NUMBERED));
        assert!(!ends.near.is_bypassed());
    }
    row("a bond, by number, both ends", best, None);
    let mut payload = [&[0], &packet[..]].concat();
    let mut ends = Ends::new();
    ends.settle();
    let plain = crate::measure(1, 400_000, || {
        std::hint::black_box(ends.near.is_bypassed());
        let received = ends.far.handle_datagram(ends.now, 0, &mut payload);
        assert!(matches!(received, Received::Packet(_)));
    });
    row("a bond, past it, both ends", plain, None);
}
