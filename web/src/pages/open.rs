//! An opened file, wherever it came from.

use bytes::Bytes;
use std::{
    future::{Ready, ready},
    io::{self, Cursor, SeekFrom},
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{File, Metadata};

/// What there is to know of a file or a folder before it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(super) folder: bool,
    /// In octets.
    pub(super) length: u64,
    pub(super) edited: SystemTime,
}

impl Metadata for About {
    fn is_dir(&self) -> bool {
        self.folder
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(self.edited)
    }

    fn len(&self) -> u64 {
        self.length
    }
}

/// A file to read from.
pub(crate) struct Open {
    about: About,
    content: Box<dyn Content>,
}

trait Content: AsyncRead + AsyncSeek + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncSeek + Send + Sync + Unpin> Content for T {}

impl Open {
    /// A file whose octets are at hand.
    pub(super) fn memory(about: About, octets: Bytes) -> Self {
        Self { about, content: Box::new(Cursor::new(octets)) }
    }

    /// A file that is read piece by piece.
    pub(super) fn file(about: About, file: std::fs::File) -> Self {
        Self { about, content: Box::new(tokio::fs::File::from_std(file)) }
    }
}

impl File for Open {
    type Metadata = About;
    type MetadataFuture<'a> = Ready<io::Result<About>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        ready(Ok(self.about))
    }
}

impl AsyncRead for Open {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.content).poll_read(cx, buffer)
    }
}

impl AsyncSeek for Open {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.content).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.content).poll_complete(cx)
    }
}
