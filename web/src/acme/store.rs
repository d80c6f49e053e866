//! What has to outlive a restart: accounts, certificates, and what was asked for when.
//!
//! One folder, mode 0700; files of mode 0600, each replaced as a whole.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::schedule::History;
use crate::cert::{CertError, Pem};

/// The folder, and which of its files are ours.
#[derive(Clone, Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Of directory and names: another authority or other names are another certificate.
    certificate: String,
    /// Of directory and the credentials an account is bound to.
    account: String,
}

impl Store {
    pub(super) fn new(dir: &Path, directory: &str, names: &[String], bound_to: &str) -> Self {
        let mut names = names.to_vec();
        names.sort_unstable();
        Self {
            dir: dir.to_owned(),
            certificate: digest(
                &[&[directory], &names.iter().map(|n| &n[..]).collect::<Vec<_>>()[..]].concat(),
            ),
            account: digest(&[directory, bound_to]),
        }
    }

    /// Makes the folder.
    pub(super) fn prepare(&self) -> Result<(), CertError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| CertError::File { path: self.dir.clone(), error })
    }

    fn certificate_path(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.certificate))
    }

    /// The certificate there is: key first, then the chain, in one file so that both always fit.
    pub(super) fn certificate(&self) -> Result<Option<Pem>, CertError> {
        let path = self.certificate_path();
        let Some(text) = read(&path)? else { return Ok(None) };
        let problem = "holds no certificate; remove the file and a new one is fetched";
        let found = Pem::split(&text).ok_or_else(|| CertError::Malformed {
            from: path.display().to_string(),
            problem: problem.into(),
        });
        found.map(Some)
    }

    pub(super) fn put_certificate(&self, pem: &Pem) -> Result<(), CertError> {
        replace(&self.certificate_path(), &[&pem.key[..], b"\n", &pem.chain].concat())
    }

    /// What was done so far; a damaged file counts as none.
    pub(super) fn history(&self) -> History {
        let path = self.dir.join(format!("{}.json", self.certificate));
        let text = read(&path).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    pub(super) fn put_history(&self, history: &History) -> Result<(), CertError> {
        let path = self.dir.join(format!("{}.json", self.certificate));
        let text = serde_json::to_vec(history).unwrap_or_default();
        replace(&path, &text)
    }

    /// The account's key, in the form its client keeps it in.
    pub(super) fn account(&self, client: &str) -> Result<Option<Vec<u8>>, CertError> {
        read(&self.dir.join(format!("account-{}.{client}", self.account)))
    }

    pub(super) fn put_account(&self, client: &str, account: &[u8]) -> Result<(), CertError> {
        replace(&self.dir.join(format!("account-{}.{client}", self.account)), account)
    }
}

fn digest(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CertError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertError::File { path: path.to_owned(), error }),
    }
}

/// Replaces a file as a whole: a reader, and a crash, meet the old one or the new one.
fn replace(path: &Path, content: &[u8]) -> Result<(), CertError> {
    let write = || {
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|error| CertError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_put_is_found_again_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("acme");
        let names = ["a.org".to_owned(), "b.org".to_owned()];
        let store = Store::new(&folder, "https://ca/dir", &names, "");
        store.prepare().unwrap();
        assert_eq!(store.certificate().unwrap(), None);
        assert_eq!(store.history(), History::default());
        let chain = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_vec();
        let pem = Pem { chain: chain.clone(), key: b"key".to_vec() };
        store.put_certificate(&pem).unwrap();
        store.put_account("a", b"1").unwrap();
        store.put_history(&History { failures: 3, ..History::default() }).unwrap();
        let reversed = [names[1].clone(), names[0].clone()];
        let again = Store::new(&folder, "https://ca/dir", &reversed, "");
        let found = again.certificate().unwrap().unwrap();
        assert_eq!((found.chain, &found.key[..]), (chain, &b"key\n"[..]));
        assert_eq!(again.history().failures, 3);
        let other = Store::new(&folder, "https://ca/dir", &names[..1], "");
        assert_eq!(other.certificate().unwrap(), None, "other names, other certificate");
        assert_eq!(other.account("a").unwrap().unwrap(), b"1", "the same account");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for file in std::fs::read_dir(&folder).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
    }
}
