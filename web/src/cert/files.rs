//! A certificate that somebody else keeps fresh: certbot, acme.sh, a CA of one's own.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use super::{CertError, CertSource, Facts, Pem, Status};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Looks after which a pair that does not fit together is worth a complaint: the two files of a
/// renewal are not replaced in the same moment.
const PATIENCE: u32 = 3;

/// Two PEM files; what replaces them is noticed within seconds.
pub struct Files {
    cert: PathBuf,
    key: PathBuf,
    /// What was read last, or complained about.
    known: Option<[Mark; 2]>,
    status: watch::Sender<Status>,
}

/// By what a changed file is known.
type Mark = Option<(u64, u64, i64, i64, u64)>;

fn mark(path: &Path) -> Mark {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()))
}

impl Files {
    /// Chain and key.
    pub fn new(cert: &Path, key: &Path) -> Self {
        let from = format!("{} and {}", cert.display(), key.display());
        let status = Status { source: "files", from, ..Status::default() };
        let (cert, key) = (cert.to_owned(), key.to_owned());
        Self { cert, key, known: None, status: watch::Sender::new(status) }
    }

    fn marks(&self) -> [Mark; 2] {
        [mark(&self.cert), mark(&self.key)]
    }

    fn read(&self) -> Result<Pem, CertError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| CertError::File { path: path.clone(), error })
        };
        let pem = Pem { chain: read(&self.cert)?, key: read(&self.key)? };
        let facts = Facts::of(&pem, &self.status.borrow().from)?;
        self.status.send_modify(|status| {
            status.show(&facts);
            status.error = None;
            status.renewals += 1;
        });
        Ok(pem)
    }

    async fn changed(&mut self) -> Pem {
        let mut tries = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let marks = self.marks();
            if self.known == Some(marks) {
                tries = 0;
                continue;
            }
            match self.read() {
                Ok(pem) => {
                    self.known = Some(marks);
                    return pem;
                }
                Err(_) if tries < PATIENCE => tries += 1,
                Err(error) => {
                    tracing::error!("the certificate in force stays: {error}");
                    self.status.send_modify(|status| {
                        status.error = Some(error.to_string());
                        status.failures += 1;
                    });
                    self.known = Some(marks);
                }
            }
        }
    }
}

impl CertSource for Files {
    fn first(&mut self) -> Result<Option<Pem>, CertError> {
        self.known = Some(self.marks());
        self.read().map(Some)
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Pem> + Send + '_>> {
        Box::pin(self.changed())
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str) -> Pem {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(dir.join("cert.pem"), &chain).unwrap();
        std::fs::write(dir.join("key.pem"), &key).unwrap();
        Pem { chain: chain.into(), key: key.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_noticed_and_half_a_pair_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let old = write(dir.path(), "a.test");
        let mut files = Files::new(&dir.path().join("cert.pem"), &dir.path().join("key.pem"));
        assert_eq!(files.first().unwrap(), Some(old));
        let status = files.status();
        assert_eq!(status.borrow().names, ["a.test"]);
        let half = rcgen::generate_simple_self_signed(["b.test".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), half.cert.pem()).unwrap();
        let waited = tokio::time::timeout(LOOK * 10, files.next()).await;
        assert!(waited.is_err(), "half a pair is none");
        assert!(status.borrow().error.as_ref().unwrap().contains("cert.pem"));
        let new = write(dir.path(), "c.test");
        assert_eq!(files.next().await, new);
        assert_eq!(
            (status.borrow().names.clone(), &status.borrow().error),
            (vec!["c.test".into()], &None)
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Files::new(Path::new("/nowhere/c"), Path::new("/nowhere/k")).first();
        assert!(error.unwrap_err().to_string().contains("/nowhere/c"));
    }
}
