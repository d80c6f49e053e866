//! Removing namespaces and files: the caller's own, and those of makers that are dead.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::names::{self, Maker};
use crate::net::kill_inside;
use crate::netns::{NETNS_FOLDER, Netns};

/// Deletes the namespaces and files of tests that were killed before they could clean up, with
/// the processes inside. Returns the names of the namespaces.
pub fn stale() -> Vec<String> {
    let namespaces = orphans(Path::new(NETNS_FOLDER));
    for name in &namespaces {
        if let Ok(netns) = Netns::open(name) {
            kill_inside(&netns);
        }
        delete(name);
    }
    for folder in orphans(&std::env::temp_dir()) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(folder));
    }
    namespaces
}

fn orphans(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Maker::of(name).is_some_and(|maker| !maker.alive()))
        .collect()
}

/// Deletes one namespace and its files of `/etc`. Another sweeper may have been quicker.
pub(crate) fn delete(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", name])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    let _ = fs::remove_dir_all(names::etc(name));
}
