//! Files of a folder, and nothing outside it.

use super::{
    Store, at_hand,
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
pub(crate) struct Folder(Arc<Path>);

type Answer<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self, SiteError> {
        match fs::read_dir(path) {
            Ok(_) => Ok(Self(path.into())),
            Err(error) => Err(SiteError::Folder { path: path.to_owned(), error }),
        }
    }

    /// Answers at once what the kernel has at hand, and visits the disk for the rest where waiting
    /// for it holds up nobody.
    fn visit<T: Send + 'static>(
        &self,
        path: &Path,
        quick: fn(&Path, &Path) -> Option<io::Result<T>>,
        look: fn(&Path, &Path) -> io::Result<T>,
    ) -> Answer<T> {
        let path = match relative(path) {
            Ok(path) => path,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        if let Some(found) = quick(&self.0, &path) {
            return Box::pin(ready(found));
        }
        let root = self.0.clone();
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || look(&root, &path)).await?;
            found.map_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(%error, "a file of the site cannot be read");
                }
                // Too long, a loop, forbidden, not a folder: to a reader of the site all the same.
                io::ErrorKind::NotFound.into()
            })
        })
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
fn resolve(root: &Path, relative: &Path) -> io::Result<(PathBuf, About)> {
    let root = root.canonicalize()?;
    let place = root.join(relative).canonicalize()?;
    let metadata = place.metadata()?;
    // Opening a FIFO would wait for its writer.
    if is_ordinary(&metadata) && place.starts_with(&root) {
        Ok((place, about(&metadata)))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn open(root: &Path, relative: &Path) -> io::Result<Open> {
    let (place, found) = resolve(root, relative)?;
    if found.folder {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut file = fs::File::open(place)?;
    // What was opened, even if the name has another file since.
    let about = about(&file.metadata()?);
    if about.length > AT_ONCE {
        return Ok(Open::file(about, file));
    }
    let mut octets = Vec::new();
    file.by_ref().take(AT_ONCE).read_to_end(&mut octets)?;
    Ok(whole(about, octets))
}

/// As [`resolve`] and [`open`], without waiting; `None` where that takes waiting.
mod quick {
    use super::{AT_ONCE, About, Open, Path, about, at_hand, io, is_ordinary, whole};

    pub(super) fn look(root: &Path, relative: &Path) -> Option<io::Result<About>> {
        let metadata = match at_hand::look(root, relative)? {
            Ok(file) => file.metadata().ok()?,
            Err(error) => return Some(Err(error)),
        };
        is_ordinary(&metadata).then(|| Ok(about(&metadata)))
    }

    pub(super) fn open(root: &Path, relative: &Path) -> Option<io::Result<Open>> {
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
            return Some(Ok(Open::file(about, file)));
        }
        let octets = at_hand::read(&file, usize::try_from(about.length).ok()?)?;
        Some(Ok(whole(about, octets)))
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
        self.visit(&path, quick::look, |root, path| Ok(resolve(root, path)?.1))
    }
}

impl Store for Folder {}
