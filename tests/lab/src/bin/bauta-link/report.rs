//! Counters for people and for programs.

use bauta_lab::Emulator;
use bauta_lab::link::{EmulatorStats, Stats};

/// Turns counters since the start into a line about the time since the last one.
#[derive(Default)]
pub(crate) struct Lines {
    last: Option<(u64, EmulatorStats)>,
}

impl Lines {
    /// One line; `now` in nanoseconds.
    pub(crate) fn next(&mut self, now: u64, link: &Emulator) -> String {
        let stats = link.stats();
        let line = match &self.last {
            None => String::new(),
            Some((then, last)) => {
                let seconds = now.saturating_sub(*then) as f64 / 1e9;
                format!(
                    "up {} | down {}",
                    side(&last.up, &stats.up, seconds),
                    side(&last.down, &stats.down, seconds)
                )
            }
        };
        self.last = Some((now, stats));
        line
    }
}

fn side(last: &Stats, now: &Stats, seconds: f64) -> String {
    // Counters may have been reset in between.
    let since = |now: u64, last: u64| now.saturating_sub(last);
    let mbit = since(now.bytes_out, last.bytes_out) as f64 * 8.0 / 1e6 / seconds.max(1e-9);
    format!(
        "{mbit:7.2} Mbit/s {:6} in {:5} lost {:5} queue-dropped {:5} other, queue {:4.0} KB, late p99 {} µs",
        since(now.packets_in, last.packets_in),
        since(now.lost, last.lost),
        since(now.queue_dropped, last.queue_dropped),
        since(
            now.blackholed + now.too_big + now.failed,
            last.blackholed + last.too_big + last.failed
        ),
        now.queue_max as f64 / 1e3,
        now.lateness.p99_ns / 1000,
    )
}

/// Everything, as JSON on one line.
pub(crate) fn json(stats: &EmulatorStats) -> String {
    serde_json::to_string(stats).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}
