//! What `up` tells a person: one line a stage, as it happens.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    time::Instant,
};

use bauta_masque_io::clock;
use nix::unistd::{dup2_stderr, dup2_stdout};

use crate::stage::{Failure, Progress, Stage};

/// Writes the stages to standard output.
pub struct Console {
    last: Instant,
    begun: Instant,
    /// Where a detached client writes once it is up.
    log: Option<PathBuf>,
}

impl Console {
    /// A console; with `log` both outputs go there once the tunnel is up.
    pub fn new(log: Option<PathBuf>) -> Console {
        let now = clock::now();
        Console { last: now, begun: now, log }
    }

    /// The line of the stage that failed.
    pub fn failed(failure: &Failure) {
        line(format_args!("✗ {:<20} {}", failure.stage, failure.what));
    }
}

impl Progress for Console {
    fn done(&mut self, stage: Stage, detail: fmt::Arguments<'_>) {
        let now = clock::now();
        let took = now.saturating_duration_since(self.last).as_millis();
        self.last = now;
        line(format_args!("✓ {stage:<20} {detail} ({took} ms)"));
    }

    fn notice(&mut self, text: fmt::Arguments<'_>) {
        line(format_args!("! {text}"));
    }

    fn up(&mut self) {
        let seconds = clock::now().saturating_duration_since(self.begun).as_secs_f64();
        line(format_args!(
            "The tunnel is up after {seconds:.2} s. `bauta status` shows it, `bauta down` ends it."
        ));
        let Some(log) = self.log.take() else { return };
        // From here on the terminal belongs to others.
        let moved = File::options()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|file| Ok((dup2_stdout(&file)?, dup2_stderr(&file)?)));
        if let Err(error) = moved {
            tracing::warn!(%error, "the log cannot be written; messages stay here");
        }
    }
}

/// Writes a line; a reader that went away is no reason to stop.
fn line(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
