//! Prints what a bond brings over simulated links, each figure with its limit beside it. `SEED` is 1 unless it is set.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

#[path = "../tests/bond_world/mod.rs"]
mod bond_world;

use bauta_masque::bond::Policy;
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
    for (name, figures) in [
        ("interactive", interactive as fn()),
        ("beginning", beginning),
        ("sparse", sparse),
        ("rival", rival),
        ("switching", switching),
        ("bonding", bonding),
        ("failover", failover),
        ("pairs", pairs),
    ] {
        if wanted(name) {
            figures();
        }
    }
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
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
    let mut world = World::new(seed(), &[spec], |_| ());
    world.run_until(1.0);
    for _ in 0..flows {
        world.tcp(None);
    }
    let mut before = 0;
    let sum = |w: &World| (0..flows).map(|f| w.delivered(f)).sum::<u64>();
    let verbose = std::env::var_os("TRACE").is_some();
    for step in 5..=64 {
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
    if std::env::var_os("TRACE").is_some() {
        for at in 0..world.flows.len() {
            println!("    {}", world.tcp_of(at).state());
        }
        let back = world.bonds[1].path_report(0).unwrap_or_default();
        println!(
            "    back: rate {:.2} deliv {:.2} queue {:?} queued {} drops {} repair {} | ahead repair {}",
            back.rate as f64 / 1e6,
            back.delivery_rate as f64 / 1e6,
            back.queue_delay,
            world.bonds[1].report().queued_packets,
            world.bonds[1].report().queue_drops,
            world.bonds[1].report().repair_sent,
            world.bonds[0].report().repair_sent,
        );
    }
    format!(
        "cwnd {:.0} cuts {} timeouts {} undone {} queued {queued} held {held}",
        t.cwnd, t.cuts, t.timeouts, t.undone
    )
}

/// Saturating UDP in order: goodput and added delay.
fn interactive() {
    println!(
        "interactive: loss % | burst | Mbit/s | limit | added p50 | p99 ms | residual | overhead / p/(1-p)"
    );
    for (loss, burst) in
        [(0.01, 1.0), (0.05, 1.0), (0.10, 1.0), (0.15, 1.0), (0.05, 5.0), (0.10, 5.0)]
    {
        let limit = 100.0 * (1.0 - loss) * 0.959;
        let spec = Spec::new(100.0, 25.0);
        let spec = if burst > 1.0 { spec.bursts(loss, burst) } else { spec.loss(loss) };
        let mut world = World::new(seed(), &[spec], |_| ());
        world.run_until(1.0);
        let flow = world.udp(1_400, limit * 0.95e6 / 8.0 / 1_400.0);
        world.run_until(4.0);
        let (before, had) = (world.delivered(flow), world.udp_of(flow).delays.len());
        let was = world.bonds[0].report();
        world.run_until(12.0);
        let report = world.bonds[0].report();
        let udp = world.udp_of(flow);
        let extra = (report.repair_bytes - was.repair_bytes) as f64
            / (report.sources_sent - was.sources_sent) as f64
            / 1_400.0;
        println!(
            "{:5.1} {burst:3.0} {:7.2} {limit:6.1} {:7.2} {:7.2} {:6} {:5.2} | drops {}",
            loss * 100.0,
            mbit(world.delivered(flow) - before, 8.0),
            udp.added(0.5, 25.2, had),
            udp.added(0.99, 25.2, had),
            world.bonds[1].report().given_up,
            extra / (loss / (1.0 - loss)),
            report.queue_drops,
        );
    }
}

/// Streams that begin with the tunnel.
fn beginning() {
    println!(
        "beginning: loss % | Mbit/s offered | added ms, median and most in each quarter of a second"
    );
    for (loss, burst, offered) in [
        (0.01, 1.0, 91.0),
        (0.05, 1.0, 86.0),
        (0.10, 1.0, 81.0),
        (0.15, 1.0, 75.0),
        (0.05, 5.0, 80.0),
        (0.10, 5.0, 73.0),
    ] {
        let spec = Spec::new(100.0, 25.0);
        let spec = if burst > 1.0 { spec.bursts(loss, burst) } else { spec.loss(loss) };
        let mut world = World::new(seed(), &[spec], |_| ());
        world.run_until(0.1);
        let flow = world.udp(1_400, offered * 1e6 / 8.0 / 1_400.0);
        print!("{:5.1} {offered} |", loss * 100.0);
        for quarter in 1..=16 {
            let had = world.udp_of(flow).delays.len();
            world.run_until(0.1 + 0.25 * f64::from(quarter));
            let udp = world.udp_of(flow);
            print!(" {:.0}/{:.0}", udp.added(0.5, 25.2, had), udp.added(1.0, 25.2, had));
        }
        let report = world.bonds[0].report();
        println!(
            " | repair {} again {} of {}",
            report.repair_sent, report.retransmissions, report.sources_sent
        );
    }
}

