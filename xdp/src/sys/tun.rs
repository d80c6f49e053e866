//! The one `ioctl` of a TUN device that takes a program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

// `linux/if_tun.h`: TUNSETSTEERINGEBPF.
nix::ioctl_read!(tun_set_steering_ebpf, b'T', 224, libc::c_int);

/// Lets `program` choose the queue of every packet that the kernel sends into the device of `queue`.
pub(crate) fn set_steering(queue: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut program = program.as_raw_fd();
    // SAFETY: the kernel reads an `int`, which lives here, and takes its own reference.
    unsafe { tun_set_steering_ebpf(queue.as_raw_fd(), &raw mut program) }?;
    Ok(())
}
