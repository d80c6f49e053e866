//! The command line.

mod status;
mod user;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Rate, Size};

/// A website for everybody and a MASQUE tunnel for account holders, on one port.
#[derive(Debug, Parser)]
#[command(name = "bauta-gateway", version)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, env = "BAUTA_CONFIG", default_value = "/etc/bauta/gateway.toml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT; SIGHUP reads certificate, site and accounts again.
    Run,
    /// Read the configuration and all it names, report every mistake, change nothing.
    Check,
    /// What a running gateway says of its certificate: where it stands, what comes when and why.
    Status,
    /// Manage accounts. A running gateway notices within a second.
    #[command(subcommand)]
    User(User),
}

/// Account management.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Create an account and print its link. With --key the link holds no secret: the client proves
    /// that it has the key (RFC 9729). Without, it holds a token, is not kept anywhere, and `link`
    /// makes another.
    Add {
        /// Its name: letters, digits, and - _ . @
        name: String,
        /// A public key of the client, as `bauta key` prints it there, or a file with its
        /// certificate (PEM). May be repeated.
        #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
        key: Vec<String>,
        /// Its limits.
        #[command(flatten)]
        limits: Limits,
        /// Print the link alone, without a QR code.
        #[arg(long)]
        quiet: bool,
    },
    /// Show all accounts.
    List,
    /// Delete an account; its tunnels close within a second.
    Remove {
        /// Its name.
        name: String,
    },
    /// Let an account's clients in by one more public key, and print the link for them.
    Key {
        /// The account's name.
        name: String,
        /// The public key, as `bauta key` prints it on the client, or a file with its certificate
        /// (PEM).
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Take the key away instead; its tunnels close within a second.
        #[arg(long)]
        revoke: bool,
        /// Print the link alone, without a QR code.
        #[arg(long)]
        quiet: bool,
    },
    /// Issue one more token for an account, and print the link. Only hashes are kept, so an older
    /// link cannot be shown again; it stays valid unless --revoke is given.
    Link {
        /// The account's name.
        name: String,
        /// Make every earlier token of the account invalid; its keys stay.
        #[arg(long)]
        revoke: bool,
        /// Print the link alone, without a QR code.
        #[arg(long)]
        quiet: bool,
    },
}

/// Limits of an account.
#[derive(Debug, Args)]
pub struct Limits {
    /// CONNECT-IP sessions at once.
    #[arg(long)]
    pub sessions: Option<usize>,
    /// Rate each way, such as 100mbit.
    #[arg(long)]
    pub rate: Option<Rate>,
    /// Bytes a calendar month (UTC), both ways together, such as 500GB.
    #[arg(long)]
    pub quota: Option<Size>,
    /// Last moment of validity, such as 2027-01-31 or 2027-01-31T12:00:00Z.
    #[arg(long)]
    pub expires: Option<toml::value::Datetime>,
}

impl Cli {
    /// Does it.
    pub fn run(self) -> Result<()> {
        let config = Config::load(&self.config)?;
        match self.command {
            Command::Run => crate::run::run(&config, &self.config),
            Command::Check => crate::run::check(&config),
            Command::Status => status::run(&config),
            Command::User(user) => user::run(user, &config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_begin_with_a_hyphen() {
        for words in [
            ["user", "add", "alice", "--key", "-C4"],
            ["user", "key", "alice", "-C4", "--revoke"],
            ["user", "key", "alice", "--revoke", "-C4"],
        ] {
            let line = ["bauta-gateway"].into_iter().chain(words);
            assert!(Cli::try_parse_from(line).is_ok(), "{words:?}");
        }
    }
}
