//! What accounts have used this month, kept across restarts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::file::civil_from_days;
use super::{Account, Accounts, replace, unix_seconds};

/// Size of a usage file beyond which it is none of ours.
const MAX_FILE: u64 = 16 << 20;

/// `usage.json`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Used {
    /// Which month, UTC: `2026-11`.
    pub month: String,
    /// Bytes by account, both ways together.
    pub bytes: BTreeMap<String, u64>,
}

/// The calendar month of a moment, UTC.
pub fn month(now: SystemTime) -> String {
    let (year, month) = civil_from_days((unix_seconds(now) / 86_400) as i64);
    format!("{year:04}-{month:02}")
}

/// Where usage is kept.
#[derive(Clone, Debug)]
pub struct UsageFile(PathBuf);

impl UsageFile {
    /// `usage.json` in the state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("usage.json"))
    }

    /// What was used in the month of `now`, as far as it was written down.
    pub fn read(&self, now: SystemTime) -> io::Result<Used> {
        let fresh = Used { month: month(now), bytes: BTreeMap::new() };
        match std::fs::metadata(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(fresh),
            Err(e) => return Err(e),
            Ok(meta) if meta.len() > MAX_FILE => return Err(io::Error::other("too large")),
            Ok(_) => {}
        }
        let used: Used = serde_json::from_slice(&std::fs::read(&self.0)?)?;
        Ok(if used.month == fresh.month { used } else { fresh })
    }

    /// Writes it down.
    pub fn write(&self, used: &Used) -> io::Result<()> {
        replace(&self.0, &serde_json::to_vec(used)?)
    }
}

impl Account {
    /// Whether it has used up its month.
    pub fn is_spent(&self) -> bool {
        self.quota.is_some_and(|quota| self.usage.used() >= quota)
    }
}

impl Accounts {
    /// Goes on from what was used before this start.
    pub fn carry(&self, used: &Used) {
        *self.month.lock().unwrap_or_else(PoisonError::into_inner) = used.month.clone();
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, bytes) in &used.bytes {
            if let Some(usage) = usage.get(name) {
                usage.carry(*bytes);
            }
        }
    }

    /// What is used at `now`; a new month begins with nothing.
    pub fn used(&self, now: SystemTime) -> Used {
        let mut current = self.month.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let month = month(now);
        if *current != month {
            if !current.is_empty() {
                usage.values().for_each(|usage| usage.begin_month());
            }
            current.clone_from(&month);
        }
        let bytes = usage.iter().map(|(name, usage)| (name.clone(), usage.used()));
        Used { month, bytes: bytes.filter(|(_, bytes)| *bytes > 0).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bauta_masque_io::clock;

    use super::*;
    use crate::accounts::{Entry, FileError, edit, hash_hex};
    use crate::config::Size;

    const NOVEMBER: u64 = 1_793_500_000; // 2026-11-01T02:26:40Z

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn accounts(dir: &Path) -> Accounts {
        let path = dir.join("accounts.toml");
        edit::<_, FileError>(&path, |file| {
            let tokens = vec![hash_hex("good")];
            let quota = Some(Size(1000));
            file.accounts = vec![Entry { name: "alice".into(), tokens, quota, ..Entry::default() }];
            Ok(())
        })
        .unwrap();
        Accounts::load(path, None).unwrap()
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        assert_eq!(month(at(0)), "1970-01");
        assert_eq!(month(at(NOVEMBER)), "2026-11");
        assert_eq!(month(at(NOVEMBER - 8801)), "2026-10");
        assert_eq!(month(at(951_782_400)), "2000-02", "a leap day");
    }

    #[test]
    fn a_quota_is_a_months_survives_a_restart_and_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = UsageFile::new(dir.path());
        let first = accounts(dir.path());
        first.carry(&file.read(at(NOVEMBER)).unwrap());
        let grant = first.authenticate(Some(b"Bearer good"), at(NOVEMBER)).unwrap();
        assert!(grant.account.usage.up.admit(clock::now(), 400));
        assert!(grant.account.usage.down.admit(clock::now(), 500));
        assert!(!grant.account.is_spent() && first.stands(&grant, at(NOVEMBER)));
        file.write(&first.used(at(NOVEMBER))).unwrap();

        let second = accounts(dir.path());
        second.carry(&file.read(at(NOVEMBER)).unwrap());
        let grant = second.authenticate(Some(b"Bearer good"), at(NOVEMBER)).unwrap();
        assert_eq!(grant.account.usage.used(), 900);
        assert!(grant.account.usage.down.admit(clock::now(), 100));
        assert!(grant.account.is_spent() && !second.stands(&grant, at(NOVEMBER)));
        let december = NOVEMBER + 30 * 86_400;
        assert_eq!(second.used(at(december)).bytes.len(), 0);
        assert!(!grant.account.is_spent() && second.stands(&grant, at(december)));
        file.write(&second.used(at(NOVEMBER))).unwrap();
        assert_eq!(file.read(at(december)).unwrap().bytes.len(), 0, "another month's");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("usage.json"), "{").unwrap();
        assert!(UsageFile::new(dir.path()).read(at(NOVEMBER)).is_err());
    }
}
