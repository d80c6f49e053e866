use super::*;

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn entry(name: &str, token: &str) -> Entry {
    let tokens = vec![hash_hex(token)];
    Entry { name: name.into(), tokens, ..Entry::default() }
}

/// A folder with an accounts file of alice (`good`) and bob (`other`, expiring in 2030).
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts.toml");
    edit::<_, FileError>(&path, |file| {
        file.accounts.push(entry("alice", "good"));
        let expires = Some("2030-01-01T00:00:00Z".parse().unwrap());
        file.accounts.push(Entry { expires, ..entry("bob", "other") });
        Ok(())
    })
    .unwrap();
    (dir, path)
}

#[test]
fn bearer_and_basic_reach_the_account_and_nothing_else_does() {
    let (_dir, path) = folder();
    let accounts = Accounts::load(path, None).unwrap();
    let name = |value: &str| {
        let grant = accounts.authenticate(Some(value.as_bytes()), at(0));
        grant.map(|grant| grant.account.name.clone())
    };
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    assert_eq!(name("Bearer good").as_deref(), Some("alice"));
    assert_eq!(name("bearer  good ").as_deref(), Some("alice"));
    assert_eq!(name(&basic("alice:good")).as_deref(), Some("alice"));
    for bad in ["Bearer bad", "Bearer ", "Bearer", "", "good", "Digest good", "Basic !!"] {
        assert_eq!(name(bad), None, "{bad}");
    }
    for bad in ["bob:good", "alice:", "alicegood", ":good"] {
        assert_eq!(name(&basic(bad)), None, "{bad}");
    }
    assert!(accounts.authenticate(None, at(0)).is_none());
    assert_eq!(name(&format!("Bearer {}", "x".repeat(5000))), None);
}

#[test]
fn an_account_ends_with_its_expiry() {
    let (_dir, path) = folder();
    let accounts = Accounts::load(path, None).unwrap();
    let new_year_2030 = 1_893_456_000;
    let grant = accounts.authenticate(Some(b"Bearer other"), at(new_year_2030 - 1)).unwrap();
    assert!(accounts.stands(&grant, at(new_year_2030 - 1)));
    assert!(!accounts.stands(&grant, at(new_year_2030)));
    assert!(accounts.authenticate(Some(b"Bearer other"), at(new_year_2030)).is_none());
}

#[test]
fn a_reload_removes_accounts_and_keeps_the_usage_of_others() {
    let (_dir, path) = folder();
    let accounts = Accounts::load(path.clone(), None).unwrap();
    let alice = accounts.authenticate(Some(b"Bearer good"), at(0)).unwrap();
    let bob = accounts.authenticate(Some(b"Bearer other"), at(0)).unwrap();
    let _flow = alice.account.usage.open_flow(1).unwrap();
    assert!(!accounts.changed());
    edit::<_, FileError>(&path, |file| {
        file.accounts.retain(|entry| entry.name != "bob");
        Ok(())
    })
    .unwrap();
    assert!(accounts.changed());
    assert_eq!(accounts.reload().unwrap(), 1);
    assert!(!accounts.changed());
    assert!(accounts.stands(&alice, at(0)) && !accounts.stands(&bob, at(0)));
    assert!(
        accounts.refresh(&alice).unwrap().usage.open_flow(1).is_none(),
        "the flow still counts"
    );
}

#[test]
fn a_broken_file_leaves_the_accounts_in_force() {
    let (_dir, path) = folder();
    let accounts = Accounts::load(path.clone(), None).unwrap();
    std::fs::write(&path, "[[account]]\nname = \"alice\"\ntoken = \"secret\"\n").unwrap();
    let error = accounts.reload().unwrap_err().to_string();
    assert!(error.contains("line 3: unknown field `token`"), "{error}");
    assert!(!error.contains("secret"), "no secret in an error: {error}");
    assert!(accounts.authenticate(Some(b"Bearer good"), at(0)).is_some());
    std::fs::write(&path, "[[account]]\nname = \"a\"\ntokens = [\"plain\"]\n").unwrap();
    assert!(accounts.reload().unwrap_err().to_string().contains("not the token itself"));
}

#[test]
fn an_edit_keeps_the_mode_and_a_new_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = folder();
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    edit::<_, FileError>(&path, |_| Ok(())).unwrap();
    assert_eq!(mode(&path), 0o640);
    assert_eq!(AccountsFile::read(&path).unwrap().accounts.len(), 2);
}

#[test]
fn editors_at_the_same_time_lose_nothing() {
    let (_dir, path) = folder();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let path = &path;
            scope.spawn(move || {
                edit::<_, FileError>(path, |file| {
                    file.accounts.push(entry(&format!("user{i}"), &format!("token{i}")));
                    Ok(())
                })
            });
        }
    });
    assert_eq!(AccountsFile::read(&path).unwrap().accounts.len(), 10);
}

#[test]
fn a_token_is_random_and_its_hash_is_what_is_stored() {
    let (text, hash) = new_token().unwrap();
    assert_eq!(text.len(), TOKEN_CHARS);
    assert_eq!(hash, hash_hex(&text));
    assert_ne!(new_token().unwrap().0, text);
}
