//! Files of a folder, and nothing outside it.

use super::{
    Store,
    open::{About, Open},
};
use crate::SiteError;
use std::{
    fs, io,
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

    /// Visits the disk where waiting for it holds up nobody.
    fn visit<T: Send + 'static>(
        &self,
        path: PathBuf,
        look: fn(&Path, &Path) -> io::Result<T>,
    ) -> Answer<T> {
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

/// The true place of a file or folder inside the root.
fn resolve(root: &Path, path: &Path) -> io::Result<(PathBuf, About)> {
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
    let root = root.canonicalize()?;
    let place = root.join(relative).canonicalize()?;
    let metadata = place.metadata()?;
    // Opening a FIFO would wait for its writer.
    let ordinary = metadata.is_file() || metadata.is_dir();
    if ordinary && place.starts_with(&root) {
        Ok((place, about(&metadata)))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn open(root: &Path, path: &Path) -> io::Result<Open> {
    let (place, found) = resolve(root, path)?;
    if found.folder {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut file = fs::File::open(place)?;
    // What was opened, even if the name has another file since.
    let mut about = about(&file.metadata()?);
    if about.length > AT_ONCE {
        return Ok(Open::file(about, file));
    }
    let mut octets = Vec::new();
    file.by_ref().take(AT_ONCE).read_to_end(&mut octets)?;
    about.length = octets.len() as u64;
    Ok(Open::memory(about, octets.into()))
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
        self.visit(path, open)
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        self.visit(path, |root, path| Ok(resolve(root, path)?.1))
    }
}

impl Store for Folder {}
