//! A TLS stream whose exporter stays within reach while hyper has the stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bauta_masque::concealed::{EXPORTED, LABEL};
use boring::ssl::SslVersion;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_boring::SslStream;
use tokio_rustls::server;

use crate::concealed::{Export, spki_sha256};

/// What the TLS of a connection tells; nothing once that is gone.
#[derive(Debug)]
pub struct Exporter<S = server::TlsStream<TcpStream>>(Weak<Mutex<S>>);

impl<S> Exporter<S> {
    /// Of no connection.
    pub fn none() -> Self {
        Self(Weak::new())
    }
}

impl<S: Export> Export for Exporter<S> {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        let stream = self.0.upgrade()?;
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.export(context)
    }

    fn peer_spki(&mut self) -> Option<[u8; 32]> {
        let stream = self.0.upgrade()?;
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.peer_spki()
    }
}

impl Export for server::TlsStream<TcpStream> {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        let tls = self.get_ref().1;
        if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        tls.export_keying_material([0; EXPORTED], LABEL.as_bytes(), Some(context)).ok()
    }

    fn peer_spki(&mut self) -> Option<[u8; 32]> {
        spki_sha256(self.get_ref().1.peer_certificates()?.first()?)
    }
}

impl Export for SslStream<TcpStream> {
    fn export(&mut self, context: &[u8]) -> Option<[u8; EXPORTED]> {
        if self.ssl().version2() != Some(SslVersion::TLS1_3) {
            return None;
        }
        let mut out = [0; EXPORTED];
        self.ssl().export_keying_material(&mut out, LABEL, Some(context)).ok()?;
        Some(out)
    }
}

impl<S> Clone for Exporter<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> PartialEq for Exporter<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl<S> Eq for Exporter<S> {}

/// The stream. Only the thread of its connection takes the lock, so that it is always free.
pub(super) struct Shared<S>(Arc<Mutex<S>>);

impl<S> Shared<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    pub(super) fn exporter(&self) -> Exporter<S> {
        Exporter(Arc::downgrade(&self.0))
    }

    /// The same stream for one more holder.
    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// The stream itself, if nobody else holds it any more.
    pub(super) fn into_inner(self) -> Option<S> {
        let stream = Arc::try_unwrap(self.0).ok()?;
        Some(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn stream(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shared<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shared<S> {
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
