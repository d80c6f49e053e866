//! A network namespace that exists: entering it, configuring it, finding who lives in it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::error::{Context, LabError, Result};
use crate::process;
use crate::sys;

/// Where `ip netns` keeps the names.
pub(crate) const NETNS_FOLDER: &str = "/run/netns";

/// An open network namespace. Cheap to clone; it does not own the namespace, [`crate::Namespace`]
/// does.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Opens a namespace by its `ip netns` name, by a path (`/proc/PID/ns/net`), or `.` for the
    /// namespace of the caller.
    pub fn open(name: &str) -> Result<Self> {
        let path = match name {
            "." => PathBuf::from("/proc/thread-self/ns/net"),
            path if path.contains('/') => PathBuf::from(path),
            name => Path::new(NETNS_FOLDER).join(name),
        };
        let file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => LabError::NoNamespace { name: name.into(), path },
            _ => LabError::system(format!("open network namespace {}", path.display()), e),
        })?;
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// The name it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace and returns its result: sockets,
    /// TUN devices and `/proc/sys/net` opened by it belong to the namespace. A panic passes on.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name(self.name.clone()).spawn_scoped(scope, || {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)
                    .attempting(|| format!("enter network namespace {}", self.name))?;
                Ok(work())
            });
            let inside = inside.attempting(|| "start a thread")?;
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside the network namespace, but in the caller's mount namespace
    /// (its `/etc/resolv.conf`, its `/sys`). It dies with the *thread* that starts it; start what
    /// must live longer with [`crate::Process`].
    #[must_use]
    pub fn bare_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        sys::bind_child(&mut command, Some(self.file.clone()));
        command
    }

    /// Runs iproute2's `ip` with these words and returns what it printed.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = self.bare_command("ip");
        command.args(words.split_whitespace());
        process::output_of(&mut command)
    }

    /// Sets a network sysctl, named below `net.` with slashes: `ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: impl ToString + Copy) -> Result<()> {
        let (path, value) = (format!("/proc/sys/net/{key}"), value.to_string());
        self.enter(|| fs::write(&path, &value))?
            .attempting(|| format!("set {path} to {value} in {}", self.name))
    }

    /// The processes whose main thread is in the namespace, without the caller's own.
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        let Ok(own) = self.file.metadata() else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|&pid| Pid::from_raw(pid) != Pid::this())
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino()))
            })
            .map(Pid::from_raw)
            .collect()
    }
}
