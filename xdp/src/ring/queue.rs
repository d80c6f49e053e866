//! A ring shared with the kernel: one side only writes `producer`, the other only `consumer`.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

use super::umem::Mapping;

/// A ring of `T`, which is plain old data of the kernel's layout.
#[derive(Debug)]
struct Ring<T> {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
    mask: u32,
    entries: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps a ring of `size` entries, a power of two.
    fn map(
        fd: BorrowedFd<'_>,
        size: u32,
        offsets: libc::xdp_ring_offset,
        which: libc::off_t,
    ) -> io::Result<Self> {
        let entries = size as usize * size_of::<T>();
        let mapping = Mapping::of(fd, offsets.desc as usize + entries, which)?;
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        let fits = size.is_power_of_two()
            && offsets.desc.is_multiple_of(align_of::<T>() as u64)
            && words.iter().all(|&at| at.is_multiple_of(4) && at + 4 <= mapping.len() as u64);
        if !fits {
            return Err(io::Error::other("the kernel's layout of its ring makes no sense"));
        }
        Ok(Self { mapping, offsets, mask: size - 1, entries: PhantomData })
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        // SAFETY: `map` has checked that the word is aligned and inside the mapping, which lives
        // as long as `self`; both sides use it atomically.
        unsafe { AtomicU32::from_ptr(self.mapping.base().as_ptr().add(at as usize).cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below the size, for which `map` has made room.
        unsafe {
            let first = self.mapping.base().add(self.offsets.desc as usize).cast::<T>();
            first.add((index & self.mask) as usize)
        }
    }
}

/// The receive ring: the kernel produces descriptors of frames.
#[derive(Debug)]
pub(super) struct RxQueue {
    ring: Ring<libc::xdp_desc>,
    next: u32,
}

impl RxQueue {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        size: u32,
        offsets: libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        let ring = Ring::map(fd, size, offsets, libc::XDP_PGOFF_RX_RING)?;
        Ok(Self { ring, next: 0 })
    }

    /// How many descriptors wait, at most the size of the ring.
    pub(super) fn waiting(&self) -> u32 {
        // Acquire: descriptors and frames were written before the producer was.
        let producer = self.ring.producer().load(Ordering::Acquire);
        producer.wrapping_sub(self.next).min(self.ring.mask + 1)
    }

    /// Takes the next descriptor, one of those that [`waiting`](Self::waiting) counted.
    pub(super) fn take(&mut self) -> libc::xdp_desc {
        // SAFETY: the entry is inside the ring, and the kernel does not write to it before we
        // have released it.
        let descriptor = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        descriptor
    }

    /// Lets the kernel use the entries of what was taken.
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

/// The fill ring: we produce addresses of frames for the kernel to fill. It has room for every
/// frame there is, so it never overflows.
#[derive(Debug)]
pub(super) struct FillQueue {
    ring: Ring<u64>,
    next: u32,
}

impl FillQueue {
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        size: u32,
        offsets: libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        let offset = libc::off_t::try_from(libc::XDP_UMEM_PGOFF_FILL_RING)
            .map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        Ok(Self { ring: Ring::map(fd, size, offsets, offset)?, next: 0 })
    }

    /// Writes down the address of a free frame.
    pub(super) fn give(&mut self, addr: u64) {
        // SAFETY: the entry is inside the ring, and the kernel does not read it before it has
        // been submitted; see the type for why it is free.
        unsafe { self.ring.entry(self.next).write(addr) };
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the kernel have what was given. Returns whether it wants to be woken for that.
    pub(super) fn submit(&mut self) -> bool {
        // Release: the addresses were written before the producer is.
        self.ring.producer().store(self.next, Ordering::Release);
        let flags = self.ring.word(self.ring.offsets.flags).load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}
