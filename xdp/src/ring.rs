//! Receive rings: what a worker polls beside its UDP socket.

#[cfg(unix)]
use std::os::fd::BorrowedFd;

#[cfg(target_os = "linux")]
mod asynchronous;
#[cfg(target_os = "linux")]
mod queue;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod umem;
#[cfg(target_os = "linux")]
mod xsk;

#[cfg(target_os = "linux")]
pub(crate) use umem::Mapping;
#[cfg(target_os = "linux")]
pub use {asynchronous::AsyncRing, xsk::XskRing};

/// Bytes of memory for one frame, the kernel's 256 bytes of headroom included.
pub const FRAME_SIZE: usize = 2048;
/// Frames of memory per ring: with [`FRAME_SIZE`] 8 MiB, all of it pinned.
pub const FRAME_COUNT: usize = 4096;
/// How many received frames may wait for the worker; the rest of [`FRAME_COUNT`] is ready for the
/// network card meanwhile.
pub const RX_RING_SIZE: usize = 2048;
/// The most frames one [`RxRing::poll_batch`] hands out, so that a worker gets to its timers.
pub const BATCH: usize = 64;
/// The longest frame that goes to a ring: Ethernet's 1,500 bytes, its header and four to spare.
/// Longer ones (jumbo frames, segments merged by the kernel) take the kernel's way.
pub const MAX_FRAME: usize = 1518;

/// One receive queue of one interface.
pub trait RxRing {
    /// Readable while frames wait; for `poll` or `epoll`, also edge-triggered. Poll until nothing
    /// is left before waiting.
    #[cfg(unix)]
    fn fd(&self) -> BorrowedFd<'_>;

    /// Hands at most [`BATCH`] waiting frames, in order, to `each` and then back to the network
    /// card. Never blocks. Returns how many frames were taken; 0 means that none waited.
    fn poll_batch(&mut self, each: &mut dyn FnMut(&mut [u8])) -> usize;

    /// Counters since the ring was bound. A system call: for metrics, not for every packet.
    fn stats(&self) -> RingStats;
}

/// What happened to the frames of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Frames handed to the worker.
    pub received: u64,
    /// Frames dropped because no memory was free for them, or they were longer than it.
    pub dropped: u64,
    /// Frames dropped because [`RX_RING_SIZE`] others waited: the worker is too slow.
    pub ring_full: u64,
    /// How often the kernel found no free memory; in copy mode those frames count as dropped too.
    pub fill_ring_empty: u64,
    /// Descriptors that made no sense, of the kernel to us and of us to the kernel. Always 0.
    pub invalid: u64,
}
