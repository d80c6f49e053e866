//! A child process with captured output that never outlives its value.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use std::{io, thread};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::clock::poll_until;
use crate::error::{Context, LabError, Result};
use crate::sys;

/// How many of a program's last lines an error shows.
const TAIL_LINES: usize = 30;
/// How long a killed child may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// A running program: leader of its own process group, standard output and error in one file.
/// Dropping it kills the group; if the test is panicking, its last lines are printed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: String,
    output: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output goes to a file in `folder`, its input is empty.
    pub fn spawn(mut command: Command, folder: &Path) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::start(command, folder)
    }

    /// Like [`Process::spawn`], with a pipe as standard input; take it with [`Process::stdin`].
    pub fn spawn_with_stdin(mut command: Command, folder: &Path) -> Result<Self> {
        command.stdin(Stdio::piped());
        Self::start(command, folder)
    }

    fn start(mut command: Command, folder: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let words = describe(&command);
        let output = folder.join(format!("process-{count}.log"));
        let file = open_log(&output).attempting(|| format!("make {}", output.display()))?;
        let twin = file.try_clone().attempting(|| format!("share {}", output.display()))?;
        command.stdout(file).stderr(twin);
        sys::bind_child(&mut command, None);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = spawn_from_lasting_thread(command)
            .map_err(|source| LabError::Spawn { program: words.clone(), source })?;
        Ok(Self { child, command: words, output, status: None })
    }

    /// The process number. Under [`crate::Namespace::command`] it is the program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The write end of the pipe made by [`Process::spawn_with_stdin`], once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Everything printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.output).map_or_else(
            |e| format!("(cannot read {}: {e})", self.output.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last lines printed.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.output())
    }

    /// Waits for a whole line that contains `pattern` and returns it. Fails at once when the
    /// program ends without it.
    pub fn wait_for_line(&mut self, pattern: &str, within: Duration) -> Result<String> {
        let awaited = format!("line with `{pattern}`");
        self.wait_for(&awaited, within, |line| line.contains(pattern).then(|| line.to_owned()))
    }

    /// Waits for the first whole line that `find` accepts and returns what it made of it.
    pub fn wait_for<T>(
        &mut self,
        awaited: &str,
        within: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        let found = poll_until(within, || {
            let ended = self.try_status().is_some();
            let output = self.output();
            let whole =
                if ended { &output[..] } else { output.rsplit_once('\n').map_or("", |w| w.0) };
            match whole.lines().find_map(&mut find) {
                Some(found) => Some(Ok(found)),
                None => ended.then(|| Err(self.failure())),
            }
        });
        found.unwrap_or_else(|| Err(self.timeout(awaited, within)))
    }

    /// The exit status if it has ended.
    pub fn try_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.try_status().is_none()
    }

    /// Waits for the end, whatever the status.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        poll_until(within, || self.try_status()).ok_or_else(|| self.timeout("end", within))
    }

    /// Waits for the end and returns everything printed; fails unless it succeeded.
    pub fn finish(&mut self, within: Duration) -> Result<String> {
        if self.wait(within)?.success() { Ok(self.output()) } else { Err(self.failure()) }
    }

    /// Sends a signal to the program alone, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_status().is_none() {
            let _ = kill(self.raw_pid(), signal);
        }
    }

    /// Kills the program alone and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = poll_until(DEATH, || self.try_status());
    }

    /// Kills the program and every child that stayed in its process group.
    pub fn kill_group(&mut self) {
        let _ = killpg(self.raw_pid(), Signal::SIGKILL);
        let _ = poll_until(DEATH, || self.try_status());
    }

    /// Asks for an end with SIGTERM, and after `within` kills. Returns the status.
    pub fn stop(&mut self, within: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        let status = poll_until(within, || self.try_status());
        self.kill_group();
        status.or(self.status)
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    fn failure(&self) -> LabError {
        let status = self.status.map_or_else(|| "still running".into(), |s| s.to_string());
        LabError::Failed { command: self.command.clone(), status, output: self.tail() }
    }

    fn timeout(&self, awaited: &str, within: Duration) -> LabError {
        LabError::Timeout {
            command: self.command.clone(),
            awaited: awaited.to_owned(),
            seconds: within.as_secs_f64(),
            output: self.tail(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        if thread::panicking() {
            eprintln!("--- the last lines of `{}`:\n{}", self.command, self.tail());
        }
    }
}

/// Runs a command to its end; fails unless it succeeds; returns its standard output.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let words = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| LabError::Spawn { program: words.clone(), source })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Failed {
        command: words,
        status: output.status.to_string(),
        output: tail(&format!("{printed}{complaint}")),
    })
}

/// Children are told to die with the thread that made them: so one thread that never ends makes
/// them all, and they die with the process.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the spawning thread has ended");
    spawner
        .send((command, reply))
        .map_err(|_| io::Error::other("the spawning thread has ended"))?;
    answer.recv().map_err(gone)?
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
