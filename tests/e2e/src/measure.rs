//! ping and iperf3, read.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bauta_lab::{Namespace, Process};
use serde_json::Value;

/// No single measurement takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// What ping saw; with [`Pings::start`], what it will have seen.
#[derive(Debug, Default, Clone)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Round-trip times, milliseconds, in order of arrival.
    pub rtts: Vec<f64>,
    /// All it printed.
    pub output: String,
}

/// A ping under way.
pub struct Pinging(Process);

impl Pings {
    /// Starts `ping WORDS TARGET`. Words with `-c` or `-w` bound it, [`Pinging::stop`] ends it.
    pub fn start(ns: &Namespace, target: &str, words: &str) -> Result<Pinging> {
        let mut line: Vec<&str> = words.split_whitespace().collect();
        if !words.contains("-W") {
            line.extend(["-W", "2"]);
        }
        line.extend(["-n", target]);
        Ok(Pinging(ns.start("ping", &line)?))
    }

    fn read(output: String) -> Result<Self> {
        let summary = output.lines().find(|line| line.contains(" packets transmitted, "));
        let summary = summary.with_context(|| format!("no summary from ping:\n{output}"))?;
        let numbers: Vec<u32> =
            summary.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
        ensure!(numbers.len() >= 2, "ping: {summary}");
        let rtt = |line: &str| line.split_once("time=")?.1.split(' ').next()?.parse().ok();
        let rtts = output.lines().filter_map(rtt).collect();
        Ok(Self { sent: numbers[0], received: numbers[1], rtts, output })
    }

    /// Without the last request, if that is the only one without an answer since the one before it.
    fn without_the_last(self) -> Self {
        let number = |line: &str| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok();
        let answered: Option<u32> = self.output.lines().filter_map(number).max();
        let under_way = answered.is_some_and(|answered| answered + 1 == self.sent);
        Self { sent: self.sent - u32::from(under_way), ..self }
    }

    /// How many were lost.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }

    /// Fails unless there was an answer to each of at least one.
    pub fn assert_lossless(&self) -> Result<()> {
        ensure!(self.sent > 0 && self.lost() == 0, "pings were lost:\n{}", self.tail());
        Ok(())
    }

    /// Fails unless nothing at all came back.
    pub fn assert_silence(&self) -> Result<()> {
        ensure!(self.sent > 0 && self.received == 0, "pings were answered:\n{}", self.tail());
        Ok(())
    }

    /// The round-trip time that so many per cent do not exceed, milliseconds.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.rtts.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted
            .get(sorted.len() * percent / 100)
            .or_else(|| sorted.get(last))
            .copied()
            .unwrap_or(f64::NAN)
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Pinging {
    /// Waits for the end.
    pub fn finish(mut self) -> Result<Pings> {
        // Its status tells of losses, which are the caller's to judge.
        self.0.wait(PATIENCE)?;
        Pings::read(self.0.output())
    }

    /// Ends it and returns what it saw. A last request that has no answer yet does not count.
    pub fn stop(mut self) -> Result<Pings> {
        self.0.signal(nix::sys::signal::Signal::SIGINT);
        Ok(self.finish()?.without_the_last())
    }
}

/// What iperf3 measured.
#[derive(Debug)]
pub struct Stream {
    /// Bits a second, at the receiver.
    pub rate: f64,
    /// Bytes, at the receiver.
    pub bytes: u64,
    /// Datagrams lost, per cent; 0 for TCP.
    pub lost: f64,
}

/// An iperf3 under way.
pub struct Streaming(Process);

impl Stream {
    /// Starts `iperf3 -c TARGET -J WORDS`.
    pub fn start(ns: &Namespace, target: &str, words: &str) -> Result<Streaming> {
        let mut line = vec!["-c", target, "-J", "--connect-timeout", "5000"];
        line.extend(words.split_whitespace());
        Ok(Streaming(ns.start("iperf3", &line)?))
    }
}

impl Streaming {
    /// Waits for the end and reads the report.
    pub fn finish(mut self) -> Result<Stream> {
        self.0.wait(PATIENCE)?;
        let output = self.0.output();
        let report: Value =
            serde_json::from_str(&output).with_context(|| format!("iperf3 says:\n{output}"))?;
        ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
        let end = &report["end"];
        let sum = if end["sum_received"].is_object() { &end["sum_received"] } else { &end["sum"] };
        let number = |field: &str| sum[field].as_f64().unwrap_or(0.0);
        Ok(Stream {
            rate: number("bits_per_second"),
            bytes: number("bytes") as u64,
            lost: end["sum"]["lost_percent"].as_f64().unwrap_or(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_ping_is_read_with_errors_and_without() {
        let of = |summary: &str| Pings::read(format!("64 bytes from x: time=1.25 ms\n{summary}\n"));
        let clean = of("3 packets transmitted, 3 received, 0% packet loss, time 2003ms").unwrap();
        assert_eq!((clean.sent, clean.lost(), clean.percentile(99)), (3, 0, 1.25));
        let errors = of("5 packets transmitted, 1 received, +4 errors, 80% packet loss").unwrap();
        assert_eq!((errors.sent, errors.received), (5, 1));
        assert!(of("").is_err());
    }

    #[test]
    fn a_request_still_under_way_at_the_end_is_not_lost() {
        let of = |sent: u32, answered: &[u32]| {
            let lines = answered.iter().map(|n| format!("64 bytes from x: icmp_seq={n} ttl=63\n"));
            let received = answered.len();
            let summary = format!("{sent} packets transmitted, {received} received\n");
            Pings::read(lines.collect::<String>() + &summary).unwrap().without_the_last().lost()
        };
        assert_eq!([of(3, &[1, 2, 3]), of(3, &[1, 2]), of(4, &[1, 3])], [0, 0, 1]);
        assert_eq!([of(4, &[1, 2]), of(1, &[])], [2, 1]);
    }
}
