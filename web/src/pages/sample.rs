//! The built-in site: a small workshop's, complete and light.

use super::Store;
use crate::Body;
use http::{HeaderName, HeaderValue, Response, header};
use std::{
    future::{Ready, ready},
    io::{self, Cursor, SeekFrom},
    path::{Component, Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{Backend, File, Metadata};

/// Lists the files under `web/site`, each with its octets.
macro_rules! files {
    ($($name:literal)*) => {
        &[$(Asset::new($name, include_bytes!(concat!("../../site/", $name)))),*]
    };
}

static FILES: &[Asset] = files! {
    "404.html"
    "books/index.html"
    "courses/index.html"
    "favicon.svg"
    "hours.js"
    "index.html"
    "map.svg"
    "papers/gelso.webp"
    "papers/index.html"
    "papers/laguna.webp"
    "papers/notte.webp"
    "papers/onda.webp"
    "papers/pavone.webp"
    "papers/sasso.webp"
    "robots.txt"
    "style.css"
    "visit/index.html"
    "workshop/index.html"
};

/// The day the site was last edited, in seconds since 1970: 11 March 2025. Each file was saved at
/// a moment of that day which depends on its octets, so that its validators change when it does.
const EDITED: u64 = 1_741_651_200;
const DAY: u64 = 86_400;

struct Asset {
    name: &'static str,
    octets: &'static [u8],
    edited: u64,
}

impl Asset {
    const fn new(name: &'static str, octets: &'static [u8]) -> Self {
        // FNV-1a.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut at = 0;
        while at < octets.len() {
            hash = (hash ^ octets[at] as u64).wrapping_mul(0x0100_0000_01b3);
            at += 1;
        }
        Self { name, octets, edited: EDITED + hash % DAY }
    }
}

/// The store of built-in files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample;

/// A file or a folder of the sample.
#[derive(Clone, Copy)]
pub(crate) struct About {
    folder: bool,
    length: u64,
    edited: u64,
}

pub(crate) struct Open {
    about: About,
    octets: Cursor<&'static [u8]>,
}

fn find(path: &Path) -> Option<(About, &'static [u8])> {
    let names = path.components().filter(|part| !matches!(part, Component::CurDir));
    let path: PathBuf = names.collect();
    if let Some(file) = FILES.iter().find(|file| path == Path::new(file.name)) {
        let length = file.octets.len() as u64;
        return Some((About { folder: false, length, edited: file.edited }, file.octets));
    }
    let folder = FILES.iter().any(|file| Path::new(file.name).starts_with(&path));
    folder.then_some((About { folder, length: 0, edited: EDITED }, &[]))
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Backend for Sample {
    type File = Open;
    type Metadata = About;
    type OpenFuture = Ready<io::Result<Open>>;
    type MetadataFuture = Ready<io::Result<About>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let file = find(&path).filter(|(about, _)| !about.folder);
        ready(
            file.map(|(about, octets)| Open { about, octets: Cursor::new(octets) })
                .ok_or_else(missing),
        )
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        ready(find(&path).map(|(about, _)| about).ok_or_else(missing))
    }
}

impl Metadata for About {
    fn is_dir(&self) -> bool {
        self.folder
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(self.edited))
    }

    fn len(&self) -> u64 {
        self.length
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
        Pin::new(&mut self.octets).poll_read(cx, buffer)
    }
}

impl AsyncSeek for Open {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.octets).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.octets).poll_complete(cx)
    }
}

/// What the site's owner configured once: nothing from elsewhere, no sniffing, no framing.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

impl Store for Sample {
    fn dress(response: &mut Response<Body>) {
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, value);
        }
    }
}
