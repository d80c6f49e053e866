//! The accounts file: TOML, replaced atomically under a lock, owner and mode kept.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::certificate::{canonical_key, hash_of};
use crate::config::{Rate, Size};

/// What stands above every file written.
const HEADER: &str =
    "# Written by `bauta-gateway user`. Tokens are kept as SHA-256 hashes only.\n\n";

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccountsFile {
    /// Every account, in the order of creation.
    #[serde(default, rename = "account", skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Entry>,
}

/// One account in the file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unique; letters, digits, `-`, `_`, `.` and `@`, at most 64.
    pub name: String,
    /// SHA-256 of each token's text, in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Ed25519 public keys (RFC 9729) in base64url, and those of certificates: `cert:` and the
    /// SHA-256 of the SubjectPublicKeyInfo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// CONNECT-IP sessions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<usize>,
    /// Bits a second, each way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Bytes a calendar month (UTC), both ways together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Size>,
    /// Last moment of validity, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<toml::value::Datetime>,
}

/// Why the accounts file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("accounts file {}: {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Doing what.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// It holds a mistake.
    #[error("accounts file {}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which, and where.
        message: String,
    },
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64, u64);

/// The file's stamp; `None` while it does not exist.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp(meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

impl AccountsFile {
    /// Reads and checks `path`; a missing file holds no accounts.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io_error(path, "cannot be read", error)),
        };
        let invalid = |message| FileError::Invalid { path: path.into(), message };
        // The display form carries line and column but quotes the line, which may hold a secret
        // somebody pasted; so only the position and the message are taken.
        let file: Self = toml::from_str(&text).map_err(|e| {
            let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
            invalid(format!("line {}: {}", before.matches('\n').count() + 1, e.message()))
        })?;
        for (i, entry) in file.accounts.iter().enumerate() {
            check_name(&entry.name).map_err(invalid)?;
            if file.accounts[..i].iter().any(|other| other.name == entry.name) {
                return Err(invalid(format!("account `{}` is there twice", entry.name)));
            }
            if entry.tokens.iter().any(|token| decode_hash(token).is_none()) {
                let say = "a token must be 64 hexadecimal digits (a SHA-256), not the token itself";
                return Err(invalid(format!("account `{}`: {say}", entry.name)));
            }
            if entry.keys.iter().any(|key| canonical_key(key).as_ref() != Some(key)) {
                let say = "a key must be 32 bytes in base64url, after `cert:` for a certificate, as `bauta key` prints it";
                return Err(invalid(format!("account `{}`: {say}", entry.name)));
            }
            if entry.expires.is_some() && entry.expiry().is_none() {
                let say = "expires must be a date, or a date and time ending in Z";
                return Err(invalid(format!("account `{}`: {say}", entry.name)));
            }
        }
        Ok(file)
    }
}

impl Entry {
    /// The hashes of tokens and keys, in binary.
    pub(super) fn hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        let tokens = self.tokens.iter().filter_map(|token| decode_hash(token));
        let keys = self.keys.iter().filter_map(|key| hash_of(key));
        tokens.chain(keys)
    }

    /// `expires` on the clock; a date alone ends when it begins.
    pub fn expiry(&self) -> Option<SystemTime> {
        let given = self.expires?;
        let date = given.date?;
        let offset = match (given.time, given.offset) {
            (_, Some(toml::value::Offset::Custom { minutes })) => i64::from(minutes) * 60,
            (Some(_), None) => return None,
            _ => 0,
        };
        let time = given.time.map_or(0, |t| {
            let seconds = t.second.unwrap_or(0);
            i64::from(t.hour) * 3600 + i64::from(t.minute) * 60 + i64::from(seconds)
        });
        let days = days_from_civil(date.year.into(), date.month.into(), date.day.into());
        let seconds = u64::try_from(days * 86_400 + time - offset).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (years counted from March).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year and month of a day counted from 1970-01-01, by the same reckoning.
pub(super) fn civil_from_days(days: i64) -> (i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = (march + 2) % 12 + 1;
    (year + era * 400 + i64::from(month <= 2), month)
}

/// Whether `name` can be an account's.
pub fn check_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(format!("`{name}` cannot be a name: use 1 to 64 letters, digits, and any of - _ . @"))
}

fn decode_hash(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Reads the file, lets `change` change it and puts the result in its place, so that a reader
/// sees the old or the new one whole. Editors at the same time wait for each other.
pub fn edit<T, E: From<FileError>>(
    path: &Path,
    change: impl FnOnce(&mut AccountsFile) -> Result<T, E>,
) -> Result<T, E> {
    let lock_path = sibling(path, "lock");
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let lock = lock.map_err(|e| io_error(&lock_path, "cannot be created", e))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io_error(&lock_path, "cannot be locked", errno.into()))?;
    let mut file = AccountsFile::read(path)?;
    let result = change(&mut file)?;
    let text = toml::to_string(&file)
        .map_err(|e| FileError::Invalid { path: path.into(), message: e.to_string() })?;
    replace(path, (HEADER.to_owned() + &text).as_bytes())
        .map_err(|e| io_error(path, "cannot be written", e))?;
    Ok(result)
}

/// Replaces `path` atomically; owner and mode of the old file are kept, a new one gets 0600.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = sibling(path, "new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(&temporary)?;
    if let Ok(old) = std::fs::metadata(path) {
        fchown(&file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, what: &'static str, error: io::Error) -> FileError {
    FileError::Io { path: path.into(), what, error }
}
