//! A TCP flow: what the local program reads and writes, and what the actor moves.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bauta_masque_io::tcp::client::TunnelStream;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flows::{Key, Signal};

/// Bytes that wait in either direction before the writer has to.
const CAPACITY: usize = 256 * 1024;

/// Both directions of one flow.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    up: VecDeque<Bytes>,
    up_len: usize,
    up_ended: bool,
    writer: Option<Waker>,
    down: BytesMut,
    down_ended: bool,
    reader: Option<Waker>,
    /// The actor left bytes in QUIC because `down` was full.
    starved: bool,
    failed: Option<io::ErrorKind>,
    dropped: bool,
}

impl Pipe {
    /// What goes to the gateway next, and whether it is the last.
    pub(super) fn take_up(&mut self) -> Option<(Bytes, bool)> {
        let next = self.up.pop_front();
        if let Some(bytes) = &next {
            self.up_len -= bytes.len();
            wake(&mut self.writer);
        }
        let last = self.up_ended && self.up.is_empty();
        match next {
            Some(bytes) => Some((bytes, last)),
            None if last => Some((Bytes::new(), true)),
            None => None,
        }
    }

    /// Room for what comes from the gateway; without any the reader will ask again.
    pub(super) fn room(&mut self) -> usize {
        let room = CAPACITY.saturating_sub(self.down.len());
        self.starved = room == 0;
        room
    }

    /// Bytes from the gateway.
    pub(super) fn push_down(&mut self, bytes: &[u8]) {
        self.down.extend_from_slice(bytes);
        wake(&mut self.reader);
    }

    /// The target has ended its side.
    pub(super) fn end_down(&mut self) {
        self.down_ended = true;
        wake(&mut self.reader);
    }

    /// The flow is broken.
    pub(super) fn fail(&mut self, why: io::ErrorKind) {
        self.failed.get_or_insert(why);
        self.up.clear();
        self.up_len = 0;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// The target takes no more.
    pub(super) fn stop_up(&mut self) {
        self.up_ended = true;
        self.up.clear();
        self.up_len = 0;
        wake(&mut self.writer);
    }

    /// The local program is gone.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped
    }

    /// The target's side has ended.
    pub(super) fn is_down_ended(&self) -> bool {
        self.down_ended
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A TCP connection made by the gateway.
pub struct TcpFlow(Way);

enum Way {
    Quic(Piped),
    Tcp(Box<TunnelStream>),
}

impl TcpFlow {
    pub(super) fn new(signal: Rc<Signal>, key: Key) -> (TcpFlow, Rc<RefCell<Pipe>>) {
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        (TcpFlow(Way::Quic(Piped { pipe: pipe.clone(), signal, key })), pipe)
    }

    /// The gateway's stream is the flow's.
    pub(super) fn over_tcp(stream: TunnelStream) -> TcpFlow {
        TcpFlow(Way::Tcp(Box::new(stream)))
    }
}

impl AsyncRead for TcpFlow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Quic(piped) => Pin::new(piped).poll_read(cx, out),
            Way::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for TcpFlow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Way::Quic(piped) => Pin::new(piped).poll_write(cx, bytes),
            Way::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Quic(piped) => Pin::new(piped).poll_flush(cx),
            Way::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Way::Quic(piped) => Pin::new(piped).poll_shutdown(cx),
            Way::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The local program's end of a pipe to the actor.
#[derive(Debug)]
struct Piped {
    pipe: Rc<RefCell<Pipe>>,
    signal: Rc<Signal>,
    key: Key,
}

impl AsyncRead for Piped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        if !pipe.down.is_empty() {
            let n = pipe.down.len().min(out.remaining());
            out.put_slice(&pipe.down[..n]);
            pipe.down.advance(n);
            if pipe.starved && pipe.down.len() <= CAPACITY / 2 {
                pipe.starved = false;
                self.signal.raise(self.key);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(why) = pipe.failed {
            return Poll::Ready(Err(why.into()));
        }
        if pipe.down_ended {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Piped {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.pipe.borrow_mut();
        if let Some(why) = pipe.failed {
            return Poll::Ready(Err(why.into()));
        }
        if pipe.up_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(CAPACITY.saturating_sub(pipe.up_len));
        if n == 0 && !bytes.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.up.push_back(Bytes::copy_from_slice(&bytes[..n]));
        pipe.up_len += n;
        self.signal.raise(self.key);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe.borrow_mut();
        if !pipe.up_ended {
            pipe.up_ended = true;
            self.signal.raise(self.key);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.pipe.borrow_mut().dropped = true;
        self.signal.raise(self.key);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn bytes_go_both_ways_and_ends_are_seen() {
        run(async {
            let signal = Rc::new(Signal::default());
            let (mut flow, pipe) = TcpFlow::new(signal.clone(), (0, 0));
            flow.write_all(b"up").await.unwrap();
            flow.shutdown().await.unwrap();
            assert_eq!(signal.take(), [(0, 0)]);
            assert_eq!(pipe.borrow_mut().take_up(), Some((Bytes::from_static(b"up"), true)));
            pipe.borrow_mut().push_down(b"down");
            pipe.borrow_mut().end_down();
            let mut read = Vec::new();
            flow.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, b"down");
            drop(flow);
            assert!(pipe.borrow().is_dropped());
        });
    }

    #[test]
    fn a_slow_reader_is_not_fed_and_asks_again() {
        run(async {
            let signal = Rc::new(Signal::default());
            let (mut flow, pipe) = TcpFlow::new(signal.clone(), (0, 4));
            let room = pipe.borrow_mut().room();
            pipe.borrow_mut().push_down(&vec![0; room]);
            assert_eq!(pipe.borrow_mut().room(), 0);
            let mut half = vec![0; CAPACITY / 2];
            flow.read_exact(&mut half).await.unwrap();
            assert_eq!(signal.take(), [(0, 4)]);
            assert_eq!(pipe.borrow_mut().room(), CAPACITY / 2);
        });
    }

    #[test]
    fn a_fast_writer_waits() {
        run(async {
            let (mut flow, pipe) = TcpFlow::new(Rc::default(), (0, 0));
            flow.write_all(&vec![0; CAPACITY]).await.unwrap();
            let blocked =
                tokio::select! { biased; _ = flow.write_all(b"x") => false, () = async {} => true };
            assert!(blocked);
            pipe.borrow_mut().take_up().unwrap();
            flow.write_all(b"x").await.unwrap();
        });
    }

    #[test]
    fn a_lost_connection_is_an_error_on_both_sides() {
        run(async {
            let (mut flow, pipe) = TcpFlow::new(Rc::default(), (0, 0));
            pipe.borrow_mut().fail(io::ErrorKind::ConnectionReset);
            assert_eq!(flow.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(
                flow.write_all(b"x").await.unwrap_err().kind(),
                io::ErrorKind::ConnectionReset
            );
        });
    }
}
