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

/// A path that carries 10 Mbyte/s with a least delay of 10 ms, reported of every 5 ms.
struct Link {
    now: f64,
    free_at: f64,
    /// What is added to every delay, microseconds.
    later: f64,
    sent: u64,
    reported_at: f64,
}

impl Link {
    const CAPACITY: f64 = 10e6;

    /// Sends at `share` of the rate for `micros`.
    fn send(&mut self, rate: &mut Rate, share: f64, micros: f64) {
        const LEN: u64 = 1_400;
        let end = self.now + micros;
        while self.now < end {
            self.now += (LEN + WIRE) as f64 / (rate.rate() * share) * 1e6;
            self.free_at = self.free_at.max(self.now) + (LEN + WIRE) as f64 / Self::CAPACITY * 1e6;
            self.sent += 1;
            let arrived = self.free_at + 10_000.0 + self.later;
            if arrived < self.reported_at + 5_000.0 {
                continue;
            }
            self.reported_at = arrived;
            let judged = Judged { sent: self.sent, ..Judged::default() };
            let (next, bytes) = (self.sent, self.sent * LEN);
            let at = Progress { next, received: next, bytes, arrived: arrived as u64, judged };
            let on_its_way = (rate.rate() * share * 0.02) as u64 / LEN;
            rate.on_report(at, arrived - self.now, next + on_its_way + 1, 20_000.0);
        }
    }
}

#[test]
fn a_delay_that_does_not_come_from_what_is_sent_costs_no_capacity() {
    let mut rate = Rate::new(1_250_000.0, None);
    let mut link = Link { now: 0.0, free_at: 0.0, later: 0.0, sent: 0, reported_at: 0.0 };
    link.send(&mut rate, 1.0, 3e6);
    let full = rate.rate();
    assert!((0.85..1.1).contains(&(full / Link::CAPACITY)), "{full}");
    // Little to send, and something else holds every packet up.
    link.later = 6_000.0;
    link.send(&mut rate, 0.1, 5e6);
    assert!(rate.rate() > 0.8 * full, "{} of {full}", rate.rate());
}

#[test]
fn a_capacity_that_was_known_is_gone_on_from() {
    let mut rate = Rate::new(1_250_000.0, None);
    assert!(!rate.resume(5e6), "nothing was known");
    let mut link = Link { now: 0.0, free_at: 0.0, later: 0.0, sent: 0, reported_at: 0.0 };
    link.send(&mut rate, 1.0, 3e6);
    let full = rate.rate();
    assert!(rate.resume(5e6) && rate.phase == Phase::Cruise);
    assert!((0.9..1.1).contains(&(rate.rate() / full)), "{} after {full}", rate.rate());
    assert!(rate.resume(2.0 * full) && rate.rate() > 1.8 * full, "more got through meanwhile");
}

#[test]
fn a_path_that_is_full_is_begun_on_without_a_queue() {
    let mut rate = Rate::full(Link::CAPACITY, None);
    assert!(!rate.is_starting() && rate.rate() < Link::CAPACITY);
    let mut link = Link { now: 0.0, free_at: 20_000.0, later: 0.0, sent: 0, reported_at: 0.0 };
    rate.expect_delay(10_000.0);
    link.send(&mut rate, 1.0, 1e6);
    let share = rate.rate() / Link::CAPACITY;
    assert!((0.9..1.1).contains(&share) && rate.queue() < 5_000.0, "{share}, {}", rate.queue());
}

/// Noise that repeats, 0 to 1.
fn noise(n: u64) -> f64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1 << 24) as f64
}

/// A path in `Cruise` at 10 Mbyte/s whose delays vary by 10 ms, after a report each 5 ms; `queue`
/// tells what is added to them at a time, given the rate, microseconds.
fn cruise_in_jitter(seconds: f64, mut queue: impl FnMut(f64, &Rate) -> f64) -> Rate {
    let mut rate = Rate::full(Link::CAPACITY, None);
    let (mut sent, mut bytes, mut last) = (0.0, 0.0, 0.0f64);
    let mut now = 0.0;
    while now < seconds * 1e6 {
        now += 5_000.0;
        let got = rate.rate().min(Link::CAPACITY) * 5e-3;
        (sent, bytes) = (sent + got / 1_460.0, bytes + got);
        let delay = 25_000.0 + 10_000.0 * noise(now as u64) + queue(now / 1e6, &rate);
        let arrived = (now + delay).max(last + 1.0);
        last = arrived;
        let (next, judged) = (sent as u64, Judged { sent: sent as u64, ..Judged::default() });
        let bytes = bytes as u64 - next * WIRE;
        let at = Progress { next, received: next, bytes, arrived: arrived as u64, judged };
        rate.on_report(at, arrived - now, next + 40, 50_000.0);
    }
    rate
}

#[test]
fn in_jitter_a_queue_that_stays_whatever_is_sent_is_the_paths_nature() {
    let rate = cruise_in_jitter(20.0, |at, _| if at > 5.0 { 60_000.0 } else { 0.0 });
    assert!(rate.rate() > 0.8 * Link::CAPACITY, "{}", rate.rate());
}

#[test]
fn in_jitter_a_queue_that_shrinks_as_less_is_sent_is_a_queue() {
    // The path carries half of what is believed from 5 s on.
    let capacity = Link::CAPACITY / 2.0;
    let (mut queue, mut most, mut late) = (0.0, 0.0f64, 0.0f64);
    cruise_in_jitter(20.0, |at, rate| {
        if at > 5.0 {
            queue = (queue + 5_000.0 * (rate.rate() / capacity - 1.0)).clamp(0.0, 200_000.0);
        }
        most = most.max(queue);
        late = if at > 15.0 { late.max(queue) } else { 0.0 };
        queue
    });
    assert!(most > 30_000.0 && late < 0.7 * most, "{late} of {most}");
}

#[test]
fn a_doubt_does_not_outlive_what_it_is_about() {
    // In the middle of trying whether the queue shrinks.
    let standing = || cruise_in_jitter(5.2, |at, _| if at > 5.0 { 60_000.0 } else { 0.0 });
    let mut rate = standing();
    assert!(rate.doubt.is_some() && rate.is_jittery());
    assert!(rate.resume(Link::CAPACITY) && rate.doubt.is_none());

    let mut rate = standing();
    // The path is another now, without jitter.
    rate.delay = Delay::new();
    rate.end = 0;
    let mut link = Link { now: 10e6, free_at: 0.0, later: 0.0, sent: 1_000_000, reported_at: 0.0 };
    link.send(&mut rate, 0.9, 1e6);
    assert!(!rate.is_jittery() && rate.doubt.is_none());
}
