//! What was changed on this machine, written down before it is changed, so that `down` undoes it whatever happened.
//!
//! `<state dir>/<name>/` holds `state.json`, `lease.json`, `lock` and `control.sock`; all are for root alone.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    dns, killswitch,
    routes::{Installed, Netlink},
};

/// One change, with what it takes to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// The nftables table.
    Firewall {
        /// Its name.
        table: String,
    },
    /// Routes and rules.
    Routes(Installed),
    /// A file under `/proc/sys`.
    Sysctl {
        /// The file.
        path: PathBuf,
        /// What was in it.
        original: String,
    },
    /// Name servers.
    Dns(dns::Saved),
}

/// The state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The process that holds, or held, the tunnel.
    pub pid: u32,
    /// The gateway as it was named.
    pub server: String,
    /// Its addresses: with the kill switch in place no name can be resolved.
    pub gateways: Vec<SocketAddr>,
    /// Changes in the order in which they were made.
    pub changes: Vec<Change>,
}

/// The addresses held, asked for again next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// IPv4.
    pub v4: Option<IpAddr>,
    /// IPv6.
    pub v6: Option<IpAddr>,
}

/// The folder of one tunnel.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    name: String,
}

/// The folder, held by this process alone; released when the process ends, however it ends.
#[derive(Debug)]
pub struct Held {
    folder: Folder,
    state: State,
    taken_over: bool,
    _lock: Flock<File>,
}

impl Folder {
    /// The folder of the tunnel `name`.
    pub fn new(state_dir: &Path, name: &str) -> Folder {
        Folder { path: state_dir.join(name), name: name.into() }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Where a detached client writes what it has to say.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Whether there is such a folder at all.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Whether there is a state file: a tunnel is up, or was and is not undone.
    pub fn in_use(&self) -> bool {
        self.path.join("state.json").exists()
    }

    /// Takes the folder; `Ok(None)` when another process holds it.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let file = private().truncate(false).open(self.path.join("lock"))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, e)) => return Err(e.into()),
        };
        let state = self.read("state.json").unwrap_or_default();
        Ok(Some(Held { folder: self.clone(), state, taken_over: false, _lock: lock }))
    }

    /// The state as it is on disk, without holding the folder.
    pub fn peek(&self) -> Option<State> {
        self.read("state.json")
    }

    /// The addresses of last time.
    pub fn lease(&self) -> Lease {
        self.read("lease.json").unwrap_or_default()
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Option<T> {
        let path = self.path.join(file);
        let bytes = fs::read(&path).ok()?;
        serde_json::from_slice(&bytes)
            .map_err(|e| tracing::warn!(path = %path.display(), error = %e, "unreadable; ignored"))
            .ok()
    }

    /// Replaces a file as a whole: a crash leaves the old one or the new one.
    fn write<T: Serialize>(&self, file: &str, value: &T) -> io::Result<()> {
        let (path, new) = (self.path.join(file), self.path.join(format!("{file}.new")));
        let mut out = private().truncate(true).open(&new)?;
        out.write_all(&serde_json::to_vec_pretty(value)?)?;
        out.sync_data()?;
        fs::rename(new, path)
    }
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    options
}

impl Held {
    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// What is written down.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Notes whose tunnel this is, and where the gateway is.
    pub fn begin(&mut self, server: String, gateways: Vec<SocketAddr>) -> io::Result<()> {
        self.state = State {
            pid: std::process::id(),
            server,
            gateways,
            changes: std::mem::take(&mut self.state.changes),
        };
        self.save()
    }

    /// Notes a change that is about to be made. One of the same kind noted before keeps what it knows to restore.
    pub fn record(&mut self, change: Change) -> io::Result<()> {
        let same = |old: &Change| match (old, &change) {
            (Change::Dns(_), Change::Dns(_)) => true,
            (Change::Sysctl { path: a, .. }, Change::Sysctl { path: b, .. }) => a == b,
            (a, b) => a == b,
        };
        if !self.state.changes.iter().any(same) {
            self.state.changes.push(change);
            self.save()?;
        }
        Ok(())
    }

    /// The name servers noted by an earlier run, if it did not restore them.
    pub fn saved_dns(&self) -> Option<&dns::Saved> {
        self.state.changes.iter().find_map(|c| match c {
            Change::Dns(saved) => Some(saved),
            _ => None,
        })
    }

    /// Keeps the addresses for next time.
    pub fn keep_lease(&self, lease: Lease) -> io::Result<()> {
        if self.folder.lease() == lease { Ok(()) } else { self.folder.write("lease.json", &lease) }
    }

    fn save(&self) -> io::Result<()> {
        self.folder.write("state.json", &self.state)
    }

