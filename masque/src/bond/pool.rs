//! Buffers that go round, so that no packet allocates.

/// The most idle buffers kept.
const MAX_IDLE: usize = 2_048;

#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Vec<u8>>,
}

impl Pool {
    /// An empty buffer.
    #[inline]
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.idle.pop().unwrap_or_default()
    }

    /// One with a copy of `bytes`.
    #[inline]
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.take();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// A buffer is no longer needed.
    #[inline]
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.idle.len() < MAX_IDLE {
            buffer.clear();
            self.idle.push(buffer);
        }
    }
}
