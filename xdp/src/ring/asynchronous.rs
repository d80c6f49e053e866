//! A ring under tokio.
#![expect(unsafe_code, reason = "tokio must be promised that the descriptor stays open")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

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
        loop {
            let mut guard = self.0.readable().await?;
            if self.ring().has_frames() {
                return Ok(());
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
