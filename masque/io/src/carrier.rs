//! What a tunnel's code asks of whatever carries its stream.

use bytes::Bytes;
use quiche::h3::Header;

use crate::buffers::DatagramBuf;
use crate::concealed::Export;
use crate::connection::{Connection, DatagramError};
use crate::endpoint::ConnId;

/// One way of carrying request streams: HTTP/3, where datagrams travel beside them, or HTTP/2 and
/// HTTP/1.1, where they travel in capsules. The methods are those of [`Connection`], which
/// documents them.
#[expect(missing_docs, reason = "each is documented at Connection")]
pub trait Carrier {
    fn id(&self) -> ConnId;
    fn respond(&mut self, stream: u64, headers: Vec<Header>, fin: bool);
    fn trailers(&mut self, stream: u64, headers: Vec<Header>);
    fn send_body(&mut self, stream: u64, body: Bytes, fin: bool) -> usize;
    fn queued(&self, stream: u64) -> usize;
    fn recv_body(&mut self, stream: u64, out: &mut [u8]) -> usize;
    fn reset(&mut self, stream: u64, code: u64);
    fn stop(&mut self, stream: u64, code: u64);
    fn send_datagram(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: &[u8],
    ) -> Result<(), DatagramError>;
    fn send_buf(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: DatagramBuf,
    ) -> Result<(), DatagramError> {
        self.send_datagram(stream, context, payload.as_ref())
    }
    fn max_datagram_payload(&self, stream: u64) -> Option<usize>;
    fn path_mtu_settled(&self) -> bool;

    /// The TLS exporter, where requests are authenticated here.
    fn exporter(&mut self) -> Option<&mut dyn Export> {
        None
    }
}

impl Carrier for Connection {
    fn id(&self) -> ConnId {
        self.id()
    }

    fn respond(&mut self, stream: u64, headers: Vec<Header>, fin: bool) {
        self.respond(stream, headers, fin);
    }

    fn trailers(&mut self, stream: u64, headers: Vec<Header>) {
        self.trailers(stream, headers);
    }

    fn send_body(&mut self, stream: u64, body: Bytes, fin: bool) -> usize {
        self.send_body(stream, body, fin)
    }

    fn queued(&self, stream: u64) -> usize {
        self.queued(stream)
    }

    fn recv_body(&mut self, stream: u64, out: &mut [u8]) -> usize {
        self.recv_body(stream, out)
    }

    fn reset(&mut self, stream: u64, code: u64) {
        self.reset(stream, code);
    }

    fn stop(&mut self, stream: u64, code: u64) {
        self.stop(stream, code);
    }

    #[inline]
    fn send_datagram(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: &[u8],
    ) -> Result<(), DatagramError> {
        self.send_datagram(stream, context, payload)
    }

    #[inline]
    fn send_buf(
        &mut self,
        stream: u64,
        context: &[u8],
        payload: DatagramBuf,
    ) -> Result<(), DatagramError> {
        self.send_buf(stream, context, payload)
    }

    #[inline]
    fn max_datagram_payload(&self, stream: u64) -> Option<usize> {
        self.max_datagram_payload(stream)
    }

    fn path_mtu_settled(&self) -> bool {
        self.path_mtu_settled()
    }

    fn exporter(&mut self) -> Option<&mut dyn Export> {
        Some(self)
    }
}
