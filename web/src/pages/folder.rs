//! Files of a folder, and nothing outside it.

use super::Store;
use crate::SiteError;
use std::{
    fs::Metadata,
    io,
    path::{Component, Path, PathBuf},
    pin::Pin,
    sync::Arc,
};
use tower_http::services::fs::{Backend, TokioBackend, TokioFile};

/// The one hidden name that is public by its purpose (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// A folder. Hidden names, special files and symbolic links that lead out of it do not exist.
///
/// The folder is looked up anew with each request: it may be a link that a deployment moves.
#[derive(Clone, Debug)]
pub(crate) struct Folder(Arc<Path>);

type Answer<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Folder {
    pub(crate) fn new(path: &Path) -> Result<Self, SiteError> {
        match std::fs::read_dir(path) {
            Ok(_) => Ok(Self(path.into())),
            Err(error) => Err(SiteError::Folder { path: path.to_owned(), error }),
        }
    }

    /// The true place of a file or folder inside.
    async fn resolve(&self, path: PathBuf) -> io::Result<(PathBuf, Metadata)> {
        let root = self.0.clone();
        let found = tokio::task::spawn_blocking(move || resolve(&root, &path)).await?;
        found.map_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(%error, "a file of the site cannot be read");
            }
            // Too long, a loop, forbidden, not a folder: to a reader of the site all the same.
            io::ErrorKind::NotFound.into()
        })
    }
}

fn resolve(root: &Path, path: &Path) -> io::Result<(PathBuf, Metadata)> {
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
        Ok((place, metadata))
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Backend for Folder {
    type File = TokioFile;
    type Metadata = Metadata;
    type OpenFuture = Answer<TokioFile>;
    type MetadataFuture = Answer<Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let folder = self.clone();
        Box::pin(async move {
            let (place, metadata) = folder.resolve(path).await?;
            if metadata.is_dir() {
                return Err(io::ErrorKind::NotFound.into());
            }
            TokioBackend.open(place).await
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let folder = self.clone();
        Box::pin(async move { Ok(folder.resolve(path).await?.1) })
    }
}

impl Store for Folder {}
