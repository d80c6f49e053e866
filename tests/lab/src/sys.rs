//! The few kernel interfaces that need `unsafe`: hooks between fork and exec, TUN, SCHED_FIFO.
#![expect(unsafe_code, reason = "the kernel is met here, and nowhere else in this crate")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

/// Makes the child enter the network namespace `netns` (when given) before it runs, and die when
/// the thread that spawned it dies.
pub(crate) fn bind_child(command: &mut Command, netns: Option<Arc<File>>) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes only async-signal-safe system calls
    // (prctl, getppid, setns) and allocates nothing.
    unsafe {
        command.pre_exec(move || prepare_child(parent, netns.as_deref()));
    }
}

fn prepare_child(parent: Pid, netns: Option<&File>) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // The parent died before the signal was armed.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    if let Some(netns) = netns {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}

/// Opens a non-blocking TUN device without packet information or offloads, in the network
/// namespace of the calling thread. `name` has been checked to fit.
pub(crate) fn open_tun(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap_or_default();
    // SAFETY: the descriptor is open and `request` outlives the call, which reads an ifreq.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(file.into())
}

/// Gives the calling thread the real-time policy SCHED_FIFO at `priority` (1 to 99).
pub(crate) fn become_realtime(priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 names the calling thread, and `parameters` outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
