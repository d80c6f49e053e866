//! The buffers datagrams are received into.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};

use super::plain;

/// Messages taken from the kernel by one system call; each may hold many datagrams.
pub const BATCH_SIZE: usize = quinn_udp::BATCH_SIZE;

/// Room for one message: the largest that GRO makes.
const MESSAGE: usize = 1 << 16;

/// Bytes that one system call shall bring at most, as far as the last one tells: many small messages,
/// or few large ones, which are then dealt with while they are in the processor's cache.
const APPETITE: usize = 256 << 10;
/// Messages asked for at least.
const FEWEST: usize = APPETITE / MESSAGE;

/// One datagram, in place in the batch it was received into.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The UDP payload; it may be empty.
    pub payload: &'a mut [u8],
    /// Who sent it; IPv4 is never shown as IPv4-mapped.
    pub from: SocketAddr,
    /// The local address it was sent to.
    pub to: Option<IpAddr>,
    /// The ECN bits of its IP header, `None` for Not-ECT.
    pub ecn: Option<EcnCodepoint>,
}

/// What one `recvmmsg` brought: [`BATCH_SIZE`] messages of up to 64 KiB. Made once a worker.
pub struct RecvBatch {
    buffers: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
    messages: usize,
    /// Messages to ask for.
    wanted: usize,
}

impl RecvBatch {
    /// Reserves 2 MiB of address space; the system backs it as it is first used.
    pub fn new() -> Self {
        Self {
            buffers: vec![0; BATCH_SIZE * MESSAGE].into_boxed_slice(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            messages: 0,
            wanted: BATCH_SIZE,
        }
    }

    /// Nothing was received.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The number of datagrams, counted as they were on the wire.
    pub fn len(&self) -> usize {
        self.metas[..self.messages].iter().map(|m| m.len.div_ceil(m.stride.max(1)).max(1)).sum()
    }

    /// Bytes of all datagrams.
    pub fn bytes(&self) -> usize {
        self.metas[..self.messages].iter().map(|m| m.len).sum()
    }

    /// Calls `f` with each datagram, in the order of arrival.
    pub fn for_each(&mut self, mut f: impl FnMut(Datagram<'_>)) {
        let messages = self.buffers.chunks_exact_mut(MESSAGE).zip(&self.metas[..self.messages]);
        for (buffer, meta) in messages {
            let from = plain(meta.addr);
            let to = meta.dst_ip.map(|ip| ip.to_canonical());
            if meta.len == 0 {
                f(Datagram { payload: &mut [], from, to, ecn: meta.ecn });
            }
            for payload in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                f(Datagram { payload, from, to, ecn: meta.ecn });
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.messages = 0;
    }

    /// One `recvmmsg`; returns whether there were fewer messages than were asked for.
    pub(super) fn fill(
        &mut self,
        state: &UdpSocketState,
        socket: UdpSockRef<'_>,
    ) -> io::Result<bool> {
        let asked = self.wanted;
        let mut chunks = self.buffers.chunks_exact_mut(MESSAGE);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.messages = state.recv(socket, &mut slices[..asked], &mut self.metas[..asked])?;
        let mean = self.bytes() / self.messages.max(1);
        self.wanted = (APPETITE / mean.max(1)).clamp(FEWEST, BATCH_SIZE);
        Ok(self.messages < asked)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("datagrams", &self.len()).finish_non_exhaustive()
    }
}
