//! `bauta-link`: an emulated link between any two programs.

mod args;
mod control;
mod report;

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use args::{Args, StatsFormat};
use bauta_lab::clock::{Deadline, now_ns};
use bauta_lab::{Direction, Emulator, Netns, require_root};
use clap::Parser;
use control::{Done, Event};

const SECOND: u64 = 1_000_000_000;

fn main() -> Result<()> {
    let args = Args::parse();
    let pair = args.pair()?;
    require_root("an emulated link")?;
    let (events, _socket) = control::events(args.control.as_deref())?;
    let _created = args.to_create().into_iter().map(Created::ensure).collect::<Result<Vec<_>>>()?;
    let (a, b) = args.ends()?;
    let link = Emulator::between(a, b, pair)?;
    greet(&link);
    let end = args.duration.map(Deadline::after);
    let live = args.stats == StatsFormat::Line && std::io::stderr().is_terminal();
    let (mut lines, mut next) = (report::Lines::default(), now_ns());
    loop {
        let left = Duration::from_nanos(next.saturating_sub(now_ns()));
        match events.recv_timeout(left) {
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Event::Command(line, reply)) => {
                let answer = match control::obey(&link, &line) {
                    Done::Stop => break,
                    Done::Say(answer) => answer,
                    Done::Stats => report::json(&link.stats()),
                };
                let _ = reply.send(answer);
            }
            Err(RecvTimeoutError::Timeout) => {
                next += SECOND;
                let line = lines.next(now_ns(), &link);
                if live && !line.is_empty() {
                    eprintln!("{line}");
                }
                if args.stats == StatsFormat::Json {
                    print(&report::json(&link.stats()))?;
                }
            }
        }
        if end.is_some_and(|end| end.passed()) {
            break;
        }
    }
    let stats = link.stop();
    if args.stats == StatsFormat::None { Ok(()) } else { print(&report::json(&stats)) }
}

fn greet(link: &Emulator) {
    eprintln!("up   {}", link.spec(Direction::Up));
    eprintln!("down {}", link.spec(Direction::Down));
    // The threads tell within moments whether they got real-time priority.
    std::thread::sleep(Duration::from_millis(20));
    if let Some(why) = link.stats().realtime_error {
        eprintln!("warning: no real-time priority ({why}): a busy machine will make packets late");
    }
    eprintln!("the link is up; Ctrl-C ends it");
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("write to standard output")
}

/// A namespace, deleted at the end if this program made it.
struct Created(Option<String>);

impl Created {
    fn ensure(name: &str) -> Result<Self> {
        if Netns::open(name).is_ok() {
            return Ok(Self(None));
        }
        ip(&["netns", "add", name])?;
        let created = Self(Some(name.into()));
        Netns::open(name)?.ip("link set lo up")?;
        Ok(created)
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.context("run `ip` (is iproute2 installed?)")?;
    if !output.status.success() {
        bail!("`ip {}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
