//! What coding costs: `cargo run --release -p bauta-fec --example coding`, on a quiet machine.
//!
//! Core-seconds per Gbit of packets of 1,400 bytes at each end, with the repair that the
//! controller would send: the packets go through encoder, lossy path and decoder in batches, and
//! each end's time is taken by itself. Best of several runs.

#![expect(clippy::print_stdout, reason = "it prints a table")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::time::{Duration, Instant};

use bauta_fec::control::{Class, Controller, Settings, Traffic};
use bauta_fec::{Codec, Header, rs16};

#[path = "../tests/sim/mod.rs"]
mod sim;

const PACKET: usize = 1400;
const PACKETS: usize = 20_000;
const BATCH: usize = 32;

fn main() {
    rs16::warm_up();
    println!(
        "codec  loss%  repair/packet  cover  encoder core·s/Gbit  decoder core·s/Gbit  recovered  repair used"
    );
    for codec in Codec::ALL {
        for loss in [0.01, 0.05, 0.1, 0.15] {
            let plan = plan(loss);
            let runs: Vec<_> = (0..5).map(|seed| run(codec, loss, plan, seed)).collect();
            let best = |pick: fn(&Run) -> f64| runs.iter().map(pick).fold(f64::MAX, f64::min);
            println!(
                "{:5} {:6.1} {:14.3} {:6} {:20.3} {:20.3} {:9.2}% {:11.2}%",
                format!("{codec:?}"),
                loss * 100.0,
                plan.0,
                plan.1,
                best(|run| run.encoder),
                best(|run| run.decoder),
                runs[0].recovered * 100.0,
                runs[0].used * 100.0,
            );
        }
    }
}

/// Repair per packet and cover, once the controller knows the loss.
fn plan(loss: f64) -> (f64, usize) {
    let (mut now, mut channel) = (Instant::now(), sim::Channel::new(loss, 1.0, 5));
    let mut controller = Controller::new(Settings::of(Class::Interactive));
    for _ in 0..50_000 {
        now += Duration::from_micros(112);
        controller.record(now, channel.loses());
    }
    let traffic = Traffic {
        rtt: Duration::from_millis(50),
        packets: 8900.0,
        waiting: Duration::ZERO,
        worst: 0.0,
    };
    controller.update(now, traffic).map_or((0.0, 1), |plan| (plan.ratio, plan.cover))
}

struct Run {
    encoder: f64,
    decoder: f64,
    recovered: f64,
    used: f64,
}

fn run(codec: Codec, loss: f64, (ratio, cover): (f64, usize), seed: u64) -> Run {
    let (mut encoder, mut decoder) = (codec.encoder(), codec.decoder());
    encoder.set_cover(if codec == Codec::Rs16 { cover.min(64) } else { cover });
    let mut channel = sim::Channel::new(loss, 1.0, seed);
    let packets: Vec<Vec<u8>> = (0..BATCH).map(|i| vec![i as u8; PACKET]).collect();
    let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
    let (mut owed, mut lost, mut seq) = (0.0, 0usize, 0u64);
    let mut repair: Vec<(Header, Vec<u8>)> = Vec::new();
    for _ in 0..PACKETS / BATCH {
        repair.clear();
        let began = Instant::now();
        for (i, packet) in packets.iter().enumerate() {
            let _ = encoder.push(seq + i as u64, packet);
            owed += ratio;
            while owed >= 1.0 {
                let Some((header, symbol)) = encoder.repair() else { break };
                repair.push((header, symbol.to_vec()));
                owed -= 1.0;
            }
        }
        sending += began.elapsed();
        let arrives: Vec<bool> = packets.iter().map(|_| !channel.loses()).collect();
        repair.retain(|_| !channel.loses());
        lost += arrives.iter().filter(|arrives| !**arrives).count();
        let began = Instant::now();
        for (i, packet) in packets.iter().enumerate().filter(|(i, _)| arrives[*i]) {
            let _ = decoder.source(seq + i as u64, packet);
        }
        for (header, symbol) in &repair {
            let _ = decoder.repair(header, symbol);
        }
        while decoder.poll().is_some() {}
        receiving += began.elapsed();
        seq += BATCH as u64;
    }
    let gbit = (PACKETS / BATCH * BATCH * PACKET * 8) as f64 / 1e9;
    let counters = decoder.counters();
    Run {
        encoder: sending.as_secs_f64() / gbit,
        decoder: receiving.as_secs_f64() / gbit,
        recovered: counters.recovered as f64 / lost.max(1) as f64,
        used: 1.0 - counters.idle as f64 / counters.repair.max(1) as f64,
    }
}
