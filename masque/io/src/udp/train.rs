//! Datagrams for one target, gathered into trains that leave with one system call.

use std::io;

use super::{MAX_SEGMENTS, MAX_TRAIN_BYTES, UdpSocket};

/// A train under construction: datagrams of equal size, the last of which may be shorter
/// (`UDP_SEGMENT`). One a worker is enough; it is empty between two sockets.
#[derive(Debug)]
pub struct Train {
    contents: Vec<u8>,
    segment: usize,
    count: usize,
    /// A shorter datagram ends the train.
    ended: bool,
}

impl Train {
    /// An empty train with room for the longest.
    pub fn new() -> Self {
        Self { contents: Vec::with_capacity(MAX_TRAIN_BYTES), segment: 0, count: 0, ended: false }
    }

    /// No datagram waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Datagrams that wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Appends a datagram; `false` when it must go into the next train: send this one, then push it
    /// again. An empty train takes any datagram.
    #[must_use]
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        if self.count == 0 {
            self.segment = datagram.len();
            self.ended = datagram.is_empty();
        } else {
            let full = self.count == MAX_SEGMENTS
                || self.contents.len() + datagram.len() > MAX_TRAIN_BYTES;
            // A train has no way to say "an empty datagram".
            if self.ended || full || datagram.is_empty() || datagram.len() > self.segment {
                return false;
            }
            self.ended = datagram.len() < self.segment;
        }
        self.contents.extend_from_slice(datagram);
        self.count += 1;
        true
    }

    /// Sends what waits to the target of a connected socket. The train is empty afterwards, also
    /// when it could not be sent: a datagram that finds no room is dropped, never queued.
    ///
    /// # Errors
    /// As [`UdpSocket::try_send_connected`].
    pub fn send(&mut self, socket: &UdpSocket) -> io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let sent = socket.try_send_connected(&self.contents, Some(self.segment));
        self.clear();
        sent
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.contents.clear();
        self.count = 0;
    }
}

impl Default for Train {
    fn default() -> Self {
        Self::new()
    }
}
