//! Sends UDP as QUIC would, in trains and within a window, and counts what arrives.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bauta_bench::packets::{self, Direction, Plan, Port};
use clap::{Parser, Subcommand, ValueEnum};

/// Sends UDP as QUIC would, in trains and within a window, and counts what arrives.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The far end: counts, answers, sends on demand and echoes. Until it is ended.
    Serve {
        /// Where to listen.
        #[arg(default_value = "0.0.0.0:5300")]
        listen: SocketAddr,
    },
    /// One measurement, told as one JSON object.
    Run {
        /// The far end.
        target: SocketAddr,
        /// Which way.
        #[arg(long, default_value = "up")]
        direction: Way,
        /// UDP payload of each packet, bytes.
        #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u16).range(9..=1472))]
        size: u16,
        /// Packets under way at most, a flow.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65536))]
        window: u64,
        /// How long, in seconds.
        #[arg(long, default_value_t = 4.0)]
        seconds: f64,
        /// Flows, each from a port of its own.
        #[arg(long, default_value_t = 1)]
        flows: usize,
        /// Each packet by itself instead of trains by GSO.
        #[arg(long)]
        single: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    Up,
    Down,
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn main() -> Result<()> {
    match Args::parse().command {
        Command::Serve { listen } => {
            let port = Port::bind(listen).with_context(|| format!("listening on {listen}"))?;
            packets::serve(port).context("serving")
        }
        Command::Run { target, direction, size, window, seconds, flows, single } => {
            let millis = (seconds.clamp(0.1, 600.0) * 1e3) as u64;
            let plan = Plan { size: size.into(), window, millis, single };
            let direction = match direction {
                Way::Up => Direction::Up,
                Way::Down => Direction::Down,
            };
            println!("{}", packets::run(target, direction, plan, flows)?.to_json());
            Ok(())
        }
    }
}