/// 100 packets/s of 200 B beside bulk.
fn sparse() {
    println!("sparse beside bulk, 10 %, RTT 100: added p50 | p99 | p99.9 ms | lost");
    let mut world = World::new(seed(), &[Spec::new(100.0, 50.0).loss(0.1)], |_| ());
    world.run_until(1.0);
    world.tcp(None);
    let flow = world.udp(200, 100.0);
    world.run_until(60.0);
    let udp = world.udp_of(flow);
    let added = |share| udp.added(share, 50.1, 300);
    println!(
        "{:.2} {:.2} {:.2} {}",
        added(0.5),
        added(0.99),
        added(0.999),
        udp.sent - udp.received
    );
}

/// A CUBIC flow beside the tunnel on the same link.
fn rival() {
    println!("rival: queue | rival's share % of 100 Mbit/s | bond's | mean queue ms alone");
    for (name, spec) in
        [("one BDP", Spec::new(100.0, 25.0)), ("5 ms", Spec::new(100.0, 25.0).queue_ms(5.0))]
    {
        let mut alone = World::new(seed(), std::slice::from_ref(&spec), |_| ());
        alone.tcp(None);
        alone.run_until(20.0);
        let mut world = World::new(seed(), &[spec], |_| ());
        let (ours, theirs) = (world.tcp(None), world.rival());
        world.run_until(15.0);
        let (a, b) = (world.delivered(ours), world.delivered(theirs));
        world.run_until(60.0);
        println!(
            "{name}: {:.1} {:.1} {:.2}",
            mbit(world.delivered(theirs) - b, 45.0),
            mbit(world.delivered(ours) - a, 45.0),
            alone.links[0][0].mean_wait(),
        );
    }
}

fn switching() {
    let spans =
        (0..20).map(|i| (f64::from(i + 1) * 2.0, [0.0002, 0.15, 0.02, 0.10][i as usize % 4]));
    let loss = bond_world::link::Loss::Switching(spans.collect());
    let mut world = World::new(seed(), &[Spec { loss, ..Spec::new(100.0, 25.0) }], |_| ());
    let flow = world.udp(1_400, 80e6 / 8.0 / 1_400.0);
    world.run_until(40.0);
    let udp = world.udp_of(flow);
    println!(
        "switching 0.02-15 %: {:.2} of 80 offered, added p99 {:.1} ms, given up {}",
        mbit(udp.bytes, 40.0),
        udp.added(0.99, 25.2, 7_000),
        world.bonds[1].report().given_up,
    );
}

/// Inner-IP Mbit/s of TCP flows over a span of seconds, which begin at 1 s; `TRACE` shows how they get on.
fn together(world: &mut World, flows: usize, (from, to): (f64, f64)) -> f64 {
    const STEP: f64 = 0.25;
    world.run_until(1.0);
    let ids: Vec<usize> = (0..flows).map(|_| world.tcp(None)).collect();
    let sum = |w: &World| ids.iter().map(|f| w.delivered(*f)).sum::<u64>();
    let mut before = 0;
    let mut until = 1.0;
    while until < to {
        let was = sum(world);
        let next = if until < from { (until + STEP).min(from) } else { (until + STEP).min(to) };
        world.run_until(next);
        if std::env::var_os("TRACE").is_some() {
            trace(world, next, mbit(sum(world) - was, next - until));
        }
        until = next;
        if until == from {
            before = sum(world);
        }
    }
    mbit(sum(world) - before, to - from)
}

/// One line for a moment: the paths as either end sees them, the first flow, the counters.
fn trace(world: &World, at: f64, rate: f64) {
    print!("{at:5.2} {rate:6.1} ");
    for path in 0..world.links.len() {
        for end in 0..2 {
            let p = world.bonds[end].path_report(path as u8).unwrap_or_default();
            print!(
                "|{} {:5.1} d {:5.1} q {:4.1} l {:4.1}% rtt {:3.0} ",
                if p.alive { ' ' } else { '!' },
                p.rate as f64 / 1e6,
                p.delivery_rate as f64 / 1e6,
                p.queue_delay.as_secs_f64() * 1e3,
                p.loss_ppm as f64 / 1e4,
                p.rtt.as_secs_f64() * 1e3
            );
        }
    }
    let (a, b) = (world.bonds[0].report(), world.bonds[1].report());
    let (t, link) = (world.tcp_of(0), |l: usize| &world.links[l][0]);
    let tail: u64 = (0..world.links.len()).map(|l| link(l).tail_drops).sum();
    println!(
        "| {} ss {:.0} cuts {} to {} | wait {} rep {} retr {} copies {} src {} drops {} tail {tail} | held {} given {} dup {}",
        t.state(),
        t.ssthresh,
        t.cuts,
        t.timeouts,
        a.queued_packets,
        a.repair_sent,
        a.retransmissions,
        a.copies,
        a.sources_sent,
        a.queue_drops,
        b.held_packets,
        b.given_up,
        b.duplicates
    );
}

fn pair(specs: &[Spec], flows: usize, seconds: f64) -> f64 {
    together(&mut World::new(seed(), specs, |_| ()), flows, (1.0, 1.0 + seconds))
}

