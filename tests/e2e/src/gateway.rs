//! A gateway in its namespace.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bauta_lab::clock::poll_until;
use bauta_lab::{Namespace, Process, addresses};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::ingress::Ingress;
use crate::pki::{Authority, Issued};
use crate::programs::programs;
use crate::{Finished, SOON};

/// The domain of the site.
pub const DOMAIN: &str = "site.test";
/// The admin address, inside the gateway's namespace.
pub const ADMIN: &str = "127.0.0.1:9464";

/// The gateway's files, and its process while it runs.
pub struct Gateway {
    /// Where it runs.
    pub ns: Namespace,
    /// Its authority.
    pub authority: Authority,
    /// Its certificate.
    pub issued: Issued,
    folder: PathBuf,
    /// The process; `None` before [`Gateway::start`].
    pub process: Option<Process>,
}

impl Gateway {
    /// Writes configuration, certificate and a first account, `NAME-0`, for each of `clients`.
    pub(crate) fn new(ns: &Namespace, top: &str, tunnel: &str, rest: &str) -> Result<Self> {
        let folder = ns.folder().join("gateway");
        fs::create_dir_all(&folder)?;
        let authority = Authority::new(&folder)?;
        let issued = authority.issue(DOMAIN, "first", &folder)?;
        let gateway = Self { ns: ns.clone(), authority, issued, folder, process: None };
        gateway.configure(top, tunnel, rest)?;
        Ok(gateway)
    }

    /// Writes the configuration file: lines for the top, for `[tunnel]`, and whole tables.
    pub fn configure(&self, top: &str, tunnel: &str, rest: &str) -> Result<()> {
        let folder = self.folder.display();
        let (cert, key) = (self.issued.cert.display(), self.issued.key.display());
        let host = addresses::INTERNET_V4;
        let dns = if tunnel.contains("dns =") { "" } else { &format!("dns = [\"{host}\"]\n") };
        let allow = if tunnel.contains("allow =") {
            ""
        } else {
            "allow = [\"203.0.113.0/24\", \"2001:db8:2::/64\"]\n"
        };
        let ingress = match rest.contains("[xdp]") {
            true => String::new(),
            false => Ingress::of_tests()?.table(&self.ns)?,
        };
        let text = format!(
            "domain = \"{DOMAIN}\"\nstate_dir = \"{folder}/state\"\n{top}\n\
             [tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n\
             [accounts]\nfile = \"{folder}/accounts.toml\"\n\
             [admin]\nlisten = \"{ADMIN}\"\n\
             [tunnel]\n{dns}{allow}{tunnel}\n{rest}\n{ingress}"
        );
        fs::write(self.config(), text).context("writing the gateway's configuration")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("gateway.toml")
    }

    /// The folder of its files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `bauta-gateway --config … WORDS`, to be run in the gateway's namespace.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let program = programs()?.join("bauta-gateway");
        let mut command = self.ns.command(&program.to_string_lossy());
        command.arg("--config").arg(self.config()).args(words).env_remove("BAUTA_CONFIG");
        Ok(command)
    }

    /// Runs a command of the gateway's to its end.
    pub fn run(&self, words: &[&str]) -> Result<Finished> {
        Finished::of(self.ns.spawn(self.command(words)?)?, SOON)
    }

    /// Starts it and waits until it serves.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the gateway runs already");
        let mut process = self.ns.spawn(self.command(&["run"])?)?;
        process.wait_for_line("serving", SOON)?;
        self.process = Some(process);
        self.assert_ingress()
    }

    /// Datagrams come in by the way that the run was told: what a test says of rings shall not be
    /// said of the socket.
    fn assert_ingress(&self) -> Result<()> {
        let ingress = Ingress::of_tests()?;
        let rings = ingress.rings(&self.ns)?;
        if rings == 0 || !fs::read_to_string(self.config())?.ends_with(&ingress.table(&self.ns)?) {
            return Ok(());
        }
        self.wait_for_metric("bauta_rings{by=\"xdp\"}", SOON, |there| there == rings).map(drop)
    }

    /// Ends it in order.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.stop(SOON);
        ensure!(
            status.is_some_and(|s| s.success()),
            "the gateway ended badly:\n{}",
            process.tail()
        );
        Ok(())
    }

    /// Kills it; what it changed on the machine stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Tells it to read its files again.
    pub fn reload(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the gateway does not run")?;
        let before = process.output().len();
        process.signal(Signal::SIGHUP);
        let done = poll_until(SOON, || {
            let output = process.output();
            let news = output.get(before..).unwrap_or_default().to_owned();
            news.contains("read again").then_some(Ok(())).or_else(|| {
                news.contains("nothing changed").then(|| Err(anyhow!("reload: {news}")))
            })
        });
        done.unwrap_or_else(|| bail!("no word about the reload:\n{}", process.tail()))
    }

    /// Makes an account and returns its link as printed.
    pub fn add_user(&self, words: &str) -> Result<String> {
        let mut line = vec!["user", "add", "--quiet"];
        line.extend(words.split_whitespace());
        let printed = self.run(&line)?.success()?;
        let link = printed.lines().find(|line| line.starts_with("bauta://"));
        Ok(link.with_context(|| format!("no link in {printed:?}"))?.to_owned())
    }

    /// Removes an account.
    pub fn remove_user(&self, name: &str) -> Result<()> {
        self.run(&["user", "remove", name])?.success().map(drop)
    }

    /// The link with what a client of this scene needs besides: authority and addresses.
    #[must_use]
    pub fn complete(&self, link: &str) -> String {
        let (v4, v6) = (addresses::GATEWAY_V4, addresses::GATEWAY_V6);
        let ca = self.authority.file().display();
        let join = if link.contains('?') { '&' } else { '?' };
        format!("{link}{join}ca={ca}&addr={v4}&addr={v6}")
    }

    /// GETs a path of the admin address and returns the body.
    pub fn admin(&self, path: &str) -> Result<String> {
        let asked = self.ns.enter(|| -> std::io::Result<String> {
            let mut stream = TcpStream::connect(ADMIN)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: {ADMIN}\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        let answer = asked.context("asking the admin address")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }

    /// One figure of `/metrics`, named as there: `bauta_tunnels{kind="connect-ip"}`.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.admin("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no metric {name} in\n{text}"))?;
        Ok(value.trim().parse::<f64>()? as u64)
    }

    /// Waits until a figure is as wished, and returns it.
    pub fn wait_for_metric(
        &self,
        name: &str,
        within: Duration,
        wished: impl Fn(u64) -> bool,
    ) -> Result<u64> {
        let found = poll_until(within, || self.metric(name).ok().filter(|v| wished(*v)));
        found.ok_or_else(|| match self.metric(name) {
            Ok(value) => anyhow!("{name} is {value} after {within:?}"),
            Err(error) => error,
        })
    }

    /// The tunnels, as `/sessions` tells.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        serde_json::from_str(&self.admin("/sessions")?).context("reading /sessions")
    }
}
