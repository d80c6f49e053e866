//! The command line.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bauta_lab::link::parse_duration;
use bauta_lab::{End, LinkPair, LinkSpec, Netns};
use clap::{Parser, ValueEnum};

const EXAMPLES: &str = "\
EXAMPLES
  A 100 Mbit/s line, 20 ms each way, between two new namespaces:
    bauta-link --create --between a:10.1.0.1/24 --and b:10.1.0.2/24 --rate 100mbit --delay 20ms
    ip netns exec b iperf3 -s &  ip netns exec a iperf3 -c 10.1.0.2

  A mobile path: jitter, and losses in bursts of three:
    bauta-link --between a:10.1.0.1/24 --and b:10.1.0.2/24 \\
      --link 'delay 45ms 8ms normal loss 5% burst 3 rate 25mbit queue 250KB' --seed 7

  Slow up, fast down, both families:
    bauta-link --between a:10.1.0.1/24,2001:db8::1/64 --and b:10.1.0.2/24,2001:db8::2/64 \\
      --delay 10ms --up 'rate 10mbit' --down 'rate 100mbit'

  While it runs, type (or send to --control):
    up loss 5%          blackhole on          both delay 80ms          stats          quit

WORDS of --link, --up, --down and commands
  rate 50mbit|unlimited            delay 20ms [5ms [normal|uniform]]
  jitter 5ms [normal|uniform]      reorder | inorder
  queue 1bdp|250KB|5ms             loss 5% [burst 3]
  loss gemodel P R [H [K]]         duplicate 1%
  hole 1400 | ptb 1400 | hole off  trace FILE | trace off
  blackhole [on|off]

A rate counts whole IP packets. Lost packets have used it. Jitter keeps the order unless told to
reorder. The queue is one bandwidth-delay product unless said otherwise.";

/// Puts an emulated link between two network namespaces, until Ctrl-C.
///
/// A TUN device appears in each namespace; what is sent into one comes out of the other, later,
/// slower, or not at all. What becomes of packet N depends on the seed and N alone.
#[derive(Debug, Parser)]
#[command(name = "bauta-link", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// End A: NAMESPACE[:ADDRESS[,ADDRESS…]]; a name of `ip netns`, a path, or `.` for this one
    #[arg(long, value_name = "END")]
    between: String,

    /// End B, likewise
    #[arg(long = "and", value_name = "END")]
    and: String,

    /// Make the namespaces that do not exist, and delete them at the end
    #[arg(long)]
    create: bool,

    /// The name of the device in both namespaces
    #[arg(long, value_name = "NAME", default_value = "link0")]
    device: String,

    /// Bits of IP packets a second: 50mbit, 1gbit, unlimited
    #[arg(long)]
    rate: Option<String>,

    /// One-way delay: 20ms
    #[arg(long)]
    delay: Option<String>,

    /// Random variation of the delay: 5ms, then normal or uniform
    #[arg(long, num_args = 1..=2, value_names = ["SPREAD", "SHAPE"])]
    jitter: Vec<String>,

    /// Let jitter change the order of packets
    #[arg(long)]
    reorder: bool,

    /// Random loss: 5%
    #[arg(long)]
    loss: Option<String>,

    /// The mean length of bursts of losses, in packets
    #[arg(long, requires = "loss")]
    burst: Option<String>,

    /// What may wait: 1bdp, 250KB, 5ms
    #[arg(long)]
    queue: Option<String>,

    /// A recording of rate, loss and delay: lines of TIME_MS RATE LOSS DELAY
    #[arg(long, value_name = "FILE")]
    trace: Option<String>,

    /// Both directions, in words; stronger than the options above
    #[arg(long, value_name = "WORDS")]
    link: Option<String>,

    /// From A to B, in words; stronger than --link
    #[arg(long, value_name = "WORDS")]
    up: Option<String>,

    /// From B to A, in words; stronger than --link
    #[arg(long, value_name = "WORDS")]
    down: Option<String>,

    /// What all chance depends on
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The MTU of the devices
    #[arg(long, default_value_t = 1500)]
    mtu: usize,

    /// Counters once a second: a line on the terminal, or JSON on standard output. JSON comes at
    /// the end in any case but `none`
    #[arg(long, value_enum, default_value_t = StatsFormat::Line)]
    pub(crate) stats: StatsFormat,

    /// Take commands from a unix socket too, one a line
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// End after this long: 30s
    #[arg(long, value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
}

