//! The built-in site: a small workshop's, complete and light.

use super::{
    Store,
    kept::Notes,
    open::{About, Open},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::{
    future::{Ready, ready},
    io,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};
use tower_http::services::fs::Backend;

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

fn find(path: &Path) -> Option<(About, &'static [u8])> {
    let names = path.components().filter(|part| !matches!(part, Component::CurDir));
    let path: PathBuf = names.collect();
    let about = |folder, length, edited| {
        let edited = SystemTime::UNIX_EPOCH + Duration::from_secs(edited);
        About { folder, length, edited }
    };
    if let Some(file) = FILES.iter().find(|file| path == Path::new(file.name)) {
        return Some((about(false, file.octets.len() as u64, file.edited), file.octets));
    }
    let folder = FILES.iter().any(|file| Path::new(file.name).starts_with(&path));
    folder.then_some((about(true, 0, EDITED), &[]))
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
        let open = file.map(|(about, octets)| Open::memory(about, Bytes::from_static(octets)));
        ready(open.ok_or_else(missing))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        ready(find(&path).map(|(about, _)| about).ok_or_else(missing))
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
/// Kinds of files that may be kept for a day; pages are asked for anew.
const KEPT: [&str; 4] = [".css", ".js", ".svg", ".webp"];

impl Store for Sample {
    /// Nothing of it ever changes.
    fn noting(&self, _: Notes) -> Self {
        *self
    }

    fn dress(path: &str, headers: &mut HeaderMap) {
        headers.extend(HEADERS.map(|(name, value)| (Some(name), value)));
        let keep = KEPT.iter().any(|kind| path.ends_with(kind));
        let cache = if keep { "public, max-age=86400" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    }
}
