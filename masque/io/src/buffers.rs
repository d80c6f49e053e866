//! The storage quiche uses for stream data and datagrams.

use std::cell::RefCell;

use bytes::Bytes;
use quiche::BufFactory;

/// Datagram buffers kept for reuse by a thread: at most 8 MiB.
const POOL_MAX: usize = 4096;
/// Bytes of a pooled buffer: the largest UDP payload on an Ethernet path, headroom and some more.
const POOLED: usize = 2048;
/// Free bytes before a fresh datagram's payload, for a quarter stream ID and a context ID: two
/// variable-length integers (RFC 9297 §2.1, RFC 9298 §4), and as much again for what comes to be
/// written between them and the packet.
pub const HEADROOM: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Tells quiche to keep stream data in [`Bytes`] and datagrams in recycled buffers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers;

impl BufFactory for Buffers {
    type Buf = Bytes;
    type DgramBuf = DatagramBuf;

    fn buf_from_slice(buf: &[u8]) -> Bytes {
        Bytes::copy_from_slice(buf)
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> DatagramBuf {
        DatagramBuf::copy_of(buf)
    }
}

/// A datagram or a packet that is moved and never copied: from the TUN into QUIC's queue, from QUIC
/// to the TUN. Headers are written into the room before it and taken off in place. Its memory
/// returns to the thread's pool when it is dropped.
#[derive(Debug)]
pub struct DatagramBuf {
    /// Initialised to its full length; the payload is `start..end`.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl DatagramBuf {
    /// An empty buffer with [`HEADROOM`] before it, recycled where one is free.
    pub fn take() -> Self {
        let recycled = POOL.try_with(|p| p.borrow_mut().pop()).ok().flatten();
        let data = recycled.unwrap_or_else(|| vec![0; POOLED]);
        Self { data, start: HEADROOM, end: HEADROOM }
    }

    /// A copy of `bytes`, with [`HEADROOM`] before it.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut out = Self::take();
        out.extend(bytes);
        out
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `len` bytes of whatever was there before, to be overwritten, and returns them.
    pub fn grow(&mut self, len: usize) -> &mut [u8] {
        let from = self.end;
        self.end += len;
        if self.end > self.data.len() {
            self.data.resize(self.end, 0);
        }
        &mut self.data[from..self.end]
    }

    /// Free bytes before the payload.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Writes `bytes` before the payload and makes them part of it.
    ///
    /// # Panics
    /// Where they are more than [`headroom`](Self::headroom).
    pub fn prepend(&mut self, bytes: &[u8]) {
        let end = self.start;
        self.start -= bytes.len();
        self.data[self.start..end].copy_from_slice(bytes);
    }

    /// Takes the first `len` bytes off the payload, or all of it where there are fewer.
    pub fn advance(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The payload, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }
}

impl Drop for DatagramBuf {
    fn drop(&mut self) {
        if self.data.len() != POOLED {
            return;
        }
        let data = std::mem::take(&mut self.data);
        // A thread that is shutting down has no pool any more: the buffer is simply freed.
        let _ = POOL.try_with(|p| {
            let mut pool = p.borrow_mut();
            if pool.len() < POOL_MAX {
                pool.push(data);
            }
        });
    }
}

impl AsRef<[u8]> for DatagramBuf {
    fn as_ref(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }
}

impl From<Vec<u8>> for DatagramBuf {
    fn from(data: Vec<u8>) -> Self {
        Self { start: 0, end: data.len(), data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_datagram_is_the_next_one_taken() {
        let first = DatagramBuf::copy_of(&[1; 100]);
        let address = first.as_ref().as_ptr();
        drop(first);
        let second = DatagramBuf::take();
        assert!(second.is_empty());
        assert_eq!(second.as_ref().as_ptr(), address);
    }

    #[test]
    fn headers_come_and_go_without_moving_the_payload() {
        let mut buf = DatagramBuf::copy_of(b"packet");
        let address = buf.as_ref().as_ptr();
        buf.prepend(&[7; 2]);
        assert_eq!(buf.as_ref(), b"\x07\x07packet");
        buf.advance(2);
        assert_eq!((buf.as_ref(), buf.as_ref().as_ptr()), (&b"packet"[..], address));
        assert_eq!(buf.headroom(), HEADROOM);
        buf.advance(100);
        assert!(buf.is_empty());
        let mut received = DatagramBuf::from(vec![1, 2, 3]);
        assert_eq!(received.headroom(), 0);
        received.advance(1);
        received.prepend(&[9]);
        assert_eq!(received.as_ref(), [9, 2, 3]);
    }

    #[test]
    fn one_larger_than_pooled_grows() {
        let mut buf = DatagramBuf::copy_of(&[1; 9000]);
        buf.extend(&[2; 10]);
        assert_eq!((buf.len(), buf.as_ref()[9009]), (9010, 2));
    }
}
