//! Recorded behaviour of a link: rate, loss and delay over time.

use std::fs;
use std::path::Path;

use super::parse::ParseError;
use super::spec::Loss;
use super::units::{parse_duration, parse_percent, parse_rate};

/// The most rows a recording may have.
const ROWS_MAX: usize = 10_000_000;
/// The largest file read, in bytes.
const FILE_MAX: u64 = 256 << 20;

/// A recording. A text file of lines `TIME_MS RATE LOSS DELAY`, ascending in time from 0:
///
/// ```text
/// # time rate     loss   delay
/// 0      50mbit   0.1%   20ms
/// 1500   12mbit   5%/3   45ms     # bursts of mean length 3
/// 2000   stall    -      -        # nothing is sent; `-` keeps what the link says
/// repeat 4000                     # begin again; without it, the last row stays
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    name: String,
    rows: Vec<Row>,
    /// The period in nanoseconds, 0 if it does not repeat.
    period: u64,
}

/// What holds from a moment on; `None` keeps what the link says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Nanoseconds since the link began.
    pub at: u64,
    /// The rate.
    pub rate: Option<TraceRate>,
    /// Random loss.
    pub loss: Option<Loss>,
    /// One-way delay in nanoseconds.
    pub delay: Option<u64>,
}

/// A rate in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceRate {
    /// Bits per second; 0 is unlimited.
    Bits(u64),
    /// Nothing is sent; what arrives waits in the queue.
    Stall,
}

impl Trace {
    /// Reads a recording from a file.
    pub fn load(path: &Path) -> Result<Self, ParseError> {
        let name = path.display().to_string();
        let unreadable = |e| ParseError::new(&name, format!("a readable trace: {e}"));
        if fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
            return Err(ParseError::new(&name, "a trace of 256 MiB or less"));
        }
        Self::parse(&name, &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads a recording from text; `name` appears in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ParseError> {
        let mut trace = Self { name: name.into(), rows: Vec::new(), period: 0 };
        for (index, line) in text.lines().enumerate() {
            let words = line.split('#').next().unwrap_or("").split_whitespace().collect::<Vec<_>>();
            trace.line(&words).map_err(|e| {
                ParseError::new(line.trim(), format!("right in {name}, line {}: {e}", index + 1))
            })?;
        }
        match trace.rows.first() {
            Some(first) if first.at == 0 => Ok(trace),
            _ => Err(ParseError::new(name, "a trace whose first row is at time 0")),
        }
    }

    fn line(&mut self, words: &[&str]) -> Result<(), ParseError> {
        let last = self.rows.last().map(|row| row.at);
        let later = |word: &str, last: Option<u64>| {
            let at = parse_duration(&format!("{word}ms"))?.as_nanos() as u64;
            let ascending = last.is_none_or(|last| at > last);
            ascending
                .then_some(at)
                .ok_or_else(|| ParseError::new(word, "later than the row before"))
        };
        match words {
            [] => Ok(()),
            _ if self.period > 0 || self.rows.len() >= ROWS_MAX => {
                Err(ParseError::new(words[0], "expected after `repeat`, or after 10 million rows"))
            }
            ["repeat", word] => {
                self.period = later(word, last.or(Some(0)))?;
                Ok(())
            }
            [time, rate, loss, delay] => {
                let row = Row {
                    at: later(time, last)?,
                    rate: unless_dash(rate, trace_rate)?,
                    loss: unless_dash(loss, trace_loss)?,
                    delay: unless_dash(delay, |w| Ok(parse_duration(w)?.as_nanos() as u64))?,
                };
                self.rows.push(row);
                Ok(())
            }
            _ => Err(ParseError::new(&words.join(" "), "four words: TIME_MS RATE LOSS DELAY")),
        }
    }

    /// The name it was read by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What holds at `now` (nanoseconds since the link began), and when it ends (`None`: never).
    #[must_use]
    pub fn at(&self, now: u64) -> (Row, Option<u64>) {
        let phase = now.checked_rem(self.period).unwrap_or(now);
        let next = self.rows.partition_point(|row| row.at <= phase);
        let end = match self.rows.get(next) {
            Some(row) => Some(row.at),
            None => (self.period > 0).then_some(self.period),
        };
        (self.rows[next.max(1) - 1], end.map(|end| now - phase + end))
    }
}

fn unless_dash<T>(
    word: &str,
    read: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<Option<T>, ParseError> {
    if word == "-" { Ok(None) } else { read(word).map(Some) }
}

fn trace_rate(word: &str) -> Result<TraceRate, ParseError> {
    if word == "stall" { Ok(TraceRate::Stall) } else { parse_rate(word).map(TraceRate::Bits) }
}

fn trace_loss(word: &str) -> Result<Loss, ParseError> {
    let (share, mean) = word.split_once('/').unwrap_or((word, "0"));
    let mean = mean.parse().ok().filter(|mean: &f64| mean.is_finite());
    let mean = mean.ok_or_else(|| ParseError::new(word, "a loss like 5% or 5%/3"))?;
    Ok(Loss::bursts(parse_percent(share)?, mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\n0 50mbit 0.1% 20ms\n\n1000 stall - - # wait\nrepeat 1500\n";
    const MS: u64 = 1_000_000;

    #[test]
    fn a_trace_tells_what_holds_and_until_when() {
        let trace = Trace::parse("t", TEXT).unwrap();
        let (row, end) = trace.at(999 * MS);
        assert_eq!((row.rate, row.delay), (Some(TraceRate::Bits(50_000_000)), Some(20 * MS)));
        assert_eq!((row.loss, end), (Some(Loss::Random(0.001)), Some(1000 * MS)));
        let (row, end) = trace.at(1000 * MS);
        assert_eq!((row.rate, row.loss, end), (Some(TraceRate::Stall), None, Some(1500 * MS)));
        assert_eq!(trace.at(1500 * MS).0, trace.at(0).0);
        assert_eq!(trace.at(4000 * MS).1, Some(4500 * MS));
    }

    #[test]
    fn a_trace_without_repeat_keeps_its_last_row() {
        let trace = Trace::parse("t", "0 1mbit 0% 1ms\n10 2mbit 5%/3 2ms").unwrap();
        let (row, end) = trace.at(u64::MAX);
        assert_eq!((row.delay, end), (Some(2 * MS), None));
        assert!((row.loss.unwrap().mean() - 0.05).abs() < 1e-12);
    }

    #[test]
    fn a_wrong_trace_names_its_line() {
        for (text, line) in [
            ("0 1mbit 0% 1ms\n0 1mbit 0% 1ms", "line 2"),
            ("0 1mbit 0%", "line 1"),
            ("0 1mbit 0% 1ms\nrepeat 0", "line 2"),
            ("0 1mbit 0% 1ms\nrepeat 9\n10 - - -", "line 3"),
            ("5 1mbit 0% 1ms", "time 0"),
            ("", "time 0"),
        ] {
            let error = Trace::parse("t", text).unwrap_err().to_string();
            assert!(error.contains(line), "{text}: {error}");
        }
    }
}
