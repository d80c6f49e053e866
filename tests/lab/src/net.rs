//! A network of namespaces that lives as long as a value.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::clock::poll_until;
use crate::error::{Context, LabError, Result};
use crate::netns::Netns;
use crate::process::{self, Process};
use crate::{names, sweep, sys};

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// Namespaces, the wires between them and the files of one test. Dropping it kills every process
/// inside, deletes the namespaces (and with them every device) and removes the files.
#[derive(Debug)]
pub struct Net {
    folder: Arc<Folder>,
    namespaces: Mutex<Vec<Namespace>>,
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Net {
    /// An empty network. Sweeps away what killed tests left behind. Fails when not root.
    pub fn new() -> Result<Self> {
        require_root("a network of namespaces")?;
        sweep::stale();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = names::folder(COUNT.fetch_add(1, Ordering::Relaxed));
        fs::create_dir_all(&folder).attempting(|| format!("make {}", folder.display()))?;
        Ok(Self { folder: Arc::new(Folder(folder)), namespaces: Mutex::default() })
    }

    /// A folder for the test's files, removed with the network.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Makes a namespace: loopback up, IPv6 without duplicate address detection.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let namespace = Namespace::create(name, self.folder.clone())?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        Ok(namespace)
    }

    /// Lays a veth pair between two namespaces, both ends up. `(namespace, device)` each.
    pub fn veth(&self, a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
        names::check_device(a.1)?;
        names::check_device(b.1)?;
        a.0.ip(&format!("link add name {} type veth peer name {} netns {}", a.1, b.1, b.0.name()))?;
        a.0.ip(&format!("link set dev {} up", a.1))?;
        b.0.ip(&format!("link set dev {} up", b.1))?;
        Ok(())
    }

    /// Starts a program outside the namespaces, its output captured; see [`Namespace::spawn`].
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(command, self.folder())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in self.namespaces.get_mut().unwrap_or_else(PoisonError::into_inner) {
            namespace.tear_down();
        }
    }
}

/// Fails, aloud, when the caller is not root.
pub fn require_root(what: &'static str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot(what)) }
}

/// A namespace of a [`Net`]. Cheap to clone; it goes when the `Net` goes.
#[derive(Debug, Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    netns: Netns,
    folder: Arc<Folder>,
    gone: AtomicBool,
}

impl Deref for Namespace {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.inner.netns
    }
}

impl Namespace {
    fn create(label: &str, folder: Arc<Folder>) -> Result<Self> {
        let name = names::namespace(label)?;
        process::output_of(Command::new("ip").args(["netns", "add", &name]))?;
        let netns = match Netns::open(&name) {
            Ok(netns) => netns,
            Err(e) => {
                sweep::delete(&name);
                return Err(e);
            }
        };
        let namespace =
            Self { inner: Arc::new(Inner { netns, folder, gone: AtomicBool::new(false) }) };
        namespace.ip("link set lo up")?;
        for key in ["all", "default"] {
            // A kernel without IPv6 still serves tests of IPv4.
            let _ = namespace.sysctl(&format!("ipv6/conf/{key}/accept_dad"), 0);
        }
        Ok(namespace)
    }

    /// Adds addresses (`10.0.0.1/24`, `2001:db8::1/64`, or with more words: `10.0.0.1 peer
    /// 10.0.0.2`) to a device; IPv6 ones are usable at once.
    pub fn address(&self, device: &str, addresses: &[&str]) -> Result<()> {
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("address add {address} dev {device}{nodad}"))?;
        }
        Ok(())
    }

    /// Adds a route, in iproute2's words: `default via 10.0.0.1`, `2001:db8::/32 dev wan`. The
    /// family is told by the first colon.
    pub fn route(&self, words: &str) -> Result<()> {
        let family = if words.contains(':') { "-6 " } else { "" };
        self.ip(&format!("{family}route add {words}")).map(drop)
    }

    /// Turns segmentation, receive and checksum offloads of a device on or off. veth has them on.
    pub fn offloads(&self, device: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let mut command = self.command("ethtool");
        command.args(["-K", device]);
        for feature in ["tso", "gso", "gro", "tx-checksumming"] {
            command.args([feature, state]);
        }
        process::output_of(&mut command).map(drop)
    }

    /// Gives the namespace a file of its own in `/etc` (`resolv.conf`, `hosts`), seen by what
    /// [`Namespace::command`] starts from now on. The same file must exist in the system's `/etc`.
    pub fn etc_file(&self, name: &str, contents: &str) -> Result<()> {
        let folder = names::etc(self.name());
        let path = folder.join(name);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&path, contents))
            .attempting(|| format!("write {}", path.display()))
    }

    /// Gives the namespace its own name servers.
    pub fn resolvers(&self, servers: &[&str]) -> Result<()> {
        let lines: String = servers.iter().map(|s| format!("nameserver {s}\n")).collect();
        self.etc_file("resolv.conf", &lines)
    }

    /// A command that will run in the namespace by `ip netns exec`: with its own `/sys` and its
    /// own files of `/etc`. It dies with the *thread* that starts it; start what must live longer
    /// with [`Namespace::spawn`].
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(), program]);
        sys::bind_child(&mut command, None);
        command
    }

    /// Runs a program to its end; fails unless it succeeds; returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        process::output_of(self.command(program).args(args))
    }

    /// Runs a shell line to its end; fails unless it succeeds; returns what it printed.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run("sh", &["-ec", line])
    }

    /// Starts a command (made with [`Namespace::command`]) and captures its output.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        Process::spawn(command, &self.inner.folder.0)
    }

    /// Starts a program with these arguments and captures its output.
    pub fn start(&self, program: &str, args: &[&str]) -> Result<Process> {
        let mut command = self.command(program);
        command.args(args);
        self.spawn(command)
    }

    /// The folder of the network's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.inner.folder.0
    }

    /// Kills every process inside and waits until they are gone.
    pub fn kill_all(&self) {
        kill_inside(self);
    }

    fn tear_down(&self) {
        self.inner.tear_down();
    }
}

impl Inner {
    fn tear_down(&self) {
        if !self.gone.swap(true, Ordering::AcqRel) {
            kill_inside(&self.netns);
            sweep::delete(self.netns.name());
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tear_down();
    }
}

/// Kills every process in a namespace, and what those start meanwhile.
pub(crate) fn kill_inside(netns: &Netns) {
    poll_until(DEATH, || {
        let pids = netns.pids();
        for &pid in &pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
        pids.is_empty().then_some(())
    });
}
