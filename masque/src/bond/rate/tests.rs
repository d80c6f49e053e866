//! Reports of made-up paths.

use super::*;

/// Reports of a path with the least delay of 25 ms, one a packet, `gap` microseconds apart;
/// `late` is what is added to the delay of the `n`th.
fn reports(rate: &mut Rate, packets: u64, gap: u64, late: impl Fn(u64) -> u64) {
    for n in 0..packets {
        let delay = 25_000 + late(n);
        let arrived = n * gap + delay;
        let judged = Judged { sent: n + 1, ..Judged::default() };
        let at = Progress { next: n + 1, received: n + 1, bytes: (n + 1) * 200, arrived, judged };
        rate.on_report(at, delay as f64, n + 2, 50_000.0);
    }
}

#[test]
fn a_trickle_that_a_busy_receiver_reads_late_says_nothing_of_the_path() {
    let mut rate = Rate::new(1_250_000.0, None);
    // Every few packets a while of 3 to 40 ms in which the receiver does not run.
    reports(&mut rate, 400, 20_000, |n| if n % 9 > 5 { 3_000 + n * 7_919 % 37_000 } else { 0 });
    assert_eq!(rate.phase, Phase::Startup);
    assert!(rate.rate() >= 1_250_000.0, "{}", rate.rate());
}

#[test]
fn a_trickle_that_fills_its_path_is_noticed() {
    // 80 kbit/s where 400 were hoped for: each packet waits longer than the one before.
    let mut rate = Rate::new(50_000.0, None);
    reports(&mut rate, 200, 10_000, |n| n * 2_000);
    assert_ne!(rate.phase, Phase::Startup);
}
