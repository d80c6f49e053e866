//! Two ends of a bond over seeded links that lose, delay, queue and die, in virtual time.

mod bond_world;

use bond_world::link::Spec;
use bond_world::{World, mbit};

/// Inner-IP Mbit/s of `flows` TCP flows, after a while of starting.
fn bulk(spec: Spec, flows: usize, seed: u64) -> (f64, World) {
    let mut world = World::new(seed, &[spec], |_| ());
    let ids: Vec<usize> = (0..flows).map(|_| world.tcp(None)).collect();
    let sum = |w: &World| ids.iter().map(|f| w.delivered(*f)).sum::<u64>();
    world.run_until(4.0);
    let before = sum(&world);
    world.run_until(8.0);
    (mbit(sum(&world) - before, 4.0), world)
}

#[test]
fn a_clean_path_carries_plain_packets_and_no_byte_more() {
    let mut world = World::new(1, &[Spec::new(100.0, 10.0)], |_| ());
    let flow = world.udp(1_200, 1_000.0);
    world.run_until(4.0);
    let before = (world.plain, world.numbered);
    world.run_until(8.0);
    assert_eq!(world.numbered, before.1, "numbered packets on a clean path");
    assert!(world.plain >= before.0 + 4_000 && world.bonds[0].is_bypassed());
    assert_eq!(world.udp_of(flow).disordered, 0);
    assert!(world.udp_of(flow).received + 20 >= world.udp_of(flow).sent);
}

#[test]
fn loss_is_repaired_in_order_and_nothing_comes_twice() {
    for loss in [0.01, 0.05, 0.15] {
        let mut world = World::new(3, &[Spec::new(100.0, 10.0).loss(loss)], |_| ());
        let flow = world.udp(1_200, 4_000.0);
        world.run_until(10.0);
        let udp = world.udp_of(flow);
        assert_eq!((udp.disordered, udp.doubles), (0, 0));
        let residual = udp.sent - udp.received;
        assert!(residual < 600, "{residual} of {} at {loss}", udp.sent);
        assert_eq!(world.bonds[1].report().given_up, 0);
    }
}

#[test]
fn tcp_fills_a_clean_path_with_a_short_queue() {
    let (rate, world) = bulk(Spec::new(100.0, 25.0), 8, 1);
    assert!(rate > 88.0, "{rate} Mbit/s");
    assert_eq!(world.bonds[1].report().given_up, 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let (rate, world) = bulk(Spec::new(20.0, 10.0).loss(0.05), 2, seed);
        (rate.to_bits(), world.bonds[0].report(), world.bonds[1].report())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
