//! Where events come from: signals, typed lines, a socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result};
use bauta_lab::{Direction, Emulator};
use nix::sys::signal::{SigSet, Signal};

/// The longest command line accepted, in bytes.
const COMMAND_MAX: u64 = 4096;

/// Something to react to.
pub(crate) enum Event {
    /// End.
    Stop,
    /// Carry out a command and send back what to say.
    Command(String, Sender<String>),
}

/// Begins to listen. Call it first: signals are to be blocked in every thread.
pub(crate) fn events(socket: Option<&Path>) -> Result<(Receiver<Event>, Option<SocketFile>)> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // In the background, reading the terminal is to fail, not to stop the program.
    let mut blocked = signals;
    blocked.add(Signal::SIGTTIN);
    blocked.thread_block().context("block signals")?;
    let stop = sender.clone();
    thread::spawn(move || {
        let _ = signals.wait();
        let _ = stop.send(Event::Stop);
    });
    let listening = socket.map(|path| listen(path, sender.clone())).transpose()?;
    thread::spawn(move || converse(io::stdin().lock(), &mut io::stderr(), &sender));
    Ok((receiver, listening))
}

/// The file of the control socket; goes when dropped.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn listen(path: &Path, sender: Sender<Event>) -> Result<SocketFile> {
    if UnixStream::connect(path).is_err() {
        // Left behind by one that was killed; a file that is no socket stays and fails below.
        use std::os::unix::fs::FileTypeExt;
        if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            let _ = fs::remove_file(path);
        }
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                if let Ok(mut writer) = stream.try_clone() {
                    converse(BufReader::new(stream), &mut writer, &sender);
                }
            });
        }
    });
    Ok(SocketFile(path.into()))
}

/// Passes lines on and writes the answers, until the end of either.
fn converse(mut reader: impl BufRead, writer: &mut impl Write, sender: &Sender<Event>) {
    loop {
        let mut line = String::new();
        let read = io::Read::take(&mut reader, COMMAND_MAX).read_line(&mut line);
        if read.is_err() || line.is_empty() {
            return;
        }
        let (reply, answer) = mpsc::channel();
        if sender.send(Event::Command(line, reply)).is_err() {
            return;
        }
        match answer.recv() {
            Ok(answer) if answer.is_empty() => {}
            Ok(answer) if writeln!(writer, "{answer}").is_ok() => {}
            _ => return,
        }
    }
}

/// What a command asks of the main loop.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Say this.
    Say(String),
    /// Say the counters.
    Stats,
    /// End.
    Stop,
}

/// Carries out a command.
pub(crate) fn obey(link: &Emulator, line: &str) -> Done {
    let line = line.trim();
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (direction, words) = match first {
        "" => return Done::Say(String::new()),
        "quit" | "exit" => return Done::Stop,
        "stats" => return Done::Stats,
        "reset" => {
            link.reset_stats();
            return Done::Say("ok: counters begin anew".into());
        }
        "help" | "?" => {
            return Done::Say("[up|down|both] WORDS, stats, reset, quit; words: --help".into());
        }
        "up" => (Some(Direction::Up), rest),
        "down" => (Some(Direction::Down), rest),
        "both" => (None, rest),
        _ => (None, line),
    };
    match link.apply(direction, words) {
        Err(e) => Done::Say(format!("error: {e}")),
        Ok(()) => {
            let (up, down) = (link.spec(Direction::Up), link.spec(Direction::Down));
            Done::Say(format!("ok: up   {up}\n    down {down}"))
        }
    }
}
