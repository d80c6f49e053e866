//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The folder with `bauta-gateway` and `bauta`: `BAUTA_BIN_DIR`, or the one above the test's own,
/// where they are built if they are missing.
pub fn programs() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}"))) {
        Ok(folder) => Ok(folder),
        Err(why) => bail!("{why}"),
    }
}

fn find() -> Result<PathBuf> {
    let there = |folder: &Path| ["bauta-gateway", "bauta"].iter().all(|p| folder.join(p).is_file());
    if let Some(named) = std::env::var_os("BAUTA_BIN_DIR") {
        let folder = PathBuf::from(named);
        if there(&folder) {
            return folder.canonicalize().context("BAUTA_BIN_DIR");
        }
        bail!("BAUTA_BIN_DIR: there is no bauta-gateway and bauta in {}", folder.display());
    }
    // target/PROFILE/deps/TEST
    let own = std::env::current_exe().context("finding the test itself")?;
    let folder = own.ancestors().nth(2).context("the test is not in a target folder")?;
    if !there(folder) {
        build(folder)?;
    }
    if there(folder) {
        return Ok(folder.to_owned());
    }
    bail!(
        "bauta-gateway and bauta are not in {}: `cargo build -p bauta-gateway -p bauta`, or name \
         their folder in BAUTA_BIN_DIR",
        folder.display()
    )
}

fn build(folder: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "-p", "bauta-gateway", "-p", "bauta"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(root.context("the checkout is gone")?);
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.status().context("`cargo` cannot be started")?;
    if status.success() {
        return Ok(());
    }
    bail!("bauta-gateway and bauta do not build: `cargo build -p bauta-gateway -p bauta`")
}
