//! This machine's key for Concealed authentication (RFC 9729): made here, and its secret half never leaves.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bauta_masque::concealed::Origin;
use bauta_masque_io::concealed::{Export, SigningKey};
use bauta_masque_io::mark::MarkKey;
use bauta_masque_io::tls::{Certified, TlsError, certificate_spki};
use nix::unistd::geteuid;
use thiserror::Error;

use crate::secret::Token;

/// Where root's key is. Others have theirs in their own configuration folder.
pub const ROOTS_KEY: &str = "/etc/bauta/client.key";
/// Bytes of a key file read at most; a genuine one has 44.
const MAX_FILE: u64 = 256;

/// How the client shows who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A secret that the link holds.
    Bearer(Token),
    /// A key of this machine: nothing to replay, nothing to see.
    Key(Arc<SigningKey>),
    /// A certificate, shown to a gateway that asks for one; with the SHA-256 of its public key.
    Certificate(Arc<Certified>, [u8; 32]),
}

impl Credential {
    /// What this credential's connections are marked with: of a token its hash, of a key the hash of
    /// its public half, which besides us only the gateway knows.
    pub fn mark(&self) -> MarkKey {
        match self {
            Credential::Bearer(token) => MarkKey::of_token(token.expose().as_bytes()),
            Credential::Key(key) => MarkKey::of_public_key(key.public_key().as_ref()),
            Credential::Certificate(_, spki) => MarkKey::of_certificate(spki),
        }
    }

    /// What is shown in a handshake.
    pub fn certificate(&self) -> Option<&Certified> {
        match self {
            Credential::Certificate(certified, _) => Some(certified),
            _ => None,
        }
    }

    /// The value of `authorization` for a request to `authority` on this connection. `None` where TLS has no
    /// exporter, or has said it all.
    pub fn authorization(&self, tls: &mut dyn Export, authority: &str) -> Option<String> {
        match self {
            Credential::Bearer(token) => Some(token.authorization()),
            Credential::Key(key) => {
                key.authorization(tls, Origin::of(Some(b"https"), authority.as_bytes())?)
            }
            Credential::Certificate(..) => None,
        }
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// None was made yet.
    #[error(
        "this machine has no key yet ({}): `bauta key` makes one; whoever runs the gateway lets it in by `bauta-gateway user add NAME --key …`",
        .0.display()
    )]
    Absent(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
}

/// Where the key is when nothing else is said; `None` for a user without a home.
pub fn default_path() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(ROOTS_KEY.into());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty());
    let config = config.map(PathBuf::from).or_else(|| {
        Some(PathBuf::from(std::env::var_os("HOME").filter(|dir| !dir.is_empty())?).join(".config"))
    });
    Some(config?.join("bauta/client.key"))
}

/// Reads a certificate and its key, both PEM.
pub fn certificate(chain: &Path, key: &Path) -> Result<Credential, KeyError> {
    let failed = |cause| KeyError::Io { path: key.into(), cause };
    if fs::metadata(key).map_err(failed)?.mode() & 0o077 != 0 {
        let problem = "others may read it: `chmod 600` it";
        return Err(KeyError::Unfit { path: key.into(), problem });
    }
    let certified = Certified::load(chain, key)?;
    let spki = certified.spki_sha256()?;
    Ok(Credential::Certificate(Arc::new(certified), spki))
}

/// Reads the key.
pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
    let unfit = |problem| KeyError::Unfit { path: path.into(), problem };
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => KeyError::Absent(path.into()),
        _ => KeyError::Io { path: path.into(), cause },
    };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if meta.mode() & 0o077 != 0 {
        return Err(unfit("others may read it: `chmod 600` it, and better make a new one"));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    let seed = URL_SAFE_NO_PAD.decode(text.trim()).ok();
    seed.and_then(|seed| SigningKey::from_seed(&seed))
        .ok_or_else(|| unfit("it holds no key; `bauta key --replace` makes a new one"))
}

/// Makes a key. One that is there is kept unless `replace` says otherwise.
pub fn create(path: &Path, replace: bool) -> Result<SigningKey, KeyError> {
    let failed = |cause| KeyError::Io { path: path.into(), cause };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let seed = SigningKey::new_seed();
    let key = SigningKey::from_seed(&seed)
        .ok_or(KeyError::Unfit { path: path.into(), problem: "no key could be made" })?;
    let write = || {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let _ = fs::remove_file(&temporary);
        let mut file =
            OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{}", URL_SAFE_NO_PAD.encode(seed))?;
        file.sync_all()?;
        if replace {
            return fs::rename(&temporary, path);
        }
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary)?;
        linked
    };
    write().map_err(failed)?;
    Ok(key)
}

/// The public key of a certificate as people pass it on.
pub fn certificate_text(chain: &Path) -> Result<String, KeyError> {
    Ok(format!("cert:{}", URL_SAFE_NO_PAD.encode(certificate_spki(chain)?)))
}

/// The public key as people pass it on: base64url of 32 bytes.
pub fn public_text(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.public_key())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper/client.key");
        assert!(matches!(load(&path), Err(KeyError::Absent(_))));
        let made = create(&path, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&path).unwrap().public_key(), made.public_key());
        assert!(create(&path, false).is_err(), "it is not overwritten by accident");
        assert_eq!(load(&path).unwrap().public_key(), made.public_key());
        let other = create(&path, true).unwrap();
        assert_ne!(other.public_key(), made.public_key());
        assert_eq!(load(&path).unwrap().public_key(), other.public_key());
        assert_eq!(public_text(&other).len(), 43);
    }

    #[test]
    fn a_key_others_may_read_or_that_is_none_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.key");
        create(&path, false).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "hush").unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("no key") && !error.contains("hush"), "{error}");
    }
}
