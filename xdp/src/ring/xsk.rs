//! The ring of one receive queue, on an AF_XDP socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;

use super::queue::{FillQueue, RxQueue};
use super::socket::Socket;
use super::umem::Umem;
use super::{BATCH, FRAME_COUNT, FRAME_SIZE, RX_RING_SIZE, RingStats, RxRing};
use crate::error::Result;
use crate::ingress::Mode;
use crate::load::{patiently, system};
use crate::sys;

/// A receive queue's frames, in memory shared with the kernel. [`AsyncRing`](crate::AsyncRing) waits for
/// them under tokio. Dropping it sends the queue's frames the kernel's way again.
#[derive(Debug)]
pub struct XskRing {
    // Declared before the memory: closed before it is unmapped.
    socket: Socket,
    rx: RxQueue,
    fill: FillQueue,
    umem: Umem,
    /// Of the program that sends frames here.
    map: Option<OwnedFd>,
    interface: u32,
    queue: u32,
    zero_copy: bool,
    received: u64,
    invalid: u64,
}

impl XskRing {
    /// A socket bound to `queue` of the interface with index `interface`, all frames ready.
    pub(crate) fn bind(interface: u32, queue: u32, mode: Mode) -> Result<Self> {
        let mut ring = Self::unbound(interface, queue)?;
        let flags = match mode {
            // Zero-copy where the driver can, else copies; the kernel decides.
            Mode::Native => libc::XDP_USE_NEED_WAKEUP,
            // A driver's zero-copy queue would never reach a program in SKB mode.
            Mode::Skb => libc::XDP_USE_NEED_WAKEUP | libc::XDP_COPY,
        };
        patiently(|| ring.socket.bind(interface, queue, flags))
            .map_err(|e| system("bind the AF_XDP socket", e))?;
        ring.zero_copy =
            ring.socket.is_zero_copy().map_err(|e| system("ask for the socket's options", e))?;
        if ring.fill.submit() {
            ring.socket.wake();
        }
        Ok(ring)
    }

    /// Everything but the bind.
    pub(crate) fn unbound(interface: u32, queue: u32) -> Result<Self> {
        let umem = Umem::new().map_err(|e| system("map memory for frames", e))?;
        let socket = Socket::new().map_err(|e| system("open an AF_XDP socket", e))?;
        socket.register(&umem).map_err(|e| system("pin memory for frames", e))?;
        let offsets = socket.make_rings().map_err(|e| system("make the rings", e))?;
        let rx = RxQueue::map(socket.as_fd(), RX_RING_SIZE as u32, offsets.rx)
            .map_err(|e| system("map the receive ring", e))?;
        let mut fill = FillQueue::map(socket.as_fd(), FRAME_COUNT as u32, offsets.fr)
            .map_err(|e| system("map the fill ring", e))?;
        (0..FRAME_COUNT).for_each(|frame| fill.give((frame * FRAME_SIZE) as u64));
        fill.submit();
        let (map, zero_copy, received, invalid) = (None, false, 0, 0);
        Ok(Self { socket, rx, fill, umem, map, interface, queue, zero_copy, received, invalid })
    }

    /// Puts the socket into the program's map, for its queue, until the ring is dropped.
    pub(crate) fn enter(&mut self, map: OwnedFd) -> io::Result<()> {
        sys::map_socket(map.as_fd(), self.queue, self.socket.as_fd())?;
        self.map = Some(map);
        Ok(())
    }

    /// The receive queue.
    #[must_use]
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// The index of the interface: the scope of link-local addresses.
    #[must_use]
    pub fn interface(&self) -> u32 {
        self.interface
    }

    /// Whether frames wait: a look at memory, no system call.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.rx.waiting() > 0
    }

    /// Whether the network card writes into our memory itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }
}

impl RxRing for XskRing {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn poll_batch(&mut self, each: &mut dyn FnMut(&mut [u8])) -> usize {
        let batch = (self.rx.waiting() as usize).min(BATCH);
        if batch == 0 {
            return 0;
        }
        for _ in 0..batch {
            let descriptor = self.rx.take();
            // SAFETY: the kernel has just handed the frame over, and it is given back below,
            // after its slice is gone.
            #[expect(unsafe_code, reason = "the borrow is the kernel's promise")]
            let frame = unsafe { self.umem.received(descriptor.addr, descriptor.len) };
            match frame {
                Some(frame) => each(frame),
                None => self.invalid += 1,
            }
            self.fill.give(descriptor.addr - descriptor.addr % FRAME_SIZE as u64);
        }
        self.rx.release();
        if self.fill.submit() {
            self.socket.wake();
        }
        self.received += batch as u64;
        batch
    }

    fn stats(&self) -> RingStats {
        let ours =
            RingStats { received: self.received, invalid: self.invalid, ..RingStats::default() };
        // It fails for no socket that was bound once; if it did, ours would still be true.
        self.socket.statistics().map_or(ours, |kernel| RingStats {
            dropped: kernel.rx_dropped,
            ring_full: kernel.rx_ring_full,
            fill_ring_empty: kernel.rx_fill_ring_empty_descs,
            invalid: ours.invalid + kernel.rx_invalid_descs,
            ..ours
        })
    }
}

impl Drop for XskRing {
    /// Closing the socket would do, if no child being started held a copy of it for a moment.
    fn drop(&mut self) {
        if let Some(map) = &self.map {
            let _ = sys::unmap_socket(map.as_fd(), self.queue);
        }
    }
}

impl AsFd for XskRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
