//! `bauta-gateway user …`.
#![expect(clippy::print_stdout, reason = "this is a command's output")]

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use bauta_masque_io::clock::unix_time;

use super::{Limits, User};
use crate::accounts::{
    AccountsFile, Entry, UsageFile, canonical_key, certificate_key, check_name, edit, hash_hex,
    new_token,
};
use crate::config::Config;
use crate::link;

/// Tokens one account may have; each link with a secret is one.
const MAX_TOKENS: usize = 64;
/// Public keys one account may have, one for each of its clients.
const MAX_KEYS: usize = 64;

pub(super) fn run(command: User, config: &Config) -> Result<()> {
    match command {
        User::Add { name, key, limits, quiet } => {
            let token = add(config, &name, &key, &limits)?;
            show(config, token.as_deref(), quiet)
        }
        User::Key { name, key, revoke: true, .. } => revoke_key(config, &name, &key),
        User::Key { name, key, quiet, .. } => {
            add_key(config, &name, &key)?;
            show(config, None, quiet)
        }
        User::List => list(config),
        User::Remove { name } => remove(config, &name),
        User::Link { name, revoke, quiet } => {
            let token = issue(config, &name, revoke)?;
            show(config, Some(&token), quiet)
        }
    }
}

/// Returns the account's token, unless it has keys.
fn add(config: &Config, name: &str, keys: &[String], limits: &Limits) -> Result<Option<String>> {
    check_name(name).map_err(|e| anyhow!(e))?;
    let keys = keys.iter().map(|key| canonical(key)).collect::<Result<Vec<_>>>()?;
    let token = keys.is_empty().then(new_token).transpose().context("no randomness")?;
    let (token, hash) = token.unzip();
    let &Limits { sessions, rate, quota, expires } = limits;
    let tokens = hash.into_iter().collect();
    let entry = Entry { name: name.into(), tokens, keys, sessions, rate, quota, expires };
    if expires.is_some() && entry.expiry().is_none() {
        bail!("--expires must be a date, or a date and time ending in Z");
    }
    edit(&config.accounts.file, |file| {
        if file.accounts.iter().any(|other| other.name == name) {
            bail!(
                "account `{name}` exists; `bauta-gateway user link {name}` makes another link, and `user key {name} KEY` adds a key"
            );
        }
        for key in &entry.keys {
            unused(file, key)?;
        }
        file.accounts.push(entry);
        Ok(())
    })?;
    Ok(token)
}

/// A public key in its one form; of a file the key of its first certificate.
fn canonical(key: &str) -> Result<String> {
    let say = "is no public key, nor a file with a certificate; run `bauta key` on the client and pass on what it prints";
    match canonical_key(key) {
        Some(key) => Ok(key),
        None if Path::new(key).is_file() => Ok(certificate_key(Path::new(key))?),
        None => Err(anyhow!("`{key}` {say}")),
    }
}

/// A key names its account: no two may have it.
fn unused(file: &AccountsFile, key: &str) -> Result<()> {
    match file.accounts.iter().find(|entry| entry.keys.iter().any(|other| other == key)) {
        Some(entry) => bail!("the key is that of account `{}` already", entry.name),
        None => Ok(()),
    }
}

fn add_key(config: &Config, name: &str, key: &str) -> Result<()> {
    let key = canonical(key)?;
    edit(&config.accounts.file, |file| {
        unused(file, &key)?;
        let entry = find(file, name)?;
        if entry.keys.len() >= MAX_KEYS {
            bail!("account `{name}` has {MAX_KEYS} keys already; take one away by --revoke");
        }
        entry.keys.push(key);
        Ok(())
    })
}

fn revoke_key(config: &Config, name: &str, key: &str) -> Result<()> {
    let key = canonical(key)?;
    edit(&config.accounts.file, |file| {
        let entry = find(file, name)?;
        let before = entry.keys.len();
        entry.keys.retain(|other| *other != key);
        if entry.keys.len() == before {
            bail!("account `{name}` has no such key");
        }
        Ok(())
    })
}

fn issue(config: &Config, name: &str, revoke: bool) -> Result<String> {
    let (token, _) = new_token().context("no randomness")?;
    edit(&config.accounts.file, |file| {
        let entry = find(file, name)?;
        if revoke {
            entry.tokens.clear();
        }
        if entry.tokens.len() >= MAX_TOKENS {
            bail!("account `{name}` has {MAX_TOKENS} links already; start over with --revoke");
        }
        entry.tokens.push(hash_hex(&token));
        Ok(())
    })?;
    Ok(token)
}

fn remove(config: &Config, name: &str) -> Result<()> {
    edit(&config.accounts.file, |file| {
        find(file, name)?;
        file.accounts.retain(|entry| entry.name != name);
        Ok(())
    })
}

