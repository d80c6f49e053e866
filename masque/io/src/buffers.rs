//! The storage quiche uses for stream data and datagrams.

use std::cell::RefCell;

use bytes::Bytes;
use quiche::BufFactory;

/// Datagram buffers kept for reuse by a thread. At 2 KiB each: at most 8 MiB.
const POOL_MAX: usize = 4096;
/// Capacity of a fresh datagram buffer: the largest UDP payload on an Ethernet path and some room.
const DATAGRAM_CAPACITY: usize = 2048;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Tells quiche to keep stream data in [`Bytes`] and datagrams in recycled buffers.
#[derive(Clone, Debug, Default)]
pub struct Buffers;

impl BufFactory for Buffers {
    type Buf = Bytes;
    type DgramBuf = DatagramBuf;

    fn buf_from_slice(buf: &[u8]) -> Bytes {
        Bytes::copy_from_slice(buf)
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> DatagramBuf {
        let mut out = DatagramBuf::take();
        out.0.extend_from_slice(buf);
        out
    }
}

/// One QUIC datagram's payload. Its memory returns to the thread's pool when it is dropped, so a
/// tunnel in steady state sends out of the buffers in which it received.
#[derive(Debug)]
pub struct DatagramBuf(Vec<u8>);

impl DatagramBuf {
    /// An empty buffer, recycled where one is free.
    pub fn take() -> Self {
        let recycled = POOL.try_with(|p| p.borrow_mut().pop()).ok().flatten();
        Self(recycled.unwrap_or_else(|| Vec::with_capacity(DATAGRAM_CAPACITY)))
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The payload, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for DatagramBuf {
    fn drop(&mut self) {
        let mut buf = std::mem::take(&mut self.0);
        if buf.capacity() == 0 {
            return;
        }
        buf.clear();
        // A thread that is shutting down has no pool any more: the buffer is simply freed.
        let _ = POOL.try_with(|p| {
            let mut pool = p.borrow_mut();
            if pool.len() < POOL_MAX {
                pool.push(buf);
            }
        });
    }
}

impl AsRef<[u8]> for DatagramBuf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for DatagramBuf {
    fn from(buf: Vec<u8>) -> Self {
        Self(buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_datagram_is_the_next_one_taken() {
        let mut first = DatagramBuf::take();
        first.extend(&[1; 100]);
        let address = first.as_ref().as_ptr();
        drop(first);
        let second = DatagramBuf::take();
        assert!(second.as_ref().is_empty());
        assert_eq!(second.0.as_ptr(), address);
    }
}
