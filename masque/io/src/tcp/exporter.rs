//! A TLS stream whose exporter stays within reach while hyper has the stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bauta_masque::concealed::{EXPORTED, LABEL};
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::concealed::Export;

/// The TLS exporter of a connection; nothing once that is gone.
#[derive(Clone, Debug)]
pub struct Exporter(Weak<Mutex<TlsStream<TcpStream>>>);

impl Exporter {
    /// Of no connection.
    pub fn none() -> Self {
        Self(Weak::new())
    }
}

impl Export for Exporter {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        let stream = self.0.upgrade()?;
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = stream.get_ref().1;
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        tls.export_keying_material([0; EXPORTED], LABEL.as_bytes(), Some(context)).ok()
    }
}

impl PartialEq for Exporter {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for Exporter {}

/// The stream. Only the thread of its connection takes the lock, so that it is always free.
pub(super) struct Shared(Arc<Mutex<TlsStream<TcpStream>>>);

impl Shared {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    pub(super) fn exporter(&self) -> Exporter {
        Exporter(Arc::downgrade(&self.0))
    }

    fn stream(&self) -> MutexGuard<'_, TlsStream<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}