fn find<'a>(file: &'a mut AccountsFile, name: &str) -> Result<&'a mut Entry> {
    let found = file.accounts.iter_mut().find(|entry| entry.name == name);
    found
        .ok_or_else(|| anyhow!("there is no account `{name}`; `bauta-gateway user list` shows all"))
}

fn list(config: &Config) -> Result<()> {
    let file = AccountsFile::read(&config.accounts.file)?;
    if file.accounts.is_empty() {
        println!("no accounts; `bauta-gateway user add NAME` makes one");
        return Ok(());
    }
    println!(
        "{:<24} {:>5} {:>5} {:>9} {:>10} {:>9} {:>9}  EXPIRES",
        "NAME", "LINKS", "KEYS", "SESSIONS", "RATE", "USED", "QUOTA"
    );
    // The gateway's own state; whoever may not read it sees no figure.
    let used = UsageFile::new(&config.state_dir).read(unix_time()).ok();
    for entry in &file.accounts {
        let sessions = entry.sessions.map_or_else(|| "default".into(), |n| n.to_string());
        let rate = entry.rate.map_or_else(|| "default".into(), |rate| rate.to_string());
        let expires = entry.expires.map_or_else(|| "never".into(), |at| at.to_string());
        let (name, links, keys) = (&entry.name, entry.tokens.len(), entry.keys.len());
        let quota = entry.quota.map_or_else(|| "none".into(), |quota| quota.to_string());
        let used = used.as_ref().map_or_else(
            || "?".into(),
            |used| format!("{:.2}GB", used.bytes.get(name).copied().unwrap_or(0) as f64 / 1e9),
        );
        println!(
            "{name:<24} {links:>5} {keys:>5} {sessions:>9} {rate:>10} {used:>9} {quota:>9}  {expires}"
        );
    }
    Ok(())
}

fn show(config: &Config, token: Option<&str>, quiet: bool) -> Result<()> {
    let link = link::link(token, config);
    println!("{link}");
    if !quiet && let Some(qr) = link::qr(&link) {
        println!("\n{qr}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{Accounts, key_text};

    const NO_LIMITS: Limits = Limits { sessions: None, rate: None, quota: None, expires: None };

    fn config(dir: &Path) -> Config {
        let file = dir.join("accounts.toml");
        let text = format!("domain = \"a.org\"\n[accounts]\nfile = {file:?}");
        Config::parse(&text, Path::new("gateway.toml")).unwrap()
    }

    #[test]
    fn an_account_lives_from_add_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let token = add(&config, "alice", &[], &NO_LIMITS).unwrap().unwrap();
        assert!(add(&config, "alice", &[], &NO_LIMITS).unwrap_err().to_string().contains("exists"));
        assert!(add(&config, "a b", &[], &NO_LIMITS).is_err());
        let second = issue(&config, "alice", false).unwrap();
        let accounts = Accounts::load(config.accounts.file.clone(), None).unwrap();
        let known = |token: &str| {
            let value = format!("Bearer {token}");
            accounts.authenticate(Some(value.as_bytes()), unix_time()).is_some()
        };
        assert!(known(&token) && known(&second));
        let third = issue(&config, "alice", true).unwrap();
        accounts.reload().unwrap();
        assert!(known(&third) && !known(&token) && !known(&second), "revoked");
        remove(&config, "alice").unwrap();
        accounts.reload().unwrap();
        assert!(!known(&third));
        assert!(remove(&config, "alice").unwrap_err().to_string().contains("no account"));
        let text = std::fs::read_to_string(&config.accounts.file).unwrap();
        assert!(!text.contains(&token));
    }

    #[test]
    fn an_account_with_a_key_has_no_token_and_its_keys_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let key = |byte: u8| key_text(&[byte; 32]);
        assert_eq!(add(&config, "alice", &[key(1)], &NO_LIMITS).unwrap(), None);
        let error = add(&config, "bob", &[key(1)], &NO_LIMITS).unwrap_err().to_string();
        assert!(error.contains("of account `alice`"), "{error}");
        assert!(add(&config, "bob", &["nonsense".into()], &NO_LIMITS).is_err());
        add_key(&config, "alice", &format!("{}=", key(2))).unwrap();
        assert!(add_key(&config, "alice", &key(2)).is_err());
        let keys = || AccountsFile::read(&config.accounts.file).unwrap().accounts.remove(0).keys;
        assert_eq!(keys(), [key(1), key(2)]);
        revoke_key(&config, "alice", &key(1)).unwrap();
        assert_eq!(keys(), [key(2)]);
        assert!(revoke_key(&config, "alice", &key(1)).is_err());
    }
}
