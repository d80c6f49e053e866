//! What receiving a datagram costs the application: `recvmmsg`, the same with UDP GRO, and rings,
//! side by side over veth. Needs root and two cores.
//!
//! ```sh
//! cargo run --release -p bauta-xdp --example receive_cost [--json] [--turns N]
//! ```
//!
//! Bursts of 1,200-byte datagrams are sent from one core and wait; then the other core takes them,
//! and only that is timed, by the thread's CPU clock. "read" also reads every byte, as decryption
//! will: in a ring they are cold, `recvmmsg` has just copied them. "whole" adds the sending thread
//! with the softirq work inside its calls, which is most of it on veth and tells nothing about a
//! network card: a card has no sender in the same machine, and veth makes its packets into XDP
//! frames by copying them.
#![expect(clippy::print_stdout, reason = "it prints what it found")]
#![cfg(target_os = "linux")]

mod kernel;
mod rounds;

use rounds::{Contender, Figures, run};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Datagrams that wait when the application comes to take them.
const BURSTS: [usize; 3] = [8, 64, 256];
/// Turns of every contender, if not told otherwise; the medians are printed.
const TURNS: usize = 7;

fn main() -> Outcome<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let count = match words.iter().position(|word| word == "--turns") {
        None => TURNS,
        Some(at) => words
            .get(at + 1)
            .and_then(|n| n.parse().ok())
            .filter(|n| *n > 0)
            .ok_or("--turns wants a number above 0")?,
    };
    if !json {
        println!("CPU nanoseconds a datagram of 1,200 bytes, median of {count} alternating turns");
        println!("{:>5}  {:34}{:>6}{:>6}{:>7}{:>6}", "burst", "", "take", "read", "whole", "lost");
    }
    for burst in BURSTS {
        let mut turns: Vec<Vec<Figures>> = vec![Vec::new(); Contender::ALL.len()];
        for _ in 0..count {
            for (contender, turns) in Contender::ALL.into_iter().zip(&mut turns) {
                turns.push(run(contender, burst)?);
            }
        }
        for (contender, turns) in Contender::ALL.into_iter().zip(&turns) {
            let median = |of: fn(&Figures) -> u64| {
                let mut values: Vec<_> = turns.iter().map(of).collect();
                values.sort_unstable();
                values[values.len() / 2]
            };
            let (take, read) = (median(|f| f.take), median(|f| f.read));
            let (whole, lost) = (median(|f| f.whole), turns.iter().map(|f| f.lost).sum::<u64>());
            let name = contender.name();
            if json {
                println!(
                    r#"{{"bench":"receive","burst":{burst},"way":"{name}","unit":"ns","take":{take},"read":{read},"whole":{whole},"lost":{lost}}}"#
                );
            } else {
                println!("{burst:>5}  {name:34}{take:>6}{read:>6}{whole:>7}{lost:>6}");
            }
        }
    }
    Ok(())
}
