//! Thousands of tunnels from one process, told what to do on standard input.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bauta::config::{Settings, Sources};
use bauta_bench::fleet::{Fleet, Load};
use bauta_bench::handshake;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Load for a gateway: many tunnels in one process, or TLS alone.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Holds tunnels and does what each line of standard input says, answering with a line of JSON. Ends with the input.
    ///
    /// `open N`: be N tunnels. `churn N`: open N and close each at once. `close`: be none.
    /// `send PACKETS RATE TRAIN SIZE IPV4:PORT`: packets over all tunnels in turn, TRAIN of each, to a `bauta-packets serve`.
    Tunnels {
        /// The client's configuration; its link needs `addr=`.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// CPU time of a server for one full TLS 1.3 handshake, in microseconds, as JSON.
    Tls {
        /// PEM chain.
        #[arg(long)]
        cert: PathBuf,
        /// PEM.
        #[arg(long)]
        key: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 500)]
        rounds: u32,
    },
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Tunnels { config } => {
            let sources = Sources { file: Some(config), ..Sources::default() };
            let settings = Settings::load(sources)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(obey(settings))
        }
        Command::Tls { cert, key, rounds } => {
            let cost = handshake::server_cost(&cert, &key, rounds)?;
            say(&json!({ "microseconds": cost.as_secs_f64() * 1e6 }));
            Ok(())
        }
    }
}

async fn obey(settings: Settings) -> Result<()> {
    let mut fleet = Fleet::new(settings)?;
    let mut lines = BufReader::new(stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => say(&act(&mut fleet, &line).await?),
                None => return fleet.close().await,
            },
            done = fleet.step(Fleet::idle_until()) => {
                done?;
                fleet.keep_alive();
            }
        }
    }
}

async fn act(fleet: &mut Fleet, line: &str) -> Result<Value> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["open", count] => {
            let seconds = fleet.open(count.parse().context("how many?")?).await?;
            Ok(json!({ "tunnels": fleet.len(), "seconds": seconds }))
        }
        ["churn", count] => {
            let count = count.parse().context("how many?")?;
            Ok(json!({ "tunnels": count, "seconds": fleet.churn(count).await? }))
        }
        ["send", packets, rate, train, size, target] => {
            let load = Load {
                packets: packets.parse().context("how many packets?")?,
                rate: rate.parse().context("packets a second?")?,
                train: train.parse().context("packets in a train?")?,
                size: size.parse().context("bytes of payload?")?,
                target: target.parse().context("IPV4:PORT?")?,
            };
            let (sent, echoed, seconds) = fleet.send(load).await?;
            Ok(json!({ "sent": sent, "echoed": echoed, "seconds": seconds }))
        }
        ["close"] => {
            fleet.close().await?;
            Ok(json!({ "tunnels": fleet.len() }))
        }
        _ => bail!(
            "what is `{line}`? open N, churn N, close, or send PACKETS RATE TRAIN SIZE IPV4:PORT"
        ),
    }
}

#[expect(clippy::print_stdout, reason = "the answers are what the program is for")]
fn say(answer: &Value) {
    println!("{answer}");
}
