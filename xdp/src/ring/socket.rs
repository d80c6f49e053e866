//! An AF_XDP socket's system calls.
#![expect(unsafe_code, reason = "the kernel is met here")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;

use super::umem::Umem;
use super::{FRAME_COUNT, FRAME_SIZE, RX_RING_SIZE};

/// The kernel refuses to bind without a completion ring, although nothing is ever sent.
const COMPLETION_RING_SIZE: u32 = 2;

#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is new, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Pins `umem`; the kernel holds on to its pages until the socket is closed.
    pub(super) fn register(&self, umem: &Umem) -> io::Result<()> {
        let (addr, len) = umem.extent();
        let registration = libc::xdp_umem_reg {
            addr,
            len,
            chunk_size: FRAME_SIZE as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        self.set(libc::XDP_UMEM_REG, &registration)
    }

    /// Sets the sizes of the rings and returns where their parts will be when they are mapped.
    pub(super) fn make_rings(&self) -> io::Result<libc::xdp_mmap_offsets> {
        self.set(libc::XDP_UMEM_FILL_RING, &(FRAME_COUNT as u32))?;
        self.set(libc::XDP_UMEM_COMPLETION_RING, &COMPLETION_RING_SIZE)?;
        self.set(libc::XDP_RX_RING, &(RX_RING_SIZE as u32))?;
        self.get(libc::XDP_MMAP_OFFSETS)
    }

    pub(super) fn bind(&self, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: interface,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the kernel reads a `sockaddr_xdp`, whose length is given.
        check(unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })
    }

    pub(super) fn is_zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = self.get(libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    pub(super) fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        self.get(libc::XDP_STATISTICS)
    }

    /// Tells the driver that its fill ring has frames again.
    pub(super) fn wake(&self) {
        // An error here (EAGAIN, ENETDOWN) is nothing to act on: the next batch wakes again.
        // SAFETY: no memory is given.
        unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    fn set<T>(&self, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: the kernel reads `value`, whose length is given.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_XDP,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        })
    }

    fn get<T: Plain>(&self, option: i32) -> io::Result<T> {
        // SAFETY: for plain old data all zeroes is a valid value.
        let mut value: T = unsafe { std::mem::zeroed() };
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes of numbers into `value`.
        check(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_XDP,
                option,
                (&raw mut value).cast(),
                &raw mut len,
            )
        })?;
        if len as usize == size_of::<T>() {
            return Ok(value);
        }
        // Linux before 5.9 counts less and has no flags in its rings; it has no links either.
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Types made of integers alone, for which every pattern of bits is a value.
///
/// # Safety
/// Exactly that.
unsafe trait Plain {}
// SAFETY: made of integers.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: made of integers.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: made of integers.
unsafe impl Plain for libc::xdp_options {}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
