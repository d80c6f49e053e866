//! Memory shared with the kernel: frames, and the rings that say whose they are.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::libc;

use super::{FRAME_COUNT, FRAME_SIZE};

/// Memory mapped into this process, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory of our own.
    fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// `len` bytes of a socket's ring, `offset` says which ring; or of a map.
    pub(crate) fn of(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: libc::off_t) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED a new mapping touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { base, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole, and whoever borrowed from it is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The frames of a ring: [`FRAME_COUNT`] times [`FRAME_SIZE`] bytes.
#[derive(Debug)]
pub(super) struct Umem(Mapping);

impl Umem {
    pub(super) fn new() -> io::Result<Self> {
        Mapping::anonymous(FRAME_COUNT * FRAME_SIZE).map(Self)
    }

    /// Where it begins and how long it is, as `XDP_UMEM_REG` wants it.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.0.base.as_ptr().expose_provenance() as u64, self.0.len as u64)
    }

    /// The `len` bytes at `addr`; `None` if they are not inside one frame.
    ///
    /// # Safety
    /// The frame belongs to us: the kernel handed it over by the receive ring, and it has not
    /// been given back.
    pub(super) unsafe fn received(&mut self, addr: u64, len: u32) -> Option<&mut [u8]> {
        let (at, len) = (usize::try_from(addr).ok()?, usize::try_from(len).ok()?);
        if at >= self.0.len || at % FRAME_SIZE + len > FRAME_SIZE {
            return None;
        }
        // SAFETY: the bytes are inside the mapping, which was just checked; they are initialised
        // (zeroes at least), and nobody else uses them, which the caller vouches for.
        Some(unsafe { std::slice::from_raw_parts_mut(self.0.base.as_ptr().add(at), len) })
    }
}
