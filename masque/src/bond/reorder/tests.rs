use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

struct Rig {
    reorder: Reorder,
    pool: Pool,
    out: Vec<u64>,
}

impl Rig {
    fn new(window: u32) -> Self {
        Self { reorder: Reorder::new(window), pool: Pool::default(), out: Vec::new() }
    }

    fn arrive(&mut self, now: u64, sequence: u64, back: u16) -> Arrival {
        let bytes = sequence.to_be_bytes();
        let (arrival, _) = self.reorder.arrive(now, sequence, back, &bytes, &mut self.pool);
        if arrival == Arrival::Now {
            self.out.push(sequence);
        }
        self.drain();
        arrival
    }

    fn drain(&mut self) {
        while let Some(packet) = self.reorder.pop() {
            self.out.push(u64::from_be_bytes(packet[..].try_into().unwrap()));
            self.pool.put(packet);
        }
    }

    fn expire(&mut self, now: u64, patience: u64) {
        self.reorder.expire(now, patience, &mut self.pool);
        self.drain();
    }
}

#[test]
fn only_the_flow_whose_packet_is_missing_waits() {
    let mut rig = Rig::new(64);
    // Flow a: 0, 2, 4; flow b: 1, 3, 5. Packet 2 is late.
    for (sequence, back) in [(0, 0), (1, 0), (3, 2), (4, 2), (5, 2)] {
        rig.arrive(0, sequence, back);
    }
    assert_eq!(rig.out, [0, 1, 3, 5]);
    assert_eq!(rig.reorder.missing().collect::<Vec<_>>(), [(0, 1)]);
    rig.arrive(0, 2, 2);
    assert_eq!(rig.out, [0, 1, 3, 5, 2, 4]);
    assert_eq!((rig.reorder.settled(), rig.reorder.held), (6, 0));
}

#[test]
fn what_stays_away_is_given_up_when_patience_ends() {
    let mut rig = Rig::new(64);
    rig.arrive(0, 0, 0);
    rig.arrive(10, 3, 1);
    assert_eq!(rig.reorder.deadline(100), Some(110));
    rig.expire(109, 100);
    assert_eq!(rig.out, [0]);
    rig.expire(110, 100);
    assert_eq!((&rig.out[..], rig.reorder.given_up), (&[0, 3][..], 2));
    assert_eq!(rig.arrive(120, 1, 1), Arrival::Duplicate);
}

#[test]
fn a_jump_moves_the_window_and_an_absurd_one_does_not() {
    let mut rig = Rig::new(64);
    rig.arrive(0, 0, 0);
    rig.arrive(0, 2, 1);
    assert_eq!(rig.arrive(0, 66, 1), Arrival::Held);
    assert_eq!(rig.out, [0, 2]);
    assert_eq!(rig.reorder.settled(), 3);
    assert_eq!(rig.arrive(0, 67 + 64, 1), Arrival::Absurd);
    rig.reorder.flush(&mut rig.pool);
    rig.drain();
    assert_eq!(rig.out, [0, 2, 66]);
    // Where everything arrives outside the window, the window moves there.
    for n in 0..u64::from(STRAYS) {
        rig.arrive(0, 1_000 + n, 1);
    }
    assert_eq!(rig.arrive(0, 1_000 + u64::from(STRAYS), 1), Arrival::Now);
}

#[test]
fn copies_in_a_row_do_not_move_the_window() {
    let mut rig = Rig::new(64);
    for sequence in (0..50).filter(|n| *n != 20) {
        rig.arrive(0, sequence, 1.min(sequence) as u16);
    }
    for n in 0..2 * u64::from(STRAYS) {
        assert_eq!(rig.arrive(0, n % 20, 1), Arrival::Duplicate);
    }
    assert_eq!((rig.reorder.given_up, rig.out.len()), (0, 20));
    assert_eq!(rig.arrive(0, 20, 1), Arrival::Now);
    assert_eq!(rig.out.len(), 50);
}

proptest! {
    /// Whatever arrives in whatever order, with whatever references: nothing comes out twice, what
    /// came in comes out, no packet before one it follows that came too, and all is bounded.
    #[test]
    fn packets_come_out_once_and_in_the_order_of_their_chains(
        arrivals in prop::collection::vec((0u64..300, 0u16..40, 0u64..50), 1..250),
    ) {
        let mut rig = Rig::new(128);
        let (mut now, mut took) = (0, BTreeMap::new());
        for (sequence, back, wait) in arrivals {
            now += wait;
            rig.expire(now, 500);
            match rig.arrive(now, sequence, back) {
                Arrival::Now | Arrival::Held => {
                    prop_assert!(took.insert(sequence, back).is_none());
                }
                _ => {}
            }
            prop_assert!(rig.reorder.held <= 128);
            let missing: u64 = rig.reorder.missing().map(|(_, gone)| gone).sum();
            prop_assert!(missing <= 128);
        }
        rig.expire(u64::MAX, 0);
        prop_assert_eq!(rig.reorder.held, 0);
        let mut out = rig.out.clone();
        out.sort_unstable();
        prop_assert_eq!(out, took.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn chains_of_a_sender_come_out_in_order(
        flows in prop::collection::vec(0usize..5, 1..120), order in any::<u64>(), lost in any::<u128>(),
    ) {
        let (mut last, mut sent) = ([None; 5], Vec::new());
        for (sequence, flow) in flows.iter().enumerate() {
            let sequence = sequence as u64;
            let back = last[*flow].replace(sequence).map_or(0, |l: u64| (sequence - l) as u16);
            sent.push((sequence, back));
        }
        let mut state = order | 1;
        for i in (1..sent.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            sent.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut rig = Rig::new(128);
        for (i, (sequence, back)) in sent.iter().enumerate() {
            if lost >> (sequence % 128) & 1 == 0 || i % 3 == 0 {
                rig.arrive(0, *sequence, *back);
            }
        }
        rig.expire(u64::MAX, 0);
        let mut seen = [None; 5];
        for sequence in &rig.out {
            let flow = flows[*sequence as usize];
            prop_assert!(seen[flow].replace(*sequence) < Some(*sequence));
        }
    }
}
