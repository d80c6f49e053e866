//! What the controller makes of a lossy path, in virtual time:
//! `cargo run --release -p bauta-fec --example simulate [SECONDS [SEED]]`.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::time::{Duration, Instant};

use bauta_fec::control::{Class, Settings};

#[path = "../tests/sim/mod.rs"]
mod sim;

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn main() {
    let mut words = std::env::args().skip(1);
    let seconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(20.0);
    let seed = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let epoch = Instant::now();
    regimes(seconds, seed, epoch);
    println!(
        "class        rtt  loss%  burst  residual   overhead  ×p/(1-p)  added ms p50   p99  p99.9    max"
    );
    for class in [Class::Interactive, Class::Bulk, Class::Sparse] {
        let settings = Settings::of(class);
        for rtt in [50, 200] {
            for burst in [1.0, 3.0, 5.0, 8.0] {
                for loss in [0.0002, 0.01, 0.05, 0.1, 0.15] {
                    let packets = if class == Class::Sparse { 100.0 } else { 8000.0 };
                    let scenario = sim::Scenario {
                        settings,
                        background: if class == Class::Sparse { 7900.0 } else { 0.0 },
                        rtt: Duration::from_millis(rtt),
                        packets,
                        seconds: seconds * if class == Class::Sparse { 10.0 } else { 1.0 },
                        channel: sim::Channel::new(loss, burst, seed),
                        switches: Vec::new(),
                    };
                    let o = sim::run(&scenario, epoch);
                    let bound = (o.loss / (1.0 - o.loss)).max(1e-9);
                    println!(
                        "{:11} {rtt:4} {:6.2} {burst:6.0} {:9.1e} {:10.4} {:9.2} {:13.1} {:5.1} {:6.1} {:6.1}",
                        format!("{class:?}"),
                        o.loss * 100.0,
                        o.residual,
                        o.overhead,
                        o.overhead / bound,
                        o.delay[0],
                        o.delay[1],
                        o.delay[2],
                        o.delay[3],
                    );
                }
            }
        }
    }
}

/// Between 0.02 % and 15 % every two seconds or so, with the forecast and without.
fn regimes(seconds: f64, seed: u64, epoch: Instant) {
    println!("switching    forecast  loss%  residual   overhead  added ms p50   p99  p99.9    max");
    for class in [Class::Interactive, Class::Bulk] {
        for forecast in [false, true] {
            let (mut random, mut at, mut switches) = (sim::Random(seed), 0.0, Vec::new());
            while at < seconds * 4.0 {
                at -= 2.0 * random.unit().ln();
                switches.push((at, if switches.len() % 2 == 0 { 0.15 } else { 0.0002 }));
            }
            let scenario = sim::Scenario {
                settings: Settings { forecast, ..Settings::of(class) },
                background: 0.0,
                rtt: Duration::from_millis(50),
                packets: 8000.0,
                seconds: seconds * 4.0,
                channel: sim::Channel::new(0.0002, 1.0, seed),
                switches,
            };
            let o = sim::run(&scenario, epoch);
            println!(
                "{:11} {forecast:>9} {:6.2} {:9.1e} {:10.4} {:13.1} {:5.1} {:6.1} {:6.1}",
                format!("{class:?}"),
                o.loss * 100.0,
                o.residual,
                o.overhead,
                o.delay[0],
                o.delay[1],
                o.delay[2],
                o.delay[3],
            );
        }
    }
}
