//! Prints what a bond brings over simulated links, each figure with its limit beside it.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/bond_world/mod.rs"]
mod bond_world;

use bond_world::link::Spec;
use bond_world::{World, mbit};

fn main() {
    let only = std::env::args().nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.starts_with(only));
    if wanted("bulk") {
        let numbers: Vec<f64> = std::env::args().skip(2).filter_map(|a| a.parse().ok()).collect();
        match numbers[..] {
            [loss, rtt, flows] => one_bulk(loss, rtt, flows as usize),
            _ => bulk(),
        }
    }
}

fn bulk() {
    println!("bulk: loss % | rtt ms | flows | Mbit/s | limit | queue ms");
    for loss in [0.0, 0.01, 0.05, 0.10, 0.15] {
        for rtt in [20.0, 50.0, 200.0] {
            for flows in [1, 8] {
                one_bulk(loss, rtt, flows);
            }
        }
    }
}

fn one_bulk(loss: f64, rtt: f64, flows: usize) {
    let spec = Spec::new(100.0, rtt / 2.0).loss(loss);
    let mut world = World::new(1, &[spec], |_| ());
    for _ in 0..flows {
        world.tcp(None);
    }
    let mut before = 0;
    let sum = |w: &World| (0..flows).map(|f| w.delivered(f)).sum::<u64>();
    let verbose = std::env::var_os("TRACE").is_some();
    for step in 1..=64 {
        let was = sum(&world);
        world.run_until(f64::from(step) * 0.25);
        if verbose {
            let path = world.bonds[0].path_report(0).unwrap_or_default();
            println!(
                "{:5.2} {:6.1} rate {:6.1} deliv {:6.1} queue {:?} loss {} rtt {:?} {}",
                f64::from(step) * 0.25,
                mbit(sum(&world) - was, 0.25),
                path.rate as f64 / 1e6,
                path.delivery_rate as f64 / 1e6,
                path.queue_delay,
                path.loss_ppm,
                path.rtt,
                tcp(&world),
            );
        }
        if step == 24 {
            before = sum(&world);
        }
    }
    let rate = mbit(sum(&world) - before, 10.0);
    let inner: u64 = (0..flows).map(|f| world.tcp_of(f).retransmitted).sum();
    let report = world.bonds[0].report();
    println!(
        "{:5.1} {rtt:5.0} {flows:3} {rate:7.2} {:6.1} {:6.2} | inner resent {inner}, tail drops {}, given up {}, drops {} resent {} sent {} numbered {} | {}",
        loss * 100.0,
        100.0 * (1.0 - loss) * 0.959,
        world.links[0][0].mean_wait(),
        world.links[0][0].tail_drops,
        world.bonds[1].report().given_up,
        report.queue_drops,
        report.retransmissions,
        report.sources_sent,
        report.numbered,
        tcp(&world),
    );
}

fn tcp(world: &World) -> String {
    let t = world.tcp_of(0);
    let (queued, held) =
        (world.bonds[0].report().queued_packets, world.bonds[1].report().held_packets);
    format!(
        "cwnd {:.0} cuts {} timeouts {} undone {} queued {queued} held {held}",
        t.cwnd, t.cuts, t.timeouts, t.undone
    )
}
