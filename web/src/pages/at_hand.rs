//! What the kernel has in memory already, had without waiting for a disk and without another thread.
//!
//! `RESOLVE_CACHED` and `RWF_NOWAIT` fail where they would have to wait, `RESOLVE_BENEATH` where a
//! link leads out or is absolute: whatever is not plain is left to the slow way.

use std::{
    fs::{File, Metadata},
    io::{self, IoSliceMut},
    path::Path,
};

use rustix::{
    fd::OwnedFd,
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::{Errno, ReadWriteFlags, preadv2},
};

/// A place in a folder, opened with these flags; `None`: ask the slow way.
fn place(root: &Path, relative: &Path, flags: OFlags) -> Option<io::Result<OwnedFd>> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat2(CWD, root, folder, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    match openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), beneath) {
        Ok(found) => Some(Ok(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Some(Err(io::ErrorKind::NotFound.into())),
        Err(_) => None,
    }
}

/// A file or folder to look at.
pub(super) fn look(root: &Path, relative: &Path) -> Option<io::Result<File>> {
    place(root, relative, OFlags::PATH).map(|found| found.map(File::from))
}

/// A file to read. Opening a FIFO does not wait for its writer.
pub(super) fn open(root: &Path, relative: &Path) -> Option<io::Result<File>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    place(root, relative, flags).map(|found| found.map(File::from))
}

/// What is at a path, links followed; `Some(None)`: nothing.
pub(super) fn metadata(path: &Path) -> Option<Option<Metadata>> {
    let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
    match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(found) => Some(Some(File::from(found).metadata().ok()?)),
        Err(Errno::NOENT | Errno::NOTDIR) => Some(None),
        Err(_) => None,
    }
}

/// The first octets of a file, as many as there are up to `length`, if all of them are in memory.
pub(super) fn read(file: &File, length: usize) -> Option<Vec<u8>> {
    let mut octets = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let rest = &mut [IoSliceMut::new(&mut octets[filled..])];
        match preadv2(file, rest, filled as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    octets.truncate(filled);
    Some(octets)
}
