//! The lease file: which account had which slot, so that addresses survive a restart.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{GATEWAY, Lease, Plan, Pool};
use crate::accounts::replace;

/// Size of a lease file beyond which it is none of ours.
const MAX_FILE: u64 = 16 << 20;

#[derive(Deserialize, Serialize)]
struct Remembered {
    slot: u32,
    account: String,
    used: u64,
}

/// Where leases are remembered.
#[derive(Clone, Debug)]
pub struct LeaseFile(PathBuf);

impl LeaseFile {
    /// `leases.json` in the state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("leases.json"))
    }

    /// The pool as it was. An unreadable file is an error to be told, not a reason to stop: the
    /// caller goes on with an empty pool.
    pub fn load(&self, plan: Plan) -> (Pool, Option<String>) {
        let mut pool = Pool::new(plan);
        match self.read() {
            Ok(leases) => {
                for remembered in leases {
                    pool.restore(remembered);
                }
                (pool, None)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => (pool, None),
            Err(e) => (pool, Some(format!("{}: {e}; leases start anew", self.0.display()))),
        }
    }

    fn read(&self) -> io::Result<Vec<Remembered>> {
        if std::fs::metadata(&self.0)?.len() > MAX_FILE {
            return Err(io::Error::other("too large"));
        }
        Ok(serde_json::from_slice(&std::fs::read(&self.0)?)?)
    }

    /// Writes what [`Pool::snapshot`] gave.
    pub fn store(&self, snapshot: &[u8]) -> io::Result<()> {
        replace(&self.0, snapshot)
    }
}

impl Pool {
    fn restore(&mut self, Remembered { slot, account, used }: Remembered) {
        let in_range = (GATEWAY + 1..self.plan.slots()).contains(&slot);
        if in_range && !self.leases.contains_key(&slot) {
            self.put(slot, Lease { account, used, holder: None });
        }
    }

    /// The leases as the file keeps them, if they changed since the last call.
    pub fn snapshot(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let remember = |(slot, lease): (&u32, &Lease)| Remembered {
            slot: *slot,
            account: lease.account.clone(),
            used: lease.used,
        };
        let mut leases: Vec<_> = self.leases.iter().map(remember).collect();
        leases.sort_by_key(|lease| lease.slot);
        serde_json::to_vec(&leases).ok()
    }
}
