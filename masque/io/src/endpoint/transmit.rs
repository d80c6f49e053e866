//! From the connections to the socket: packets of one size leave as one GSO train.

use std::io;
use std::net::SocketAddr;

use tracing::{debug, trace};

use crate::connection::Connection;
use crate::tls::browser;
use crate::udp::{Transmit, UdpSocket, is_too_big};

/// The most a single sendmsg may carry: the largest UDP payload there is, in bytes.
const MAX_TRAIN: usize = 65_000;
/// Room for one packet, bytes: above every path MTU we probe for.
const MAX_PACKET: usize = 2048;
/// INTERNAL_ERROR (RFC 9000 section 20.1).
const INTERNAL_ERROR: u64 = 0x01;

/// A run of equally sized packets to one address; the last may be shorter.
pub(super) struct Train {
    buf: Box<[u8]>,
    len: usize,
    segment: usize,
    count: usize,
    max_segments: usize,
    dst: SocketAddr,
    src: Option<SocketAddr>,
    blocked: bool,
}

impl Train {
    pub(super) fn new(max_segments: usize) -> Self {
        Self {
            buf: vec![0; MAX_TRAIN + MAX_PACKET].into_boxed_slice(),
            len: 0,
            segment: 0,
            count: 0,
            max_segments,
            dst: SocketAddr::from(([0, 0, 0, 0], 0)),
            src: None,
            blocked: false,
        }
    }

    /// Whether the socket has refused a train that still waits.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Tries the waiting train again; whether it is gone now.
    pub(super) fn resume(&mut self, socket: &UdpSocket) -> bool {
        self.blocked = false;
        self.depart(socket)
    }

    /// Sends all that a connection has to send; false when the socket takes no more.
    pub(super) fn send_all(
        &mut self,
        conn: &mut Connection,
        socket: &UdpSocket,
        from_fixed: bool,
    ) -> bool {
        loop {
            if !conn.may_write() {
                return self.depart(socket);
            }
            let room = conn.packet_limit().min(MAX_PACKET);
            let (n, info) = match conn.quic.send(&mut self.buf[self.len..self.len + room]) {
                Ok(written) => written,
                Err(quiche::Error::Done) => return self.depart(socket),
                Err(error) => {
                    debug!(conn = conn.id, %error, "QUIC cannot send");
                    let _ = conn.quic.close(false, INTERNAL_ERROR, b"");
                    return self.depart(socket);
                }
            };
            let n = if from_fixed { n } else { self.pad_first(conn, n) };
            conn.hold();
            let src = from_fixed.then_some(info.from);
            let fits =
                self.count == 0 || (info.to == self.dst && src == self.src && n <= self.segment);
            if !fits {
                let start = self.len;
                if !self.depart_before(socket, start, n) {
                    return false;
                }
            }
            if self.count == 0 {
                (self.dst, self.src, self.segment) = (info.to, src, n);
            }
            self.len += n;
            self.count += 1;
            let ended = n < self.segment
                || self.count == self.max_segments
                || self.len + self.segment > MAX_TRAIN;
            if ended && !self.depart(socket) {
                return false;
            }
        }
    }

    /// Pads the first datagrams of a connection as browsers do. Those that repeat them have the size
    /// that every path carries.
    fn pad_first(&mut self, conn: &Connection, n: usize) -> usize {
        const INITIAL: u8 = 0xc0;
        if self.buf[self.len] & 0xf0 != INITIAL {
            return n;
        }
        let Ok(profile) = browser::chromium().map(|browser| &browser.quic) else { return n };
        let to = profile.datagram.min(MAX_PACKET);
        if n >= to || conn.quic.stats().sent > profile.datagrams {
            return n;
        }
        self.buf[self.len + n..self.len + to].fill(0);
        to
    }

    /// Sends the train up to `start`; the packet behind it becomes the first of the next one.
    fn depart_before(&mut self, socket: &UdpSocket, start: usize, n: usize) -> bool {
        self.len = start;
        let gone = self.depart(socket);
        if !gone {
            // QUIC will take the packet behind the refused train for lost.
            return false;
        }
        self.buf.copy_within(start..start + n, 0);
        true
    }

    fn depart(&mut self, socket: &UdpSocket) -> bool {
        if self.len == 0 {
            return true;
        }
        let transmit = Transmit {
            dst: self.dst,
            src: self.src.map(|s| s.ip()).filter(|ip| !ip.is_unspecified()),
            segment_size: (self.count > 1).then_some(self.segment),
            contents: &self.buf[..self.len],
        };
        match socket.try_send(&transmit) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                return false;
            }
            // A probe above the interface's MTU: quiche sees it as lost, as it should.
            Err(e) if is_too_big(&e) => {
                trace!(len = self.segment, "larger than the interface's MTU");
            }
            Err(error) => debug!(%error, "UDP send"),
        }
        (self.len, self.count, self.segment) = (0, 0, 0);
        true
    }
}
