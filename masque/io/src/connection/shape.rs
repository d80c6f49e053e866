//! Sizes of packets that are a browser's: fillers among the datagrams of a connection.

use bauta_masque::datagram;
use bauta_masque::shape::{FILLER_CONTEXT, Shape, Shaper};
use bauta_masque::varint;

use super::Connection;
use crate::buffers::DatagramBuf;
use crate::cid;

/// A connection's shaper, and the stream that fillers are said to belong to.
pub(super) struct Shaped {
    shaper: Shaper,
    stream: u64,
}

impl Connection {
    /// Gives what is sent from now on a shape, and keeps back what no browser sends.
    pub(crate) fn shape(&mut self, shape: Shape) {
        let mut seed = [0; 8];
        cid::random(&mut seed);
        let shaper = Shaper::new(shape, u64::from_le_bytes(seed));
        self.shaped = shaper.map(|shaper| Box::new(Shaped { shaper, stream: 0 }));
        self.reserved = self.shaped.is_some();
    }

    /// A datagram of `len` bytes is about to be queued for `stream`.
    #[inline]
    pub(super) fn shape_datagram(&mut self, stream: u64, len: usize) {
        let Some(shaped) = &mut self.shaped else { return };
        shaped.stream = stream;
        if let Some(len) = shaped.shaper.push(len, self.path_mtu) {
            self.fill(stream, len);
        }
    }

    /// What is queued leaves now.
    #[inline]
    pub(crate) fn shape_packets(&mut self) {
        let Some(shaped) = &mut self.shaped else { return };
        let (filler, stream) = (shaped.shaper.end(self.path_mtu), shaped.stream);
        if shaped.shaper.is_done() {
            self.shaped = None;
        }
        if let Some(len) = filler {
            self.fill(stream, len);
        }
    }

    /// Queues a datagram of `len` bytes in all that the peer drops.
    fn fill(&mut self, stream: u64, len: usize) {
        let mut prefix = [0; 16];
        let mut at = varint::write(datagram::quarter_stream_id(stream), &mut prefix);
        at += varint::write(FILLER_CONTEXT, &mut prefix[at..]);
        let mut filler = DatagramBuf::take();
        filler.extend(&prefix[..at]);
        filler.grow(len.saturating_sub(at)).fill(0);
        // One that does not fit into the queue is not missed.
        let _ = self.quic.dgram_send_buf(filler);
    }
}
