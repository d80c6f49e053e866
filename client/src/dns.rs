//! Name servers: `/etc/resolv.conf`, or systemd-resolved where that is what stands behind it.

use std::{
    fmt::Write as _,
    fs::{self, File, FileTimes},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// The file the C library reads.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the files that `/etc/resolv.conf` is a link to.
const RESOLVED: &str = "/run/systemd/resolve";
/// The C library reads no more name servers than these.
const MAX_SERVERS: usize = 3;

/// How it was before, to be kept in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Saved {
    /// A file with these bytes.
    File {
        /// Its path.
        path: PathBuf,
        /// What was in it, base64.
        content: String,
        /// Permission bits.
        mode: u32,
        /// Seconds and nanoseconds since 1970.
        modified: (i64, u32),
    },
    /// A link to somewhere.
    Link {
        /// Its path.
        path: PathBuf,
        /// Where it led.
        target: PathBuf,
    },
    /// There was nothing.
    Absent {
        /// The path.
        path: PathBuf,
    },
    /// systemd-resolved was told about an interface.
    Resolved {
        /// Which.
        interface: String,
    },
}

/// What `resolv.conf` says while the tunnel is up.
pub fn content(name: &str, servers: &[IpAddr], search: &[String]) -> String {
    let mut text = format!("# Written by bauta for {name}; `bauta down` restores the file.\n");
    for server in servers.iter().take(MAX_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

/// Notes how it is, without changing anything.
pub fn save(path: &Path, interface: &str) -> io::Result<Saved> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Saved::Absent { path: path.into() });
        }
        Err(e) => return Err(e),
    };
    if meta.is_symlink() {
        let resolved = fs::canonicalize(path).is_ok_and(|real| real.starts_with(RESOLVED));
        return Ok(if resolved {
            Saved::Resolved { interface: interface.into() }
        } else {
            Saved::Link { path: path.into(), target: fs::read_link(path)? }
        });
    }
    Ok(Saved::File {
        path: path.into(),
        content: STANDARD.encode(fs::read(path)?),
        mode: meta.mode() & 0o7777,
        modified: (meta.mtime(), meta.mtime_nsec() as u32),
    })
}

/// Makes these the name servers. `saved` is what [`save`] noted, and is in the state file by now.
pub async fn apply(
    saved: &Saved,
    name: &str,
    servers: &[IpAddr],
    search: &[String],
) -> io::Result<()> {
    let text = content(name, servers, search);
    match saved {
        Saved::File { path, .. } | Saved::Absent { path } => write_in_place(path, text.as_bytes()),
        // A link may lead to a file that others look after: replace the link, not what it leads to.
        Saved::Link { path, .. } => {
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink()) {
                fs::remove_file(path)?;
            }
            write_in_place(path, text.as_bytes())
        }
        Saved::Resolved { interface } => {
            let list: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
            let mut domains = vec!["~.".to_string()];
            domains.extend_from_slice(search);
            resolvectl("dns", interface, &list).await?;
            resolvectl("domain", interface, &domains).await?;
            resolvectl("default-route", interface, &["yes".into()]).await
        }
    }
}

/// Puts back what was there. A file that somebody else has written meanwhile is left alone: `Ok(false)`.
pub async fn restore(saved: &Saved, name: &str) -> io::Result<bool> {
    match saved {
        Saved::Resolved { interface } => {
            // The interface and its settings may be gone already.
            let _ = resolvectl("revert", interface, &[]).await;
            Ok(true)
        }
        Saved::File { path, content, mode, modified } => {
            if !is_ours(path, name) {
                return Ok(false);
            }
            let bytes = STANDARD.decode(content).map_err(io::Error::other)?;
            write_in_place(path, &bytes)?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
            let seconds = u64::try_from(modified.0).unwrap_or(0);
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, modified.1);
            File::options()
                .write(true)
                .open(path)?
                .set_times(FileTimes::new().set_modified(time))?;
            Ok(true)
        }
        Saved::Link { path, target } => {
            if !is_ours(path, name) {
                return Ok(false);
            }
            fs::remove_file(path)?;
            symlink(target, path)?;
            Ok(true)
        }
        Saved::Absent { path } => {
            if !is_ours(path, name) {
                return Ok(false);
            }
            fs::remove_file(path)?;
            Ok(true)
        }
    }
}

/// Whether the file is the one written for this tunnel, or what is left of it.
fn is_ours(path: &Path, name: &str) -> bool {
    let ours = content(name, &[], &[]);
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file())
        && fs::read(path)
            .is_ok_and(|now| now.starts_with(ours.as_bytes()) || ours.as_bytes().starts_with(&now))
}

/// Keeps the inode: the file may be a bind mount (containers, network namespaces), which cannot be renamed over.
fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

async fn resolvectl(command: &str, interface: &str, args: &[String]) -> io::Result<()> {
    let output = Command::new("resolvectl")
        .arg(command)
        .arg(interface)
        .args(args)
        .env_clear()
        .env("PATH", crate::SYSTEM_PATH)
        .kill_on_drop(true)
        .output()
        .await?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "resolvectl {command}: {}",
        stderr.lines().next().unwrap_or("failed")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVERS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9))];

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_file_comes_back_byte_for_byte_with_its_mode_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let original = b"# mine\r\nnameserver 192.0.2.53\n\xff no newline at the end";
        fs::write(&path, original).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let before = fs::metadata(&path).unwrap();
        let saved = save(&path, "bauta0").unwrap();
        run(apply(&saved, "bauta0", &SERVERS, &["corp.example".into()])).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("nameserver 9.9.9.9\nsearch corp.example\n"), "{text}");
        assert!(run(restore(&saved, "bauta0")).unwrap());
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), original);
        assert_eq!(
            (before.mode(), before.ino(), before.modified().unwrap()),
            (after.mode(), after.ino(), after.modified().unwrap())
        );
    }

    #[test]
    fn a_link_comes_back_as_a_link_and_its_target_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (real, path) = (dir.path().join("real"), dir.path().join("resolv.conf"));
        fs::write(&real, "nameserver 192.0.2.53\n").unwrap();
        symlink("real", &path).unwrap();
        let saved = save(&path, "bauta0").unwrap();
        run(apply(&saved, "bauta0", &SERVERS, &[])).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "nameserver 192.0.2.53\n");
        assert!(fs::read_to_string(&path).unwrap().contains("9.9.9.9"));
        // A second run after a crash applies again on top of its own file.
        run(apply(&saved, "bauta0", &SERVERS, &[])).unwrap();
        assert!(run(restore(&saved, "bauta0")).unwrap());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("real"));
    }

    #[test]
    fn a_file_that_was_not_there_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let saved = save(&path, "bauta0").unwrap();
        run(apply(&saved, "bauta0", &SERVERS, &[])).unwrap();
        assert!(run(restore(&saved, "bauta0")).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "old").unwrap();
        let saved = save(&path, "bauta0").unwrap();
        run(apply(&saved, "bauta0", &SERVERS, &[])).unwrap();
        fs::write(&path, "nameserver 198.51.100.1\n").unwrap();
        assert!(!run(restore(&saved, "bauta0")).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 198.51.100.1\n");
    }

    #[test]
    fn no_more_servers_are_written_than_the_c_library_reads() {
        assert_eq!(content("x", &[SERVERS[0]; 5], &[]).matches("nameserver").count(), 3);
    }
}
