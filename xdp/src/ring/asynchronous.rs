//! A ring under tokio.
#![expect(unsafe_code, reason = "tokio must be promised that the descriptor stays open")]

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{RingStats, RxRing, XskRing};

/// A ring that a task can wait for, in a `select!` beside the UDP socket.
#[derive(Debug)]
pub struct AsyncRing(AsyncFd<Registered>);

/// A ring as tokio wants it.
#[derive(Debug)]
struct Registered(XskRing);

impl AsRawFd for Registered {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsyncRing {
    /// Hands a ring to the reactor of the runtime in whose context this is called; panics without
    /// one.
    pub fn new(ring: XskRing) -> io::Result<Self> {
        // SAFETY: a ring keeps one and the same open descriptor until it is dropped, and there is
        // no way to take or replace it through an `AsyncRing`.
        let ring = unsafe { AsyncFd::register_with_interest(Registered(ring), Interest::READABLE) };
        Ok(Self(ring?))
    }

    /// Waits until frames wait. Nothing is lost when it is cancelled.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Ready when frames wait; else wakes the last task that asked, so one task may wait for
    /// several rings.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            if self.ring().has_frames() {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &XskRing {
        &self.0.get_ref().0
    }
}

impl RxRing for AsyncRing {
    fn fd(&self) -> BorrowedFd<'_> {
        self.ring().fd()
    }

    fn poll_batch(&mut self, each: &mut dyn FnMut(&mut [u8])) -> usize {
        self.0.get_mut().0.poll_batch(each)
    }

    fn stats(&self) -> RingStats {
        self.ring().stats()
    }
}
