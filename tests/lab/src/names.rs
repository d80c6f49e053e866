//! Names that tell who made a thing, so that what a killed test left behind can be recognised.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{LabError, Result};

const PREFIX: &str = "bauta";
/// The kernel's bound on a device's name, without the closing zero.
const DEVICE_NAME_MAX: usize = 15;
const LABEL_MAX: usize = 32;

/// A process by number and time of birth: numbers are used again, the pair is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker {
    pid: u32,
    born: u64,
}

impl Maker {
    pub(crate) fn this() -> Self {
        let pid = std::process::id();
        Self { pid, born: born(pid).unwrap_or(0) }
    }

    pub(crate) fn alive(self) -> bool {
        born(self.pid) == Some(self.born)
    }

    /// The maker of a namespace or folder, `None` if the name is not one of the lab's.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let prefix = parts.next()?;
        let pid = parts.next()?.parse().ok()?;
        let born = parts.next()?.parse().ok()?;
        let _count: u32 = parts.next()?.parse().ok()?;
        (prefix == PREFIX).then_some(Self { pid, born })
    }
}

/// When a living process was born, in ticks since the machine was: field 22 of its `stat`.
fn born(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// A fresh namespace name: `bauta-<pid>-<born>-<count>-<label>`.
pub(crate) fn namespace(label: &str) -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let fits = (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !fits {
        return Err(LabError::Invalid(format!(
            "namespace label `{label}`: 1 to {LABEL_MAX} letters, digits, `-` or `_`"
        )));
    }
    let Maker { pid, born } = Maker::this();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{PREFIX}-{pid}-{born}-{count}-{label}"))
}

/// The folder of this process's network number `count`.
pub(crate) fn folder(count: u32) -> PathBuf {
    let Maker { pid, born } = Maker::this();
    std::env::temp_dir().join(format!("{PREFIX}-{pid}-{born}-{count}"))
}

/// Where `ip netns exec` finds a namespace's own files of `/etc`.
pub(crate) fn etc(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}

/// Refuses a device name the kernel would refuse or cut.
pub(crate) fn check_device(name: &str) -> Result<()> {
    let fits = (1..=DEVICE_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    if fits {
        return Ok(());
    }
    Err(LabError::Invalid(format!(
        "device name `{name}`: 1 to {DEVICE_NAME_MAX} visible characters without `/`, `:`, `%`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_maker() {
        let name = namespace("client-1").unwrap();
        assert_eq!(Maker::of(&name), Some(Maker::this()));
        assert!(Maker::this().alive());
    }

    #[test]
    fn a_foreign_name_has_no_maker() {
        for name in ["client", "bauta-", "bauta-x-1-1-a", "bauta-demo-gateway", "other-1-2-3-x"] {
            assert_eq!(Maker::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_pid_used_again_is_another_maker() {
        let Maker { pid, born } = Maker::this();
        assert!(!Maker { pid, born: born + 1 }.alive());
    }

    #[test]
    fn names_the_kernel_would_cut_are_refused() {
        assert!(check_device("wan0").is_ok());
        assert!(check_device("sixteen-letters-").is_err());
        assert!(namespace("a/b").is_err());
    }
}