fn bonding() {
    println!("bonding: paths | flows | Mbit/s | limit");
    for (name, a, b, limit) in [
        ("45/20 + 25/60", Spec::new(45.0, 10.0), Spec::new(25.0, 30.0), 67.1),
        ("2 x 100/25", Spec::new(100.0, 25.0), Spec::new(100.0, 25.0), 191.8),
        ("300/10 + 80/30", Spec::new(300.0, 10.0), Spec::new(80.0, 30.0), 364.4),
    ] {
        for flows in [1, 16] {
            let specs = [a.clone(), b.clone()];
            let mut world = World::new(seed(), &specs, |_| ());
            let rate = together(&mut world, flows, (7.0, 15.0));
            let r = |p| world.bonds[0].path_report(p).unwrap_or_default();
            println!(
                "{name} {flows:3} {:7.2} {limit} | rates {} {} given up {} held {} drops {}",
                rate,
                r(0).rate / 1_000_000,
                r(1).rate / 1_000_000,
                world.bonds[1].report().given_up,
                world.bonds[1].report().held_packets,
                world.bonds[0].report().queue_drops,
            );
        }
    }
}

fn failover() {
    println!(
        "failover, 10 kills of each: policy | Mbit/s | path killed | lost | longest silence ms"
    );
    let packets = |mbit: f64| mbit * 1e6 / 8.0 / 1_200.0;
    for (policy, load) in [(Policy::Auto, 19.2), (Policy::Auto, 55.0), (Policy::Redundant, 9.6)] {
        for dead in [0, 1] {
            let (mut lost, mut gap) = (0, 0);
            for kill in 0..10 {
                let specs = [Spec::new(45.0, 10.0), Spec::new(25.0, 30.0)];
                let mut world = World::new(seed() * 10 + kill, &specs, |c| c.policy = policy);
                world.run_until(1.0);
                let flow = world.udp(1_200, packets(load));
                world.run_until(3.0 + kill as f64 * 0.017);
                world.links[dead].iter_mut().for_each(|l| l.dead = true);
                world.longest(flow);
                world.run_until(4.5);
                lost += world.bonds[1].report().given_up;
                if std::env::var_os("TRACE").is_some() {
                    let at = world.udp_of(flow).longest_gap;
                    println!("silent {at:?}: {:?}", world.events);
                }
                gap = gap.max(world.longest(flow));
            }
            println!("{policy:?} {load:4.1} {dead} {lost} {:.1}", gap as f64 / 1e3);
        }
    }
}

fn pairs() {
    let p = Spec::new;
    println!("pairs: name | flows | better alone | bonded | ratio");
    let table = [
        ("baseline", p(50.0, 20.0), p(50.0, 20.0)),
        ("rtt_40", p(50.0, 20.0), p(50.0, 40.0)),
        ("rtt_70", p(50.0, 20.0), p(50.0, 70.0)),
        ("rtt_120", p(50.0, 20.0), p(50.0, 120.0)),
        ("rtt_320", p(50.0, 20.0), p(50.0, 320.0)),
        ("jit_5", p(50.0, 20.0).jitter(5.0), p(50.0, 20.0).jitter(5.0)),
        ("jit_20", p(50.0, 20.0).jitter(20.0), p(50.0, 20.0).jitter(20.0)),
        ("loss_05", p(50.0, 20.0).loss(0.005), p(50.0, 20.0).loss(0.005)),
        ("loss_2", p(50.0, 20.0).loss(0.02), p(50.0, 20.0).loss(0.02)),
        ("bw_4to1", p(50.0, 20.0), p(12.0, 20.0)),
        ("bw_10to1", p(100.0, 20.0), p(10.0, 20.0)),
        ("dual_lte", p(40.0, 30.0).jitter(5.0).loss(0.005), p(25.0, 45.0).jitter(8.0).loss(0.005)),
        ("fiber_lte", p(300.0, 8.0), p(30.0, 40.0).jitter(8.0).loss(0.005)),
        ("lte_starlink", p(40.0, 35.0).jitter(8.0), p(100.0, 50.0).jitter(25.0).loss(0.01)),
        ("lte_geo", p(40.0, 35.0), p(20.0, 320.0).jitter(20.0).loss(0.005)),
        ("congested", p(20.0, 50.0).jitter(20.0).loss(0.02), p(15.0, 60.0).jitter(25.0).loss(0.02)),
    ];
    let only = std::env::args().nth(2);
    let in_order = std::env::var_os("IN_ORDER").is_some();
    for (name, a, b) in table {
        if only.as_deref().is_some_and(|only| !only.split(',').any(|o| o == name)) {
            continue;
        }
        let [a, b] = [a, b].map(|s| if in_order { s.in_order() } else { s });
        for flows in [1, 16] {
            let alone = [&a, &b].map(|s| pair(std::slice::from_ref(s), flows, 10.0));
            let better = alone[0].max(alone[1]);
            let bonded = pair(&[a.clone(), b.clone()], flows, 10.0);
            println!("{name:13} {flows:2} {better:7.2} {bonded:7.2} {:5.2}", bonded / better);
        }
    }
}
