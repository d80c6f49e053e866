//! Two ends of a bond over seeded links that lose, delay, queue and die, in virtual time.

mod bond_world;

use bauta_masque::bond::capsules::CloseCode;
use bauta_masque::bond::{Event, Policy};
use bond_world::link::{Dice, Spec};
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
fn so_many_packets_without_a_loss_prove_a_path_sooner() {
    let mut world = World::new(1, &[Spec::new(1_200.0, 5.0)], |_| ());
    world.udp(1_200, 100_000.0);
    world.run_until(1.2);
    assert!(world.bonds[0].is_bypassed(), "{:?}", world.bonds[0].report());
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

/// Mbit/s and mean wait in the link's queue, ms, of one TCP flow that has had eight seconds, and the
/// repair that was sent until then.
fn settled(spec: Spec) -> (f64, f64, u64, World) {
    let mut world = World::new(1, &[spec], |_| ());
    let flow = world.tcp(None);
    world.run_until(8.0);
    let (before, waited) = (world.delivered(flow), world.links[0][0].waited);
    let repaired = world.bonds[0].report().repair_sent;
    world.run_until(12.0);
    let (sum, packets) = world.links[0][0].waited;
    let wait = (sum - waited.0) / (packets - waited.1).max(1) as f64 / 1e3;
    (mbit(world.delivered(flow) - before, 4.0), wait, repaired, world)
}

#[test]
fn a_flow_that_fills_a_clean_path_leaves_no_queue_on_it() {
    for delay in [10.0, 25.0] {
        let (rate, wait, repaired, world) = settled(Spec::new(100.0, delay));
        assert!(rate > 93.0 && wait < 2.0, "{delay} ms: {rate} Mbit/s, {wait} ms");
        assert!(world.bonds[0].report().numbered);
        assert_eq!(world.bonds[0].report().repair_sent, repaired);
    }
}

#[test]
fn what_waits_on_a_short_path_waits_for_processes() {
    let (rate, _, _, world) = settled(Spec::new(100.0, 0.5).queue_ms(100.0));
    assert!(rate > 90.0, "{rate} Mbit/s");
    assert!(world.bonds[0].is_bypassed(), "{:?}", world.bonds[0].report());
}

#[test]
fn jitter_is_no_queue() {
    let spec = Spec::new(100.0, 25.0).jitter(4.0).in_order();
    let mut world = World::new(1, &[spec], |_| ());
    world.udp(1_200, 3_000.0);
    world.run_until(5.0);
    let before = world.numbered;
    world.run_until(10.0);
    assert!(world.numbered - before < 100, "{} numbered packets", world.numbered - before);
}

#[test]
fn much_loss_both_ways_costs_no_packet_and_no_timeout() {
    let mut world = World::new(1, &[Spec::new(100.0, 25.0).loss(0.15)], |_| ());
    world.run_until(1.0);
    let flows: Vec<usize> = (0..8).map(|_| world.tcp(None)).collect();
    world.run_until(12.0);
    assert_eq!(world.bonds.each_ref().map(|b| b.report().given_up), [0, 0]);
    let timeouts: u64 = flows.iter().map(|f| world.tcp_of(*f).timeouts).sum();
    assert!(timeouts <= 1, "{timeouts}");
    assert_eq!(world.overdue, 0, "timers were due at once again");
    let rate = mbit(flows.iter().map(|f| world.delivered(*f)).sum(), 11.0);
    assert!(rate > 55.0, "{rate} Mbit/s");
}

#[test]
fn a_stream_that_begins_with_the_tunnel_is_soon_in_time() {
    for (seed, loss, offered) in [(1, 0.05, 86.0), (2, 0.1, 81.0), (3, 0.15, 75.0)] {
        let mut world = World::new(seed, &[Spec::new(100.0, 25.0).loss(loss)], |_| ());
        world.run_until(0.1);
        let flow = world.udp(1_400, offered * 1e6 / 8.0 / 1_400.0);
        let mut had = 0;
        for (until, most) in [(1.1, 95.0), (2.1, 65.0), (4.1, 45.0)] {
            world.run_until(until);
            let median = world.udp_of(flow).added(0.5, 25.2, had);
            assert!(median < most, "{loss}: {median} ms more in the time before {until} s");
            had = world.udp_of(flow).delays.len();
        }
        assert_eq!(world.bonds[1].report().given_up, 0);
    }
}

#[test]
fn one_flow_fills_a_lossy_path_from_the_start() {
    for (loss, rtt, least) in [(0.05, 50.0, 80.0), (0.10, 50.0, 70.0), (0.10, 100.0, 55.0)] {
        let rate = |seed| {
            let spec = Spec::new(100.0, rtt / 2.0).loss(loss);
            let mut world = World::new(seed, &[spec], |_| ());
            world.run_until(1.0);
            let flow = world.tcp(None);
            world.run_until(4.0);
            let before = world.delivered(flow);
            world.run_until(9.0);
            mbit(world.delivered(flow) - before, 5.0)
        };
        let mut rates: Vec<_> = (1..=3).map(rate).collect();
        rates.sort_by(f64::total_cmp);
        assert!(rates[1] > least, "{rates:?} Mbit/s of 100 at {loss}, {rtt} ms");
    }
}

#[test]
fn reports_that_stay_away_for_a_while_are_asked_for_until_they_come() {
    let mut world = World::new(1, &[Spec::new(100.0, 25.0).loss(0.02)], |_| ());
    world.run_until(0.1);
    let flow = world.udp(1_400, 8_000.0);
    world.run_until(3.0);
    world.links[0][1].dead = true;
    world.run_until(3.5);
    world.longest(flow);
    world.links[0][1].dead = false;
    world.run_until(4.5);
    let silent = world.longest(flow);
    assert!(silent < 120_000, "nothing came for {silent} µs");
    assert_eq!(world.bonds[1].report().given_up, 0);
}

#[test]
fn losses_in_bursts_are_not_taken_for_congestion() {
    let mut world = World::new(1, &[Spec::new(100.0, 25.0).bursts(0.05, 5.0)], |_| ());
    world.run_until(1.0);
    world.udp(1_400, 8_000.0);
    world.run_until(4.0);
    let before = world.links[0][0].bytes;
    world.run_until(10.0);
    let sent = mbit(world.links[0][0].bytes - before, 6.0);
    assert!(sent > 97.0, "{sent} Mbit/s");
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

#[test]
fn what_a_path_loses_comes_in_time() {
    let mut late: Vec<_> = (1..=11)
        .map(|seed| {
            let mut world = World::new(seed, &[Spec::new(100.0, 25.0).loss(0.05)], |_| ());
            world.run_until(1.0);
            let flow = world.udp(1_400, 5_000.0);
            world.run_until(6.0);
            assert!(world.bonds[1].report().recovered > 500);
            assert_eq!(world.bonds[1].report().given_up, 0);
            world.udp_of(flow).added(0.99, 25.1, 5_000)
        })
        .collect();
    late.sort_by(f64::total_cmp);
    assert!(late[5] < 30.0, "added p99 of eleven seeds: {late:?} ms");
}

#[test]
fn a_sparse_flow_beside_bulk_hardly_notices_the_loss() {
    let mut world = World::new(2, &[Spec::new(50.0, 50.0).loss(0.1)], |_| ());
    world.run_until(1.0);
    world.tcp(None);
    let flow = world.udp(200, 100.0);
    world.run_until(15.0);
    let p99 = world.udp_of(flow).added(0.99, 50.1, 300);
    assert!(p99 < 15.0, "{p99} ms");
}

#[test]
fn a_rival_beside_the_tunnel_keeps_its_share() {
    let mut world = World::new(1, &[Spec::new(50.0, 25.0)], |_| ());
    let (_, rival) = (world.tcp(None), world.rival());
    world.run_until(10.0);
    let before = world.delivered(rival);
    world.run_until(25.0);
    let rate = mbit(world.delivered(rival) - before, 15.0);
    assert!(rate > 17.5, "{rate} Mbit/s of 50");
}

#[test]
fn a_new_flow_beside_a_flood_gets_through_at_once() {
    let mut world = World::new(1, &[Spec::new(5.0, 20.0), Spec::new(5.0, 20.0)], |_| ());
    world.run_until(1.0);
    world.udp(1_400, 3_000.0);
    world.run_until(6.0);
    assert!(world.bonds[0].report().queued_packets > 1_000);
    let flow = world.udp(200, 20.0);
    world.run_until(16.0);
    let udp = world.udp_of(flow);
    let (first, p99) = (udp.delays[0] as f64 / 1e3, udp.added(0.99, 20.0, 0));
    assert!(first < 60.0 && p99 < 60.0, "{first} and {p99} ms");
    assert!(udp.sent - udp.received < 5, "{} of {}", udp.received, udp.sent);
}

#[test]
fn a_declared_cap_is_never_exceeded() {
    let tune = |c: &mut bauta_masque::bond::Config| c.cap = Some(20_000_000);
    let mut world = World::new(1, &[Spec::new(100.0, 10.0).loss(0.05)], tune);
    world.run_until(1.0);
    world.udp(1_200, 5_000.0);
    let mut before = world.links[0][0].bytes;
    for second in 2..6 {
        world.run_until(f64::from(second));
        let sent = world.links[0][0].bytes - before;
        assert!(mbit(sent, 1.0) < 20.5, "{} Mbit/s", mbit(sent, 1.0));
        before = world.links[0][0].bytes;
    }
}

#[test]
fn a_declared_cap_holds_for_all_paths_together_and_without_loss() {
    let tune = |c: &mut bauta_masque::bond::Config| c.cap = Some(20_000_000);
    for paths in [1, 2] {
        for loss in [0.0, 0.02] {
            let specs = vec![Spec::new(50.0, 10.0).loss(loss); paths];
            let mut world = World::new(1, &specs, tune);
            world.run_until(1.0);
            let flow = world.tcp(None);
            let sent = |w: &World| w.links.iter().map(|l| l[0].bytes).sum::<u64>();
            let mut before = sent(&world);
            for second in 2..8 {
                world.run_until(f64::from(second));
                let rate = mbit(sent(&world) - before, 1.0);
                assert!(rate < 20.1, "{rate} Mbit/s on {paths} paths at {loss}");
                before = sent(&world);
            }
            let rate = mbit(world.delivered(flow), 7.0);
            assert!(rate > 13.0, "{rate} Mbit/s on {paths} paths at {loss}");
        }
    }
}

#[test]
fn two_paths_carry_what_both_carry() {
    let specs = [Spec::new(45.0, 10.0), Spec::new(25.0, 30.0)];
    let mut world = World::new(1, &specs, |_| ());
    world.run_until(1.0);
    let flows: Vec<usize> = (0..4).map(|_| world.tcp(None)).collect();
    let sum = |w: &World| flows.iter().map(|f| w.delivered(*f)).sum::<u64>();
    world.run_until(4.0);
    let before = sum(&world);
    world.run_until(8.0);
    let rate = mbit(sum(&world) - before, 4.0);
    assert!(rate > 60.0, "{rate} Mbit/s of 67.1");
    assert_eq!(world.bonds[1].report().given_up, 0);
}

/// Inner-IP Mbit/s over ten seconds from the first packet on.
fn together(specs: &[Spec], flows: usize) -> f64 {
    together_with(specs, flows, 1)
}

fn together_with(specs: &[Spec], flows: usize, seed: u64) -> f64 {
    let mut world = World::new(seed, specs, |_| ());
    world.run_until(1.0);
    let ids: Vec<usize> = (0..flows).map(|_| world.tcp(None)).collect();
    world.run_until(11.0);
    mbit(ids.iter().map(|f| world.delivered(*f)).sum(), 10.0)
}

#[test]
fn reordering_is_not_taken_for_loss() {
    let spec = || Spec::new(50.0, 20.0).jitter(5.0);
    let mut world = World::new(1, &[spec(), spec()], |_| ());
    world.run_until(1.0);
    for _ in 0..8 {
        world.tcp(None);
    }
    world.run_until(8.0);
    let report = world.bonds[0].report();
    let again = report.repair_sent + report.retransmissions;
    assert!(again * 20 < report.sources_sent, "{report:?}");
    for path in 0..2 {
        let path = world.bonds[0].path_report(path).unwrap();
        assert!(path.loss_ppm < 5_000, "{path:?}");
    }
}

#[test]
fn jitter_does_not_make_two_paths_worse_than_one() {
    for in_order in [false, true] {
        let spec = Spec { in_order, ..Spec::new(50.0, 20.0).jitter(5.0) };
        let alone = together(std::slice::from_ref(&spec), 16);
        let both = together(&[spec.clone(), spec], 16);
        assert!(alone > 30.0 && both > 0.98 * alone, "{both} beside {alone}, in order: {in_order}");
    }
}

#[test]
fn jitter_as_large_as_the_delay_is_no_queue() {
    // In order, a late packet holds up all behind it: the more is sent, the later everything is.
    let spec = || Spec { in_order: true, ..Spec::new(50.0, 20.0).jitter(20.0) };
    let mut rates: Vec<_> =
        (1..=3).map(|seed| together_with(&[spec(), spec()], 16, seed)).collect();
    rates.sort_by(f64::total_cmp);
    assert!(rates[0] > 25.0 && rates[1] > 40.0, "{rates:?} Mbit/s of 95.9, the start included");
}

#[test]
fn a_queue_that_is_hidden_by_jitter_and_overflows_ends_the_start() {
    let spec = Spec { in_order: true, ..Spec::new(50.0, 20.0).jitter(8.0) };
    let mut world = World::new(1, &[Spec { queue: 30_000.0, ..spec }], |_| ());
    world.run_until(1.0);
    world.udp(1_200, 8_000.0);
    world.run_until(3.0);
    let before = (world.links[0][0].tail_drops, world.links[0][0].sent);
    world.run_until(6.0);
    let (drops, sent) = (world.links[0][0].tail_drops, world.links[0][0].sent);
    let share = (drops - before.0) as f64 / (sent - before.1) as f64;
    assert!(share < 0.05, "{share} of what is sent overflows");
}

#[test]
fn what_arrives_together_keeps_its_order() {
    // In order on each link, packets behind a late one arrive in the same moment.
    let spec = Spec { in_order: true, ..Spec::new(50.0, 20.0).jitter(10.0) };
    let mut world = World::new(2, &[spec.clone(), spec], |_| ());
    world.run_until(1.0);
    let flow = world.udp(1_200, 3_000.0);
    world.run_until(6.0);
    assert_eq!(world.udp_of(flow).disordered, 0);
}

#[test]
fn a_path_dies_and_not_a_packet_with_it() {
    for (seed, dead) in [(1, 0), (2, 1), (3, 0)] {
        let specs = [Spec::new(45.0, 10.0), Spec::new(25.0, 30.0)];
        let mut world = World::new(seed, &specs, |_| ());
        world.run_until(1.0);
        let flow = world.udp(1_200, 1_500.0);
        world.run_until(3.0);
        world.links[dead].iter_mut().for_each(|l| l.dead = true);
        world.run_until(6.0);
        let udp = world.udp_of(flow);
        assert_eq!(world.bonds[1].report().given_up, 0);
        assert!(udp.sent - udp.received < 100 && udp.disordered == 0);
        assert!(udp.longest_gap.0 < 55_000, "{:?}", udp.longest_gap);
        world.links[dead].iter_mut().for_each(|l| l.dead = false);
        world.run_until(10.0);
        assert!(world.bonds[0].path_report(dead as u8).unwrap().alive, "it came back");
    }
}

#[test]
fn the_path_that_dies_is_the_one_that_is_given_up() {
    // Reports about both go by the first, and stop with it.
    for seed in 1..4 {
        let specs = [Spec::new(45.0, 10.0), Spec::new(25.0, 30.0)];
        let mut world = World::new(seed, &specs, |_| ());
        world.run_until(1.0);
        let flow = world.udp(1_200, 5_500.0);
        world.run_until(3.0 + seed as f64 * 0.017);
        world.links[0].iter_mut().for_each(|l| l.dead = true);
        world.longest(flow);
        world.run_until(4.5);
        let gap = world.longest(flow);
        assert!(gap < 55_000, "{gap} us");
        let told = |e: &Event| match e {
            Event::PathDown(id, _) => *id == 0,
            Event::PathUp(_) => false,
            _ => true,
        };
        assert!(world.events.iter().all(|(_, _, e)| told(e)), "{:?}", world.events);
    }
}

#[test]
fn reports_that_are_late_now_and_then_hardly_ever_cost_a_path() {
    let mut world = World::new(1, &[Spec::new(50.0, 25.0), Spec::new(50.0, 25.0)], |_| ());
    world.run_until(1.0);
    let flow = world.udp(1_200, 6_000.0);
    for n in 1..40 {
        world.run_until(2.0 + f64::from(n) * 0.21);
        let now = world.now;
        world.links.iter_mut().for_each(|l| l[0].hold(now, 14.0));
    }
    world.run_until(11.0);
    let lost = |(_, _, e): &&(u64, usize, Event)| matches!(e, Event::PathDown(..));
    assert!(world.events.iter().filter(lost).count() <= 3, "{:?}", world.events);
    assert!((0..2).all(|end| (0..2).all(|id| world.bonds[end].path_report(id).unwrap().alive)));
    let udp = world.udp_of(flow);
    assert!(udp.sent - udp.received < 500 && udp.disordered == 0);
}

#[test]
fn ends_that_give_up_different_paths_at_once_find_each_other_again() {
    for seed in 1..4 {
        let specs = [Spec::new(50.0, 25.0), Spec::new(50.0, 25.0)];
        let mut world = World::new(seed, &specs, |_| ());
        world.run_until(1.0);
        let flows = [world.udp(1_200, 1_000.0), world.tcp(None)];
        world.run_until(3.0);
        // What the client sends dies on the one path, what the gateway sends on the other.
        (world.links[0][0].dead, world.links[1][1].dead) = (true, true);
        world.run_until(4.0);
        world.links.iter_mut().flatten().for_each(|l| l.dead = false);
        world.run_until(6.0);
        let before = flows.map(|flow| world.delivered(flow));
        world.run_until(8.0);
        let after = flows.map(|flow| world.delivered(flow));
        assert!((0..2).all(|n| after[n] > before[n]), "{before:?} {after:?}: {:?}", world.events);
        assert!((0..2).all(|id| world.bonds[0].path_report(id).unwrap().alive));
    }
}

#[test]
fn one_flow_fills_two_paths() {
    let rate = together(&[Spec::new(50.0, 20.0), Spec::new(50.0, 20.0)], 1);
    assert!(rate > 75.0, "{rate} Mbit/s of 95.9, the start included");
}

#[test]
fn what_a_path_loses_while_it_is_tried_is_not_what_it_loses_always() {
    let mut world = World::new(1, &[Spec::new(300.0, 10.0), Spec::new(80.0, 30.0)], |_| ());
    world.run_until(1.0);
    world.tcp(None);
    world.run_until(3.0);
    let rate = world.bonds[0].path_report(1).unwrap().rate as f64 / 1e6;
    assert!(rate < 88.0, "{rate} Mbit/s of 80");
}

#[test]
fn a_redundant_path_hides_the_loss_of_the_other() {
    let specs = [Spec::new(45.0, 10.0).loss(0.05), Spec::new(45.0, 12.0).loss(0.05)];
    let mut world = World::new(1, &specs, |c| c.policy = Policy::Redundant);
    world.run_until(1.0);
    let flow = world.udp(1_200, 1_000.0);
    world.run_until(6.0);
    let p99 = world.udp_of(flow).added(0.99, 10.3, 500);
    assert!(p99 < 25.0, "{p99} ms");
}

/// Changes some of the layer's datagrams on their way, as only a peer itself could.
fn forge(dice: &mut Dice, payload: &mut Vec<u8>) {
    if payload[0] == 0 || dice.unit() > 0.05 {
        return;
    }
    match dice.next() % 4 {
        0 => payload.truncate(1 + dice.next() as usize % payload.len()),
        1 => payload[1] = dice.next() as u8,
        _ => {
            let at = 1 + dice.next() as usize % (payload.len() - 1).clamp(1, 40);
            if let Some(byte) = payload.get_mut(at) {
                *byte = dice.next() as u8;
            }
        }
    }
}

#[test]
fn forged_datagrams_are_counted_and_the_tunnel_goes_on() {
    for seed in 1..4 {
        let mut world = World::new(seed, &[Spec::new(50.0, 10.0).loss(0.02)], |_| ());
        world.mangle = Some(forge);
        world.run_until(1.0);
        let flow = world.udp(1_200, 1_000.0);
        world.run_until(8.0);
        let (a, b) = (world.bonds[0].report(), world.bonds[1].report());
        assert!(a.refused + b.refused > 20, "{a:?} {b:?}");
        assert!(b.held_packets <= 8_192);
        let before = world.udp_of(flow).received;
        world.mangle = None;
        world.run_until(12.0);
        let after = world.udp_of(flow).received - before;
        let events = &world.events;
        assert!(
            after > 3_000,
            "{after} {:?} {:?} {events:?}",
            world.bonds[0].report(),
            world.bonds[1].report()
        );
    }
}

/// Swallows every report.
fn deafen(_: &mut Dice, payload: &mut Vec<u8>) {
    if payload[0] != 0 && payload[1] >> 6 == 2 {
        payload.truncate(1);
    }
}

#[test]
fn a_flow_loses_nothing_by_a_second_path_that_adds_little() {
    // A queue that a flow makes on its way delays the other direction's reports; the path is not dead then. And
    // what its slow neighbour lost as both were begun on is no reason for repair.
    let (fiber, lte) = (Spec::new(300.0, 8.0), Spec::new(30.0, 40.0).jitter(8.0).loss(0.005));
    let mut world = World::new(1, &[fiber, lte.in_order()], |_| ());
    world.run_until(1.0);
    let flow = world.tcp(None);
    world.run_until(2.0);
    let before = world.delivered(flow);
    world.run_until(5.0);
    let rate = mbit(world.delivered(flow) - before, 3.0);
    assert!(rate > 278.0, "{rate} Mbit/s of 287");
    let lost = |(_, _, e): &(u64, usize, Event)| matches!(e, Event::PathDown(0, _));
    assert!(!world.events.iter().any(lost), "{:?}", world.events);
    // The slow one's delay is not that of its crowded begin for ever.
    let rtt = world.bonds[0].path_report(1).unwrap_or_default().rtt.as_millis();
    assert!(rtt < 70, "{rtt} ms");
}

#[test]
fn a_peer_that_never_reports_costs_the_bond_and_not_the_tunnel() {
    let mut world = World::new(1, &[Spec::new(50.0, 10.0)], |_| ());
    world.mangle = Some(deafen);
    world.run_until(1.0);
    let flow = world.udp(1_200, 1_000.0);
    world.run_until(15.0);
    let closed = |(_, _, e): &(u64, usize, Event)| *e == Event::Closed(CloseCode::Protocol);
    assert!(world.events.iter().any(closed), "{:?}", world.events);
    let before = world.udp_of(flow).received;
    world.run_until(17.0);
    assert!(world.udp_of(flow).received > before + 1_900);
}

#[test]
fn an_outage_ends_and_the_bond_is_still_there() {
    let mut world = World::new(1, &[Spec::new(50.0, 10.0).loss(0.01)], |_| ());
    world.run_until(1.0);
    let flow = world.udp(1_200, 500.0);
    world.run_until(6.0);
    world.links[0].iter_mut().for_each(|l| l.dead = true);
    world.run_until(14.0);
    world.links[0].iter_mut().for_each(|l| l.dead = false);
    world.run_until(17.0);
    let before = world.udp_of(flow).received;
    world.run_until(20.0);
    assert!(world.udp_of(flow).received > before + 1_300);
    let closed = |(_, _, e): &(u64, usize, Event)| matches!(e, Event::Closed(_));
    assert!(!world.events.iter().any(closed), "{:?}", world.events);
}
