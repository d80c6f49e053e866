//! From root to an ordinary user who may still look after the TUN.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User};

/// The user to become if the configuration names none and it exists.
const OUR_USER: &str = "bauta";

/// The user to become otherwise.
const FALLBACK: &str = "nobody";

/// Whether the process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The user the process is to become; `None`: it stays what it is.
pub fn target(configured: Option<&str>) -> Result<Option<User>> {
    if !is_root() || configured == Some("root") {
        return Ok(None);
    }
    let find = |name: &str| User::from_name(name).with_context(|| format!("looking up {name}"));
    if let Some(name) = configured {
        return match find(name)? {
            Some(user) => Ok(Some(user)),
            None => bail!("user = \"{name}\": there is no such user; create it, or name another"),
        };
    }
    match find(OUR_USER)? {
        Some(user) => Ok(Some(user)),
        None => find(FALLBACK),
    }
}

/// Hands a file or folder the process has to go on writing to over to `user`.
pub fn hand_over(path: &Path, user: &User) -> Result<()> {
    nix::unistd::chown(path, Some(user.uid), Some(user.gid))
        .with_context(|| format!("giving {} to {}", path.display(), user.name))
}

/// Becomes `user` for good, keeping CAP_NET_ADMIN (the TUN and the rules at exit). To be called
/// while there is one thread: capabilities belong to threads, and later ones inherit them.
pub fn drop_to(user: &User) -> Result<()> {
    let keep = caps::CapsHashSet::from([Capability::CAP_NET_ADMIN]);
    nix::sys::prctl::set_keepcaps(true).context("keeping capabilities")?;
    nix::unistd::setgroups(&[]).context("leaving supplementary groups")?;
    nix::unistd::setgid(Gid::from_raw(user.gid.as_raw())).context("changing the group")?;
    nix::unistd::setuid(Uid::from_raw(user.uid.as_raw())).context("changing the user")?;
    // `nft` runs as a child: it has the capability only if that is inheritable and ambient.
    for set in [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &keep)
            .with_context(|| format!("keeping CAP_NET_ADMIN as {}", user.name))?;
    }
    nix::sys::prctl::set_no_new_privs().context("forbidding new privileges")?;
    Ok(())
}

/// Raises the limit of open files to what the system allows: every UDP flow is one. Returns it.
pub fn raise_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    // Root may go beyond the hard limit, up to the kernel's own.
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
    let most = most.and_then(|text| text.trim().parse().ok()).unwrap_or(hard);
    for limit in [most.min(1 << 20).max(hard), hard] {
        if limit > soft && setrlimit(Resource::RLIMIT_NOFILE, limit, limit.max(hard)).is_ok() {
            return limit;
        }
    }
    soft
}

/// Says clearly what CONNECT-IP lacks on this machine.
pub fn check_tun() -> Result<()> {
    if !is_root() && !caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN)? {
        bail!("CONNECT-IP needs root for its TUN; start as root, or set [tunnel] ip = false");
    }
    File::options().read(true).write(true).open("/dev/net/tun").context(
        "/dev/net/tun cannot be opened; load the `tun` module (in a container: pass the device \
         in), or set [tunnel] ip = false",
    )?;
    Ok(())
}
