//! Reading a [`LinkSpec`] from words.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::spec::{GilbertElliott, Jitter, LinkSpec, Loss, MtuHole, Queue};
use super::trace::Trace;
use super::units::{parse_bytes, parse_duration, parse_percent, parse_rate};

/// The smallest MTU hole: the minimum IPv4 link.
const HOLE_MIN: usize = 68;
const HOLE_MAX: usize = 65_535;
/// The longest mean burst of losses.
const BURST_MAX: f64 = 1e6;

/// A word that is not what its place wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link description: `{word}` is not {wanted}")]
pub struct ParseError {
    word: String,
    wanted: String,
}

impl ParseError {
    pub(super) fn new(word: &str, wanted: impl Into<String>) -> Self {
        Self { word: word.into(), wanted: wanted.into() }
    }
}

impl FromStr for LinkSpec {
    type Err = ParseError;

    fn from_str(words: &str) -> Result<Self, ParseError> {
        let mut spec = Self::default();
        spec.apply(words)?;
        Ok(spec)
    }
}

impl LinkSpec {
    /// Changes what the words name and leaves the rest: `loss 5% burst 3`, `blackhole on`. On an
    /// error nothing is changed.
    ///
    /// | words | meaning |
    /// | --- | --- |
    /// | `rate 50mbit`, `rate unlimited` | bits of IP packets a second |
    /// | `delay 20ms [5ms [normal\|uniform]]` | one way; the second figure is jitter |
    /// | `jitter 5ms [normal\|uniform]` | normal unless said otherwise |
    /// | `reorder`, `inorder` | whether jitter may change the order (not by default) |
    /// | `queue 1bdp`, `250KB`, `5ms` | tail drop beyond it (1bdp by default) |
    /// | `loss 5% [burst 3]` | random, or in bursts of that mean length |
    /// | `loss gemodel P R [H [K]]` | chance good→bad, bad→good, loss when bad, when good |
    /// | `duplicate 1%` | delivered twice |
    /// | `hole 1400`, `ptb 1400`, `hole off` | drop longer packets silently, or answer by ICMP |
    /// | `trace FILE`, `trace off` | rate, loss and delay over time |
    /// | `blackhole [on\|off]` | drop everything |
    pub fn apply(&mut self, words: &str) -> Result<(), ParseError> {
        let mut changed = self.clone();
        let mut words = Words(words.split_whitespace().peekable());
        while let Some(key) = words.0.next() {
            changed.apply_one(key, &mut words)?;
        }
        *self = changed;
        Ok(())
    }

    fn apply_one(&mut self, key: &str, words: &mut Words<'_>) -> Result<(), ParseError> {
        match key {
            "rate" => self.rate = parse_rate(words.after(key)?)?,
            "delay" => {
                self.delay = parse_duration(words.after(key)?)?;
                if words.peek_quantity() {
                    self.jitter = words.jitter(key)?;
                }
            }
            "jitter" => self.jitter = words.jitter(key)?,
            "reorder" => self.reorder = true,
            "inorder" => self.reorder = false,
            "queue" => self.queue = parse_queue(words.after(key)?)?,
            "loss" => self.loss = words.loss()?,
            "burst" => {
                let word = words.after(key)?;
                let mean = word.parse().ok().filter(|mean| (1.0..=BURST_MAX).contains(mean));
                let mean = mean.ok_or_else(|| {
                    ParseError::new(word, "a mean length of bursts, in packets, 1 or more")
                })?;
                self.loss = Loss::bursts(self.loss.mean(), mean);
            }
            "duplicate" => self.duplicate = parse_percent(words.after(key)?)?,
            "hole" | "ptb" => {
                let (word, answers) = (words.after(key)?, key == "ptb");
                self.mtu_hole = match word {
                    "off" => None,
                    _ => Some(MtuHole { mtu: parse_hole(word)?, answers }),
                };
            }
            "trace" => {
                let word = words.after(key)?;
                self.trace = match word {
                    "off" => None,
                    path => Some(Arc::new(Trace::load(Path::new(path))?)),
                };
            }
            "blackhole" => self.blackhole = words.switch(),
            _ => {
                return Err(ParseError::new(
                    key,
                    "one of rate, delay, jitter, reorder, inorder, \
                queue, loss, burst, duplicate, hole, ptb, trace, blackhole",
                ));
            }
        }
        Ok(())
    }
}

struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn after(&mut self, key: &str) -> Result<&'a str, ParseError> {
        self.0.next().ok_or_else(|| ParseError::new(key, "complete: its value is missing"))
    }

    fn peek_quantity(&mut self) -> bool {
        self.0.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    }

    fn jitter(&mut self, key: &str) -> Result<Jitter, ParseError> {
        let spread = parse_duration(self.after(key)?)?;
        let uniform = self.0.next_if_eq(&"uniform").is_some();
        if !uniform {
            self.0.next_if_eq(&"normal");
        }
        Ok(match uniform {
            _ if spread.is_zero() => Jitter::None,
            true => Jitter::Uniform(spread),
            false => Jitter::Normal(spread),
        })
    }

    fn loss(&mut self) -> Result<Loss, ParseError> {
        if self.0.next_if_eq(&"gemodel").is_some() {
            let fail = parse_percent(self.after("gemodel")?)?;
            let recover = parse_percent(self.after("gemodel")?)?;
            let bad_loss = if self.peek_quantity() { self.percent()? } else { 1.0 };
            let good_loss = if self.peek_quantity() { self.percent()? } else { 0.0 };
            return Ok(Loss::GilbertElliott(GilbertElliott { fail, recover, bad_loss, good_loss }));
        }
        let p = self.percent()?;
        Ok(if p > 0.0 { Loss::Random(p) } else { Loss::None })
    }

    fn percent(&mut self) -> Result<f64, ParseError> {
        parse_percent(self.after("loss")?)
    }

    fn switch(&mut self) -> bool {
        self.0.next_if_eq(&"on").is_some() || self.0.next_if_eq(&"off").is_none()
    }
}

fn parse_queue(word: &str) -> Result<Queue, ParseError> {
    let wrong = |_| ParseError::new(word, "a queue like 1bdp, 250KB or 5ms");
    if let Some(times) = word.strip_suffix("bdp") {
        let times = times.parse().ok().filter(|t| (0.0..=1000.0).contains(t));
        return times.map(Queue::Bdp).ok_or(()).map_err(wrong);
    }
    parse_bytes(word)
        .map(Queue::Bytes)
        .or_else(|_| parse_duration(word).map(Queue::Time))
        .map_err(|_| wrong(()))
}

fn parse_hole(word: &str) -> Result<usize, ParseError> {
    word.parse().ok().filter(|mtu| (HOLE_MIN..=HOLE_MAX).contains(mtu)).ok_or_else(|| {
        ParseError::new(word, format!("an MTU in bytes, {HOLE_MIN} to {HOLE_MAX}, or off"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::SIXTEEN_PAIRS;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_description_is_read_in_any_order() {
        let spec: LinkSpec = "delay 20ms 5ms normal loss 0.5% rate 50mbit".parse().unwrap();
        let wanted = LinkSpec {
            rate: 50_000_000,
            delay: MS(20),
            jitter: Jitter::Normal(MS(5)),
            loss: Loss::Random(0.005),
            ..LinkSpec::default()
        };
        assert_eq!(spec, wanted);
        assert_eq!(
            "rate 50mbit loss 0.5% delay 20ms jitter 5ms".parse::<LinkSpec>().unwrap(),
            wanted
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for words in [
            "",
            "delay 20ms 5ms uniform reorder rate 10mbit queue 250KB",
            "loss gemodel 1% 25% 90% 0.1% queue 5ms rate 9600bit",
            "queue 2bdp duplicate 1% ptb 1400 blackhole",
            "hole 1280",
        ] {
            let spec: LinkSpec = words.parse().unwrap();
            assert_eq!(spec.to_string().parse::<LinkSpec>().unwrap(), spec, "{words}");
        }
    }

    #[test]
    fn the_sixteen_pairs_are_readable() {
        assert_eq!(SIXTEEN_PAIRS.len(), 16);
        for pair in SIXTEEN_PAIRS {
            for spec in [pair.first(), pair.second()] {
                assert!(spec.rate >= 10_000_000 && spec.delay >= MS(8), "{}", pair.name);
            }
        }
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let mut spec: LinkSpec = "delay 20ms rate 50mbit".parse().unwrap();
        spec.apply("loss 5% burst 4 blackhole on").unwrap();
        assert_eq!((spec.delay, spec.rate, spec.blackhole), (MS(20), 50_000_000, true));
        assert!((spec.loss.mean() - 0.05).abs() < 1e-12);
        spec.apply("blackhole off loss 0%").unwrap();
        assert_eq!((spec.blackhole, spec.loss), (false, Loss::None));
    }

    #[test]
    fn a_wrong_word_is_named_and_changes_nothing() {
        let mut spec = LinkSpec::default();
        let error = spec.apply("rate 5mbit dealy 20ms").unwrap_err().to_string();
        assert!(error.contains("`dealy`") && error.contains("delay"), "{error}");
        assert_eq!(spec, LinkSpec::default());
        for words in ["rate", "queue 5", "hole 10", "loss 5", "burst 0.5", "trace /nowhere/to/be"] {
            assert!(words.parse::<LinkSpec>().is_err(), "{words}");
        }
    }
}
