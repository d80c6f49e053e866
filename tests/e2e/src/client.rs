//! A client in its namespace.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bauta_lab::clock::poll_until;
use bauta_lab::{Namespace, Process};
use serde_json::Value;

use crate::SOON;
use crate::measure::{Pings, Stream};
use crate::programs::programs;

/// How long `bauta up` may take to be up.
const UP: Duration = Duration::from_secs(20);

/// A client's namespace, its link, and `bauta up` while that runs.
pub struct Client {
    /// Where it runs.
    pub ns: Namespace,
    /// The link, complete.
    pub link: String,
    /// Its `bauta up`.
    pub process: Option<Process>,
    config: PathBuf,
    state: PathBuf,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// All it printed, on either output.
    pub output: String,
}

impl Finished {
    /// Waits for the end.
    pub fn of(mut process: Process, within: Duration) -> Result<Self> {
        let status = process.wait(within)?;
        Ok(Self { status, output: process.output() })
    }

    /// What it printed, if it went well.
    pub fn success(self) -> Result<String> {
        ensure!(self.status.success(), "{}:\n{}", self.status, self.output);
        Ok(self.output)
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Client {
    pub(crate) fn new(ns: &Namespace, n: usize, link: String, settings: &str) -> Result<Self> {
        let folder = ns.folder().join(format!("client-{n}"));
        fs::create_dir_all(&folder)?;
        let client = Self {
            ns: ns.clone(),
            link,
            process: None,
            config: folder.join("bauta.toml"),
            state: folder.join("state"),
        };
        client.configure(settings)?;
        Ok(client)
    }

    /// Writes the configuration file.
    pub fn configure(&self, settings: &str) -> Result<()> {
        fs::write(&self.config, settings).context("writing the client's configuration")
    }

    /// `bauta WORDS`, to be run in the client's namespace; the link is in the environment.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let program = programs()?.join("bauta");
        let mut command = self.ns.command(&program.to_string_lossy());
        command.args(words);
        self.surround(&mut command);
        Ok(command)
    }

    /// Gives a command this client's environment; `BAUTA_E2E_LOG` is its log level.
    pub fn surround(&self, command: &mut Command) {
        command.env("BAUTA_CONFIG", &self.config).env("BAUTA_STATE_DIR", &self.state);
        command.env("BAUTA_LINK", &self.link).env_remove("RUST_LOG");
        if let Ok(level) = std::env::var("BAUTA_E2E_LOG") {
            command.env("RUST_LOG", level);
        }
    }

    /// Runs `bauta WORDS` to its end.
    pub fn bauta(&self, words: &[&str]) -> Result<Finished> {
        Finished::of(self.ns.spawn(self.command(words)?)?, UP)
    }

    /// `bauta up -`, the link on standard input; returns once the tunnel is up.
    pub fn up(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the tunnel is up already");
        let mut command = self.command(&["up", "-"])?;
        command.env_remove("BAUTA_LINK");
        let mut process = Process::spawn_with_stdin(command, self.ns.folder())?;
        let mut stdin = process.stdin().context("no standard input")?;
        writeln!(stdin, "{}", self.link)?;
        drop(stdin);
        self.process = Some(process);
        self.wait_up()
    }

    /// Waits for the words of `bauta up` that say it is.
    pub fn wait_up(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("`bauta up` was not started")?;
        process.wait_for_line("The tunnel is up", UP)?;
        Ok(())
    }

    /// `bauta down`; waits for the end of `bauta up` too.
    pub fn down(&mut self) -> Result<()> {
        self.bauta(&["down"])?.success()?;
        if let Some(mut process) = self.process.take() {
            process.finish(SOON)?;
        }
        Ok(())
    }

    /// Kills `bauta up`; what it changed on the machine stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// `bauta status --json`.
    pub fn status(&self) -> Result<Value> {
        let finished = self.bauta(&["status", "--json"])?;
        serde_json::from_str(&finished.output)
            .with_context(|| format!("status: {}", finished.output))
    }

    /// Waits until the status is as wished.
    pub fn wait_for_status(
        &self,
        what: &str,
        within: Duration,
        wished: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let found = poll_until(within, || self.status().ok().filter(|status| wished(status)));
        found.ok_or_else(|| match self.status() {
            Ok(status) => anyhow!("not {what} after {within:?}: {status:#}"),
            Err(error) => error,
        })
    }

    /// Waits until the tunnel is up, after it was not.
    pub fn wait_reconnected(&self, within: Duration) -> Result<Value> {
        self.wait_for_status("up", within, |status| status["phase"] == "up")
    }

    /// The addresses inside the tunnel, IPv4 first.
    pub fn addresses(&self) -> Result<(IpAddr, IpAddr)> {
        let status = self.status()?;
        let list = status["addresses"].as_array().cloned().unwrap_or_default();
        let list: Vec<IpAddr> = list.iter().filter_map(|a| a.as_str()?.parse().ok()).collect();
        let find = |v4: bool| list.iter().copied().find(|a| a.is_ipv4() == v4);
        match (find(true), find(false)) {
            (Some(v4), Some(v6)) => Ok((v4, v6)),
            _ => bail!("not an address of each family: {status:#}"),
        }
    }

    /// `ping WORDS TARGET` to its end; losses are for the caller to judge.
    pub fn ping(&self, target: &str, words: &str) -> Result<Pings> {
        Pings::start(&self.ns, target, words)?.finish()
    }

    /// iperf3 to the internet, its words beside `-c` and `-J` given.
    pub fn iperf(&self, target: &str, words: &str) -> Result<Stream> {
        Stream::start(&self.ns, target, words)?.finish()
    }

    /// curl, quiet, at most 30 seconds; returns what was printed.
    pub fn curl(&self, words: &[&str]) -> Result<String> {
        let mut line = vec!["-sS", "-m", "30"];
        line.extend(words);
        Ok(self.ns.run("curl", &line)?)
    }
}

/// A field of a JSON value as a number.
#[must_use]
pub fn json(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number `{field}` in {value:#}"))
}
