//! Files of a folder, and nothing outside it.

use super::{
    Store, at_hand,
    kept::Notes,
    open::{About, Open},
};
use crate::SiteError;
use std::{
    fs,
    future::ready,
    io,
    io::Read,
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::SystemTime,
};
use tower_http::services::fs::Backend;

/// The one hidden name that is public by its purpose (RFC 8615).
const WELL_KNOWN: &str = ".well-known";
/// Files up to this length, in octets, are read when they are opened, in one visit to the disk.
const AT_ONCE: u64 = 64 * 1024;

/// A folder. Hidden names, special files and symbolic links that lead out of it do not exist.
///
/// The folder is looked up anew with each request: it may be a link that a deployment moves.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    root: Arc<Path>,
    notes: Option<Notes>,
}

/// Something made of what is at a place, and what the place itself tells.
type Found<T> = io::Result<(T, fs::Metadata)>;
type Answer<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self, SiteError> {
        match fs::read_dir(path) {
            Ok(_) => Ok(Self { root: path.into(), notes: None }),
            Err(error) => Err(SiteError::Folder { path: path.to_owned(), error }),
        }
    }

    /// Answers at once what the kernel has at hand, and visits the disk for the rest where waiting
    /// for it holds up nobody.
    fn visit<T: Send + 'static>(
        &self,
        path: &Path,
        quick: fn(&Path, &Path) -> Option<Found<T>>,
        look: fn(&Path, &Path) -> Found<T>,
    ) -> Answer<T> {
        let path = match relative(path) {
            Ok(path) => path,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        if let Some(found) = quick(&self.root, &path) {
            if let Some(notes) = &self.notes {
                note(notes, self.root.join(path), found.as_ref().ok().map(|(_, at)| at));
            }
            return Box::pin(ready(found.map(|(found, _)| found)));
        }
        let (root, notes) = (self.root.clone(), self.notes.clone());
        Box::pin(async move {
            let place = root.join(&path);
            let found = tokio::task::spawn_blocking(move || look(&root, &path)).await?;
            if let Some(notes) = &notes {
                match &found {
                    Ok((_, metadata)) => note(notes, place, Some(metadata)),
                    // What does not exist here may well be there: a link that leads out.
                    Err(_) => notes.spoil(),
                }
            }
            found.map(|(found, _)| found).map_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(%error, "a file of the site cannot be read");
                }
                // Too long, a loop, forbidden, not a folder: to a reader of the site all the same.
                io::ErrorKind::NotFound.into()
            })
        })
    }
}

/// Notes what was found; a file that is not read at once is streamed.
fn note(notes: &Notes, place: PathBuf, found: Option<&fs::Metadata>) {
    match found {
        Some(metadata) if metadata.is_file() && metadata.len() > AT_ONCE => notes.stream(),
        found => notes.saw(place, found),
    }
}

/// The path inside the root; hidden names do not exist.
fn relative(path: &Path) -> io::Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name)
                if name == WELL_KNOWN || !name.as_encoded_bytes().starts_with(b".") =>
            {
                relative.push(name);
            }
            _ => return Err(io::ErrorKind::NotFound.into()),
        }
    }
    Ok(relative)
}

/// The true place of a file or folder inside the root.
fn resolve(root: &Path, relative: &Path) -> Found<PathBuf> {
    let root = root.canonicalize()?;
    let place = root.join(relative).canonicalize()?;
    let metadata = place.metadata()?;
    // Opening a FIFO would wait for its writer.
    if is_ordinary(&metadata) && place.starts_with(&root) {
        Ok((place, metadata))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn look(root: &Path, relative: &Path) -> Found<About> {
    let (_, metadata) = resolve(root, relative)?;
    Ok((about(&metadata), metadata))
}

fn open(root: &Path, relative: &Path) -> Found<Open> {
    let (place, found) = resolve(root, relative)?;
    if found.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut file = fs::File::open(place)?;
    // What was opened, even if the name has another file since.
    let metadata = file.metadata()?;
    let about = about(&metadata);
    if about.length > AT_ONCE {
        return Ok((Open::file(about, file), metadata));
    }
    let mut octets = Vec::new();
    file.by_ref().take(AT_ONCE).read_to_end(&mut octets)?;
    Ok((whole(about, octets), metadata))
}

/// As [`look`] and [`open`], without waiting; `None` where that takes waiting.
mod quick {
    use super::{AT_ONCE, About, Found, Open, Path, about, at_hand, is_ordinary, whole};

    pub(super) fn look(root: &Path, relative: &Path) -> Option<Found<About>> {
        let metadata = match at_hand::look(root, relative)? {
            Ok(file) => file.metadata().ok()?,
            Err(error) => return Some(Err(error)),
        };
        is_ordinary(&metadata).then(|| Ok((about(&metadata), metadata)))
    }

    pub(super) fn open(root: &Path, relative: &Path) -> Option<Found<Open>> {
        let file = match at_hand::open(root, relative)? {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let about = about(&metadata);
        if about.length > AT_ONCE {
            return Some(Ok((Open::file(about, file), metadata)));
        }
        let octets = at_hand::read(&file, usize::try_from(about.length).ok()?)?;
        Some(Ok((whole(about, octets), metadata)))
    }
}

/// A file that was read already; its length is what was found in it.
fn whole(about: About, octets: Vec<u8>) -> Open {
    Open::memory(About { length: octets.len() as u64, ..about }, octets.into())
}

fn is_ordinary(metadata: &fs::Metadata) -> bool {
    metadata.is_file() || metadata.is_dir()
}

fn about(metadata: &fs::Metadata) -> About {
    let edited = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    About { folder: metadata.is_dir(), length: metadata.len(), edited }
}

impl Backend for Folder {
    type File = Open;
    type Metadata = About;
    type OpenFuture = Answer<Open>;
    type MetadataFuture = Answer<About>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        self.visit(&path, quick::open, open)
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        self.visit(&path, quick::look, look)
    }
}

impl Store for Folder {
    fn noting(&self, notes: Notes) -> Self {
        Self { root: self.root.clone(), notes: Some(notes) }
    }
}
