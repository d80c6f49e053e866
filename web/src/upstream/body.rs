//! Bodies on their way through.

use crate::Body;
use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// How many pieces of a request's body have gone to the upstream.
pub(super) struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// Has the body of a request counted.
    pub(super) fn watch(request: Request<Body>) -> (Request<Body>, Self) {
        let frames = Arc::new(AtomicUsize::new(0));
        let progress = Self(frames.clone());
        (request.map(|body| Body::new(Watched { body, frames })), progress)
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

struct Watched {
    body: Body,
    frames: Arc<AtomicUsize>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.frames.fetch_add(1, Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that fails when its next piece, waited for, does not come in time.
///
/// Time in which nobody waits, because the reader is slow, does not count against the upstream.
pub(super) struct Patient {
    body: Incoming,
    patience: Duration,
    wait: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Patient {
    pub(super) fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, wait: Box::pin(sleep(patience)), waiting: false }
    }
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        if !this.waiting {
            this.waiting = true;
            this.wait.as_mut().reset(Instant::now() + this.patience);
        }
        ready!(this.wait.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