    /// Undoes what a run that died left, except the firewall and the name servers: those are replaced without a gap.
    pub async fn take_over(&mut self) -> Vec<String> {
        self.taken_over = true;
        self.undo(|change| !matches!(change, Change::Firewall { .. } | Change::Dns(_))).await
    }

    /// Whether something is still in place that a run that died had left.
    pub fn is_taken_over(&self) -> bool {
        self.taken_over && !self.state.changes.is_empty()
    }

    /// Undoes everything, the firewall last, and forgets it. Returns what could not be undone, which stays noted.
    pub async fn restore(&mut self) -> Vec<String> {
        self.undo(|change| !matches!(change, Change::Firewall { .. })).await;
        // What failed is tried once more, now without the firewall in its way.
        let problems = self.undo(|_| true).await;
        if self.state.changes.is_empty() {
            let _ = fs::remove_file(self.folder.path.join("state.json"));
        }
        let _ = fs::remove_file(self.folder.socket());
        problems
    }

    async fn undo(&mut self, which: impl Fn(&Change) -> bool) -> Vec<String> {
        let mut problems = Vec::new();
        for change in std::mem::take(&mut self.state.changes).into_iter().rev() {
            if !which(&change) {
                self.state.changes.push(change);
            } else if let Err(e) = undo(&change, &self.folder.name).await {
                problems.push(e);
                self.state.changes.push(change);
            }
        }
        self.state.changes.reverse();
        if let Err(e) = self.save() {
            problems.push(format!("state file: {e}"));
        }
        problems
    }
}

async fn undo(change: &Change, name: &str) -> Result<(), String> {
    match change {
        Change::Firewall { table } => killswitch::remove(table).await.map_err(|e| e.to_string()),
        Change::Routes(installed) => {
            let netlink = Netlink::open().map_err(|e| format!("routes: {e}"))?;
            netlink.remove(installed).await.map_err(|e| format!("routes: {e}"))
        }
        Change::Sysctl { path, original } => {
            fs::write(path, original).map_err(|e| format!("{}: {e}", path.display()))
        }
        Change::Dns(saved) => match dns::restore(saved, name).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::warn!(
                    "another program has written resolv.conf meanwhile; it is left as it is"
                );
                Ok(())
            }
            Err(e) => Err(format!("name servers: {e}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_folder_is_held_by_one_process_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "bauta0");
        let held = folder.hold().unwrap().unwrap();
        assert!(folder.hold().unwrap().is_none());
        drop(held);
        assert!(folder.hold().unwrap().is_some());
    }

    #[test]
    fn a_change_is_on_disk_before_it_is_made_and_only_root_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "bauta0");
        let mut held = folder.hold().unwrap().unwrap();
        held.begin("h:443".into(), vec!["192.0.2.1:443".parse().unwrap()]).unwrap();
        let change = Change::Sysctl { path: dir.path().join("knob"), original: "0\n".into() };
        held.record(change.clone()).unwrap();
        assert_eq!(folder.peek().unwrap().changes, [change]);
        let mode = fs::metadata(dir.path().join("bauta0/state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_first_original_is_kept_when_a_later_run_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let knob = dir.path().join("knob");
        fs::write(&knob, "1\n").unwrap();
        let folder = Folder::new(dir.path(), "bauta0");
        let mut first = folder.hold().unwrap().unwrap();
        first.record(Change::Sysctl { path: knob.clone(), original: "0\n".into() }).unwrap();
        drop(first);
        let mut second = folder.hold().unwrap().unwrap();
        second.record(Change::Sysctl { path: knob.clone(), original: "1\n".into() }).unwrap();
        assert!(run(second.restore()).is_empty());
        assert_eq!(fs::read_to_string(&knob).unwrap(), "0\n");
        assert!(!folder.in_use());
    }

    #[test]
    fn what_cannot_be_undone_stays_noted_and_the_rest_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let knob = dir.path().join("knob");
        let folder = Folder::new(dir.path(), "bauta0");
        let mut held = folder.hold().unwrap().unwrap();
        held.record(Change::Sysctl { path: knob.clone(), original: "0".into() }).unwrap();
        held.record(Change::Sysctl { path: dir.path().join("no/such"), original: "0".into() })
            .unwrap();
        let problems = run(held.restore());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(fs::read_to_string(&knob).unwrap(), "0");
        assert_eq!(held.state().changes.len(), 1);
        assert!(folder.in_use());
    }

    #[test]
    fn the_lease_outlives_the_tunnel() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), "bauta0");
        let mut held = folder.hold().unwrap().unwrap();
        let lease = Lease { v4: Some("10.0.0.2".parse().unwrap()), v6: None };
        held.keep_lease(lease).unwrap();
        run(held.restore());
        assert_eq!(folder.lease(), lease);
    }
}
