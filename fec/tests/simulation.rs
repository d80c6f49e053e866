//! The controller over seeded channels in virtual time: what it costs and what it brings.

use std::time::{Duration, Instant};

use bauta_fec::control::{Class, Settings};

mod sim;

use sim::{Channel, Outcome, Scenario};

#[expect(clippy::disallowed_methods, reason = "virtual time needs an origin")]
fn run(class: Class, rtt: u64, loss: f64, burst: f64) -> Outcome {
    let packets = if class == Class::Sparse { 100.0 } else { 8000.0 };
    let scenario = Scenario {
        settings: Settings::of(class),
        rtt: Duration::from_millis(rtt),
        packets,
        seconds: 10.0,
        background: 8000.0 - packets,
        channel: Channel::new(loss, burst, 7),
        switches: Vec::new(),
    };
    sim::run(&scenario, Instant::now())
}

/// Repair per source packet over the least that could do.
fn cost(outcome: &Outcome) -> f64 {
    outcome.overhead / (outcome.loss / (1.0 - outcome.loss))
}

#[test]
fn independent_losses_are_repaired_in_time_at_a_bounded_cost() {
    for loss in [0.05, 0.1, 0.15] {
        let outcome = run(Class::Interactive, 50, loss, 1.0);
        assert!(cost(&outcome) < 1.65, "{outcome:?}");
        assert!(outcome.delay[1] < 40.0 && outcome.residual < 1e-3, "{outcome:?}");
    }
}

#[test]
fn bursts_get_more_repair() {
    for (burst, most) in [(3.0, 3.2), (5.0, 3.8), (8.0, 4.5)] {
        let outcome = run(Class::Interactive, 50, 0.05, burst);
        assert!((1.6..most).contains(&cost(&outcome)), "{outcome:?}");
        assert!(outcome.delay[1] < 75.0 && outcome.residual < 5e-3, "{outcome:?}");
    }
}

#[test]
fn bulk_is_complete_at_little_more_than_what_is_lost() {
    for (rtt, loss) in [(50, 0.05), (50, 0.15), (200, 0.1)] {
        let outcome = run(Class::Bulk, rtt, loss, 1.0);
        assert!(outcome.residual == 0.0 && cost(&outcome) < 1.3, "{outcome:?}");
    }
}

#[test]
fn a_sparse_stream_is_on_time_beside_bulk() {
    let outcome = run(Class::Sparse, 100, 0.1, 1.0);
    assert!(outcome.delay[1] <= 10.0 && outcome.overhead < 4.5, "{outcome:?}");
}

#[test]
fn nothing_is_sent_on_a_clean_path() {
    for class in [Class::Interactive, Class::Bulk, Class::Sparse] {
        let outcome = run(class, 50, 0.0, 1.0);
        assert!(outcome.overhead == 0.0 && outcome.residual == 0.0, "{class:?} {outcome:?}");
    }
}
