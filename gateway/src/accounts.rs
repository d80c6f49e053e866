//! Accounts: who may tunnel, and how much.
//!
//! The file holds SHA-256 hashes of 256-bit random tokens, never tokens. A lookup does the same
//! work for the right token, a wrong one and none at all.

mod certificate;
mod concealed;
mod file;
mod quota;
mod usage;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bauta_masque_io::mark::{MarkKey, Marks};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

pub use certificate::{canonical_key, certificate_key};
pub use concealed::{key_text, parse_key};
pub(crate) use file::replace;
pub use file::{AccountsFile, Entry, FileError, check_name, edit};
pub use quota::{UsageFile, Used, month};
pub use usage::{Bucket, FlowGuard, Usage};

/// Length of a token's text: 32 random bytes in base64url.
pub const TOKEN_CHARS: usize = 43;

/// A credential longer than this is looked at no further; no genuine one comes near.
const MAX_CREDENTIAL: usize = 1024;

/// One account, as the data path sees it.
#[derive(Debug)]
pub struct Account {
    /// Unique, for people.
    pub name: String,
    /// CONNECT-IP sessions at once; `None`: the configuration's default.
    pub sessions: Option<usize>,
    /// Bytes a calendar month; `None`: as many as it likes.
    pub quota: Option<u64>,
    /// Last moment of validity.
    pub expires: Option<SystemTime>,
    /// What it uses now; the same object across reloads.
    pub usage: Arc<Usage>,
}

impl Account {
    /// Whether it may (still) tunnel at `now`.
    pub fn valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// An account and the token or key it was reached by, to tell later whether both still exist.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The account.
    pub account: Arc<Account>,
    credential: [u8; 32],
}

/// The accounts of one reading of the file.
#[derive(Debug, Default)]
struct Book {
    /// By the first eight bytes of the hash of a token or key; the whole hash is compared
    /// afterwards.
    credentials: HashMap<u64, ([u8; 32], Arc<Account>)>,
    /// One a token or key: by what its connections are told from visitors'.
    marks: Vec<MarkKey>,
}

/// The live accounts: read without a lock by workers, replaced as a whole by a reload.
#[derive(Debug)]
pub struct Accounts {
    path: PathBuf,
    default_rate: Option<u64>,
    book: ArcSwap<Book>,
    usage: Mutex<HashMap<String, Arc<Usage>>>,
    seen: Mutex<Option<file::Stamp>>,
    decoy: concealed::Decoy,
    /// The month that usage is counted for.
    month: Mutex<String>,
}

impl Accounts {
    /// No accounts at all, for a gateway without tunnels. A look-up takes as long as ever.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            default_rate: None,
            book: ArcSwap::default(),
            usage: Mutex::default(),
            seen: Mutex::default(),
            decoy: concealed::Decoy::new(),
            month: Mutex::default(),
        }
    }

    /// Reads `path`; a missing file is an empty one. `default_rate` in bits a second.
    pub fn load(path: PathBuf, default_rate: Option<u64>) -> Result<Self, FileError> {
        let accounts = Self { path, default_rate, ..Self::none() };
        accounts.reload()?;
        Ok(accounts)
    }

    /// Whether the file changed since it was read last; cheap enough for every second.
    pub fn changed(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen != file::stamp(&self.path)
    }

    /// Reads the file again. On error the accounts in force stay, and the error is not repeated
    /// until the file changes once more.
    pub fn reload(&self) -> Result<usize, FileError> {
        let stamp = file::stamp(&self.path);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
        let file = AccountsFile::read(&self.path)?;
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.retain(|name, _| file.accounts.iter().any(|entry| entry.name == *name));
        let mut book = Book::default();
        for entry in &file.accounts {
            let usage = usage.entry(entry.name.clone()).or_default();
            usage.set_rate(entry.rate.map(|rate| rate.0).or(self.default_rate));
            let account = Arc::new(Account {
                name: entry.name.clone(),
                sessions: entry.sessions,
                quota: entry.quota.map(|quota| quota.0),
                expires: entry.expiry(),
                usage: usage.clone(),
            });
            for hash in entry.hashes() {
                book.credentials.insert(key(&hash), (hash, account.clone()));
                book.marks.push(MarkKey::new(&hash));
            }
        }
        self.book.store(Arc::new(book));
        Ok(file.accounts.len())
    }

    /// The account behind an `Authorization` or `Proxy-Authorization` value: `Bearer TOKEN`, or
    /// `Basic` with the account's name and the token as password. The same work whatever the
    /// value, `None` included.
    pub fn authenticate(&self, credential: Option<&[u8]>, now: SystemTime) -> Option<Grant> {
        let (name, token) = credential
            .filter(|value| value.len() <= MAX_CREDENTIAL)
            .and_then(parse_credential)
            .unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(&token).into();
        let book = self.book.load();
        let found = book.credentials.get(&key(&hash));
        // Nobody's token hashes to zeros: the decoy.
        let (expected, account) = match found {
            Some((expected, account)) => (*expected, Some(account)),
            None => ([0; 32], None),
        };
        let same_name = match (&name, account) {
            (Some(given), Some(account)) => given.as_slice().ct_eq(account.name.as_bytes()),
            _ => Choice::from(1),
        };
        let good: bool = (expected.ct_eq(&hash) & same_name).into();
        let account = account.filter(|account| good && account.valid(now))?.clone();
        Some(Grant { account, credential: hash })
    }

    /// Whether a first destination connection id is the [mark](bauta_masque_io::mark) of a token,
    /// and the first of its kind.
    pub fn recognises(&self, dcid: &[u8], marks: &mut Marks, now: SystemTime) -> bool {
        marks.admit(dcid, &self.book.load().marks, now)
    }

    /// Whether what was granted earlier still stands.
    pub fn stands(&self, grant: &Grant, now: SystemTime) -> bool {
        let same = |found: Arc<Account>| {
            found.name == grant.account.name && found.valid(now) && !found.is_spent()
        };
        self.find(&grant.credential).is_some_and(same)
    }

    /// The entry in force for what was granted, whose limits may have changed since.
    pub fn refresh(&self, grant: &Grant) -> Option<Arc<Account>> {
        self.find(&grant.credential)
    }

    /// The account of a token's or a key's hash.
    fn find(&self, hash: &[u8; 32]) -> Option<Arc<Account>> {
        let book = self.book.load();
        let (known, account) = book.credentials.get(&key(hash))?;
        (known == hash).then(|| account.clone())
    }
}

fn key(hash: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

/// `(name, token)`; the name is `None` for Bearer.
fn parse_credential(value: &[u8]) -> Option<(Option<Vec<u8>>, Vec<u8>)> {
    let space = value.iter().position(|b| *b == b' ')?;
    let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some((None, rest.to_vec()));
    }
    if scheme.eq_ignore_ascii_case(b"basic") {
        let pair = STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|b| *b == b':')?;
        return Some((Some(pair[..colon].to_vec()), pair[colon + 1..].to_vec()));
    }
    None
}

/// A fresh token's text, and the hash to store, in hexadecimal.
pub fn new_token() -> std::io::Result<(String, String)> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash_hex(&text);
    Ok((text, hash))
}

/// What the file stores for a token.
pub fn hash_hex(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests;
