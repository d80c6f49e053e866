//! Several queues of one TUN device, read in turns.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::{TunBatch, TunDrops, TunQueue};
use crate::buffers::DatagramBuf;

/// The queues of a worker, at least one. The kernel drops what finds its queue full, whoever filled it: with
/// the tunnels spread over several, a flood towards one leaves room for the others.
pub struct TunLanes {
    queues: Vec<TunQueue>,
    next: usize,
}

impl TunLanes {
    /// `None` without a queue.
    pub fn new(queues: Vec<TunQueue>) -> Option<Self> {
        (!queues.is_empty()).then_some(Self { queues, next: 0 })
    }

    /// Waits until there may be packets to read.
    ///
    /// # Errors
    /// When the runtime is shutting down, or outside of one.
    pub async fn readable(&self) -> io::Result<()> {
        // Each has the same device: of its end the first tells.
        let mut first = std::pin::pin!(self.queues[0].readable());
        poll_fn(|cx| {
            for queue in &self.queues[1..] {
                if let Poll::Ready(ready) = queue.poll_readable(cx) {
                    return Poll::Ready(ready);
                }
            }
            first.as_mut().poll(cx)
        })
        .await
    }

    /// As [`TunQueue::try_recv`], from the next queue that has something.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing waits; anything else means that the device is gone.
    pub fn try_recv(&mut self, batch: &mut TunBatch) -> io::Result<usize> {
        for _ in 0..self.queues.len() {
            let at = self.next;
            self.next = (at + 1) % self.queues.len();
            match self.queues[at].try_recv(batch) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// As [`TunQueue::queue`].
    #[inline]
    pub fn queue(&mut self, packet: DatagramBuf) {
        self.queues[0].queue(packet);
    }

    /// As [`TunQueue::queue_packet`].
    pub fn queue_packet(&mut self, packet: &[u8]) {
        self.queues[0].queue_packet(packet);
    }

    /// As [`TunQueue::queued`].
    pub fn queued(&self) -> usize {
        self.queues[0].queued()
    }

    /// As [`TunQueue::flush`].
    ///
    /// # Errors
    /// The device is gone.
    pub fn flush(&mut self) -> io::Result<usize> {
        self.queues[0].flush()
    }

    /// Packets lost so far, by all of them.
    pub fn drops(&self) -> TunDrops {
        self.queues.iter().map(TunQueue::drops).fold(TunDrops::default(), |sum, one| TunDrops {
            malformed: sum.malformed + one.malformed,
            full: sum.full + one.full,
            refused: sum.refused + one.refused,
        })
    }
}
