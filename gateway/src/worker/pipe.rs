//! Between a stream of the worker's and a task beside it, both ways with back-pressure.
//!
//! The task may be slow, and so may the peer. Towards the task a bounded queue holds a few pieces;
//! while it is full the worker leaves the rest to QUIC's flow control. From the task, one piece is
//! under way at a time, and a gate stays shut while the stream has enough queued.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque_io::Carrier;
use bauta_masque_io::connection::HIGH_WATER;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::{Key, Told, What};
use crate::router::Examined;

/// Pieces that wait for a task at most.
const PIECES: usize = 8;

/// Bytes of a piece at most.
pub(crate) const PIECE: usize = 16 * 1024;

/// A task that ends when its owner does.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    /// Starts it on the worker's thread.
    pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The worker's end.
pub(crate) struct Pipe {
    inbox: Option<mpsc::Sender<Bytes>>,
    gate: Rc<Gate>,
    /// Whether the request's credentials were looked at.
    pub(crate) examined: Examined,
    _task: Task,
}

/// What a task is given: its end.
pub(crate) struct Ends {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

impl Pipe {
    /// Starts `task` with its ends; `ended`: nothing will come in.
    pub(crate) fn start<F>(key: Key, told: &Told, ended: bool, task: impl FnOnce(Ends) -> F) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let (sender, receiver) = mpsc::channel(PIECES);
        let gate = Rc::new(Gate::default());
        let inbox = Inbox { receiver, hungry: told.hungry.clone(), key };
        let outbox = Outbox { key, told: told.what.clone(), gate: gate.clone() };
        let inbox_sender = (!ended).then_some(sender);
        let task = Task::spawn(task(Ends { inbox, outbox }));
        Self { inbox: inbox_sender, gate, examined: Examined::Yes, _task: task }
    }

    /// Moves what the peer sent to the task, as far as that has room.
    pub(crate) fn pull(
        &mut self,
        conn: &mut (impl Carrier + ?Sized),
        stream: u64,
        scratch: &mut [u8],
    ) {
        let Some(inbox) = &self.inbox else { return };
        loop {
            match inbox.try_reserve() {
                Ok(permit) => match conn.recv_body(stream, scratch) {
                    0 => return,
                    n => permit.send(Bytes::copy_from_slice(&scratch[..n])),
                },
                Err(mpsc::error::TrySendError::Full(())) => return,
                Err(mpsc::error::TrySendError::Closed(())) => break,
            }
        }
        // The task reads no further.
        self.inbox = None;
        conn.stop(stream, H3_NO_ERROR);
    }

    /// The peer sent everything.
    pub(crate) fn finish(&mut self) {
        self.inbox = None;
    }

    /// Whether the peer has more to send that somebody would read.
    pub(crate) fn is_receiving(&self) -> bool {
        self.inbox.is_some()
    }

    /// Sends a piece of the task's, and lets the next one come if there is room.
    pub(crate) fn send(&self, conn: &mut (impl Carrier + ?Sized), stream: u64, piece: Bytes) {
        if conn.send_body(stream, piece, false) <= HIGH_WATER {
            self.gate.open();
        }
    }

    /// There is room again.
    pub(crate) fn writable(&self) {
        self.gate.open();
    }
}

#[derive(Default)]
struct Gate {
    shut: Cell<bool>,
    opened: Notify,
}

impl Gate {
    fn open(&self) {
        self.shut.set(false);
        self.opened.notify_one();
    }

    async fn pass(&self) {
        while self.shut.get() {
            self.opened.notified().await;
        }
        self.shut.set(true);
    }
}

/// What the peer sends, for a task; also a request body.
pub(crate) struct Inbox {
    receiver: mpsc::Receiver<Bytes>,
    hungry: mpsc::UnboundedSender<Key>,
    key: Key,
}

impl Inbox {
    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let piece = self.receiver.recv().await;
        self.ask(piece)
    }

    fn ask(&self, piece: Option<Bytes>) -> Option<Bytes> {
        if piece.is_some() {
            let _ = self.hungry.send(self.key);
        }
        piece
    }
}

impl Body for Inbox {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = std::task::ready!(self.receiver.poll_recv(cx));
        Poll::Ready(self.ask(piece).map(|piece| Ok(Frame::data(piece))))
    }
}

/// What a task sends to the peer.
pub(crate) struct Outbox {
    key: Key,
    told: mpsc::UnboundedSender<(Key, What)>,
    gate: Rc<Gate>,
}

impl Outbox {
    /// Tells the worker something that takes no room.
    pub(crate) fn tell(&self, what: What) {
        let _ = self.told.send((self.key, what));
    }

    /// Sends a piece; waits first until the one before has found room.
    pub(crate) async fn send(&self, piece: Bytes) {
        self.gate.pass().await;
        self.tell(What::Body(piece));
    }
}
