//! Waiting for one of several endpoints.

use std::io;
use std::task::{Context, Poll};

use super::Endpoint;

impl Endpoint {
    /// [`Endpoint::readable`] as a poll function; the task that polled last is woken.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(cx)
    }

    /// [`Endpoint::writable`] likewise; forever pending where nothing was refused.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.train.is_blocked() {
            return Poll::Pending;
        }
        match self.socket.poll_writable(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}
