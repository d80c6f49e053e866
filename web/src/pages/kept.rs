//! Answers kept in memory, for as long as the files that they were made from are what they were.
//!
//! What an answer depended on is noted while it is made: each place that was looked at, and what was
//! found there or that nothing was. Before it is given again, all of that is looked at again, so that
//! a change is seen by the next request. Where looking would have to wait for a disk, the answer is
//! made anew instead, away from here.

#[cfg(test)]
mod tests;

use super::at_hand;
use crate::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};
use tokio::time::Instant;

/// Places of answers that are kept or watched at most; above it all are forgotten.
const PLACES: usize = 1024;
/// Octets of all bodies kept at most; above it all are forgotten.
const OCTETS: usize = 8 * 1024 * 1024;
/// Answers of one place at most, by what encodings were accepted.
const VARIANTS: usize = 4;
/// Octets of a path or an `Accept-Encoding` that is kept at most.
const NAME: usize = 256;
/// Files have to be the same for so long before an answer is kept. The clock that stamps changes may
/// tick as seldom as every 10 ms: two changes within a tick would look like one.
const SETTLED: Duration = Duration::from_millis(100);
/// An answer is made anew after this time, whatever its files look like: not every file system tells
/// every change.
const LIFETIME: Duration = Duration::from_secs(1);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    length: u64,
    edited: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            edited: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A place that was looked at, and what was there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Visit {
    path: PathBuf,
    found: Option<Stamp>,
}

impl Visit {
    fn holds(&self) -> bool {
        let found = at_hand::metadata(&self.path);
        found.is_some_and(|found| found.as_ref().map(Stamp::of) == self.found)
    }
}

/// What was looked at for an answer; shared by those who look and the one who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Draft>>);

#[derive(Debug, Default)]
struct Draft {
    visits: Vec<Visit>,
    spoilt: bool,
    long: bool,
}

impl Notes {
    /// Something, or nothing, was found at `path`.
    pub(super) fn saw(&self, path: PathBuf, found: Option<&fs::Metadata>) {
        let visit = Visit { path, found: found.map(Stamp::of) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).visits.push(visit);
    }

    /// The answer is not to be kept.
    pub(super) fn spoil(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spoilt = true;
    }

    /// The answer may be too long to be held whole.
    pub(super) fn stream(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).long = true;
    }

    fn take(self) -> Draft {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What of a request's header selects among the answers of a place that are kept: the accepted
/// encodings. `None`: this request's answer is not kept.
pub(super) fn variant(asked: &HeaderMap, selecting: &[header::HeaderName]) -> Option<Variant> {
    let other =
        |name: &&header::HeaderName| **name != header::ACCEPT_ENCODING && asked.contains_key(*name);
    if selecting.iter().any(|name| other(&name)) {
        return None;
    }
    let mut encodings = asked.get_all(header::ACCEPT_ENCODING).iter();
    let first = encodings.next();
    let plain = encodings.next().is_none() && first.is_none_or(|value| value.len() <= NAME);
    plain.then(|| Variant(first.cloned()))
}

/// See [`variant`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant(Option<HeaderValue>);

struct Entry {
    variant: Variant,
    visits: Vec<Visit>,
    /// Since when the files are known to be so.
    since: Instant,
    answer: Option<Answer>,
}

struct Answer {
    made: Instant,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Shelf {
    places: HashMap<Box<str>, Vec<Arc<Entry>>>,
    octets: usize,
}

/// The answers of a site that are kept; all of them are 200.
#[derive(Default)]
pub(super) struct Kept(RwLock<Shelf>);

impl Kept {
    /// The answer for a path, if it is kept and still right.
    pub(super) fn find(&self, path: &str, variant: &Variant) -> Option<Response<Body>> {
        let entry = self.entry(path, variant)?;
        let answer = entry.answer.as_ref()?;
        if Instant::now() >= answer.made + LIFETIME || !entry.visits.iter().all(Visit::holds) {
            return None;
        }
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.headers_mut() = answer.headers.clone();
        Some(response)
    }

    /// Keeps an answer whose files have settled; watches them if they have not. One of files that
    /// are read at once is given whole, kept or not, so that it says the same of its length each time.
    pub(super) async fn keep(
        &self,
        path: &str,
        variant: Variant,
        notes: Notes,
        response: Response<Body>,
    ) -> Result<Response<Body>, axum::Error> {
        let Draft { visits, spoilt, long } = notes.take();
        if long {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, OCTETS).await?;
        parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        if !spoilt && path.len() <= NAME {
            let now = Instant::now();
            let same = self.entry(path, &variant).filter(|entry| entry.visits == visits);
            let since = same.as_ref().map_or(now, |entry| entry.since);
            let settled = since + SETTLED <= now;
            if settled || same.is_none() {
                let answer =
                    Answer { made: now, headers: parts.headers.clone(), body: body.clone() };
                let answer = settled.then_some(answer);
                self.put(path, Entry { variant, visits, since, answer });
            }
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    fn entry(&self, path: &str, variant: &Variant) -> Option<Arc<Entry>> {
        let shelf = self.read();
        shelf.places.get(path)?.iter().find(|entry| entry.variant == *variant).cloned()
    }

    fn put(&self, path: &str, entry: Entry) {
        let length = |entry: &Entry| entry.answer.as_ref().map_or(0, |answer| answer.body.len());
        let shelf = &mut *self.write();
        if shelf.places.len() >= PLACES || shelf.octets + length(&entry) > OCTETS {
            *shelf = Shelf::default();
        }
        shelf.octets += length(&entry);
        let place = shelf.places.entry(path.into()).or_default();
        let old = place.iter().position(|old| old.variant == entry.variant);
        if let Some(old) = old.or_else(|| (place.len() >= VARIANTS).then_some(0)) {
            shelf.octets -= length(&place.swap_remove(old));
        }
        place.push(Arc::new(entry));
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