/// How counters are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsFormat {
    /// A line a second if standard error is a terminal; JSON at the end
    Line,
    /// JSON a second, and at the end
    Json,
    /// Nothing
    None,
}

impl Args {
    /// What the words and options ask for.
    pub(crate) fn pair(&self) -> Result<LinkPair> {
        let mut both = LinkSpec::default();
        both.apply(&self.words()).context("the link")?;
        both.apply(self.link.as_deref().unwrap_or("")).context("--link")?;
        let (mut up, mut down) = (both.clone(), both);
        up.apply(self.up.as_deref().unwrap_or("")).context("--up")?;
        down.apply(self.down.as_deref().unwrap_or("")).context("--down")?;
        Ok(LinkPair::asymmetric(up, down).seed(self.seed).mtu(self.mtu))
    }

    fn words(&self) -> String {
        let jitter = (!self.jitter.is_empty()).then(|| self.jitter.join(" "));
        let options = [
            ("rate", &self.rate),
            ("delay", &self.delay),
            ("jitter", &jitter),
            ("loss", &self.loss),
            ("burst", &self.burst),
            ("queue", &self.queue),
            ("trace", &self.trace),
        ];
        let mut words = String::new();
        for (key, value) in options {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(words, "{key} {value} ");
            }
        }
        words + if self.reorder { "reorder" } else { "" }
    }

    /// The names of the two namespaces, if the program is to make them.
    pub(crate) fn to_create(&self) -> Vec<&str> {
        let ends = [&self.between, &self.and].map(|end| split(end).0);
        if self.create { ends.into() } else { Vec::new() }
    }

    /// The two ends; the namespaces exist.
    pub(crate) fn ends(&self) -> Result<(End, End)> {
        Ok((self.end(&self.between)?, self.end(&self.and)?))
    }

    fn end(&self, text: &str) -> Result<End> {
        let (name, addresses) = split(text);
        let netns = Netns::open(name)?;
        Ok(addresses.iter().fold(End::new(&netns, &self.device), |end, a| end.address(a)))
    }
}

/// `name:10.0.0.1/24,2001:db8::1/64` into its name and addresses.
fn split(end: &str) -> (&str, Vec<&str>) {
    let (name, addresses) = end.split_once(':').unwrap_or((end, ""));
    (name, addresses.split(',').filter(|address| !address.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(options: &str) -> Args {
        let words = format!("bauta-link --between a:10.1.0.1/24 --and b {options}");
        Args::parse_from(words.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_say_what_words_say() {
        let options =
            "--rate 100mbit --delay 20ms --jitter 5ms normal --loss 5% --burst 3 --queue 1bdp";
        let words = "rate 100mbit delay 20ms 5ms normal loss 5% burst 3 queue 1bdp";
        assert_eq!(parse(options).pair().unwrap().up, words.parse().unwrap());
        let pair = parse("--delay 20ms --mtu 1400 --seed 9").pair().unwrap();
        assert_eq!((pair.mtu, pair.seed, pair.up == pair.down), (1400, 9, true));
    }

    #[test]
    fn a_direction_is_stronger_than_both() {
        let words = ["bauta-link", "--between", "a", "--and", "b", "--rate", "1gbit"];
        let words = words.into_iter().chain(["--up", "rate 10mbit", "--link", "delay 7ms"]);
        let pair = Args::parse_from(words).pair().unwrap();
        assert_eq!((pair.up.rate, pair.down.rate), (10_000_000, 1_000_000_000));
        assert_eq!(pair.up.delay, Duration::from_millis(7));
    }

    #[test]
    fn an_end_is_a_namespace_and_addresses_of_both_families() {
        assert_eq!(split("a"), ("a", vec![]));
        assert_eq!(
            split("a:10.0.0.1/24,2001:db8::1/64"),
            ("a", vec!["10.0.0.1/24", "2001:db8::1/64"])
        );
    }
}
