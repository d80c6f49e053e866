//! stub
use crate::config::Config;
use anyhow::Result;
/// x
pub fn run(_: &Config, _: &std::path::Path) -> Result<()> {
    Ok(())
}
/// x
pub fn check(_: &Config) -> Result<()> {
    Ok(())
}
