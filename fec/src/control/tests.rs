use super::*;
use crate::testing::{Random, start};

const TRAFFIC: Traffic = Traffic {
    rtt: Duration::from_millis(50),
    packets: 8000.0,
    waiting: Duration::ZERO,
    worst: 0.0,
};

/// Feeds `seconds` of a stream that loses `p`; how many repair symbols a packet it asked for.
fn feed(
    controller: &mut Controller,
    now: &mut Instant,
    random: &mut Random,
    p: f64,
    seconds: u32,
) -> f64 {
    let (mut repair, packets) = (0, 8000 * seconds);
    for i in 0..packets {
        *now += Duration::from_micros(125);
        controller.record(*now, random.unit() < p);
        repair += controller.on_source();
        if i % 50 == 0 {
            controller.update(*now, TRAFFIC);
        }
    }
    repair as f64 / f64::from(packets)
}

#[test]
fn a_clean_path_gets_no_repair() {
    let (mut now, mut random) = (start(), Random(1));
    for class in [Class::Sparse, Class::Interactive, Class::Bulk] {
        let mut controller = Controller::new(Settings::of(class));
        assert_eq!(feed(&mut controller, &mut now, &mut random, 0.0002, 10), 0.0, "{class:?}");
        assert_eq!(controller.plan(), None);
    }
}

#[test]
fn repair_begins_with_loss_and_ends_two_seconds_after_it() {
    let (mut now, mut random) = (start(), Random(2));
    let mut controller = Controller::new(Settings::of(Class::Interactive));
    feed(&mut controller, &mut now, &mut random, 0.0, 1);
    assert_eq!(controller.plan(), None);
    assert!(feed(&mut controller, &mut now, &mut random, 0.05, 1) > 0.04);
    feed(&mut controller, &mut now, &mut random, 0.0, 1);
    assert!(controller.plan().is_some());
    feed(&mut controller, &mut now, &mut random, 0.0, 3);
    assert_eq!(controller.plan(), None);
    assert_eq!(feed(&mut controller, &mut now, &mut random, 0.0, 1), 0.0);
}

#[test]
fn what_waits_longer_than_its_budget_gets_less_repair_but_all_that_is_lost() {
    let (mut now, mut random) = (start(), Random(4));
    let mut controller = Controller::new(Settings::of(Class::Interactive));
    feed(&mut controller, &mut now, &mut random, 0.1, 2);
    let mut ratio = |ms| {
        let waiting = Duration::from_millis(ms);
        controller.update(now, Traffic { waiting, ..TRAFFIC }).unwrap().ratio
    };
    let ratios = [0, 30, 100, 1_000].map(&mut ratio);
    assert!(ratios.is_sorted_by(|a, b| a > b), "{ratios:?}");
    assert!(ratios[0] > 0.14 && ratios[3] < 0.13 && ratios[3] > 0.1, "{ratios:?}");
}

#[test]
fn sparse_streams_get_copies_within_the_budget() {
    let (mut now, mut random) = (start(), Random(3));
    let mut controller = Controller::new(Settings::of(Class::Sparse));
    feed(&mut controller, &mut now, &mut random, 0.1, 1);
    let plan = controller.plan().unwrap();
    assert!(plan.copies >= 2 && plan.spacing * plan.copies as u32 <= Duration::from_millis(10));
}

#[test]
fn the_worst_of_several_paths_decides_whether_there_is_repair() {
    let (mut now, mut random) = (start(), Random(5));
    let mut controller = Controller::new(Settings::of(Class::Interactive));
    feed(&mut controller, &mut now, &mut random, 0.0005, 1);
    assert_eq!(controller.plan(), None);
    let plan = controller.update(now, Traffic { worst: 0.005, ..TRAFFIC }).unwrap();
    assert!(plan.ratio < 0.02, "{plan:?}");
}

#[test]
fn bursts_that_are_forgotten_ask_for_no_more_than_independent_losses() {
    let (mut now, mut random) = (start(), Random(6));
    let mut controller = Controller::new(Settings::of(Class::Interactive));
    for n in 0..2_000 {
        now += Duration::from_micros(125);
        controller.record(now, n % 400 < 100);
    }
    feed(&mut controller, &mut now, &mut random, 0.0, 1);
    let bursty = controller.plan().unwrap().ratio;
    controller.forget_bursts();
    let plan = controller.update(now, TRAFFIC).unwrap();
    assert!(plan.ratio < bursty / 5.0, "{bursty}, {plan:?}");
}
