//! The program; everything is in the library.

use std::process::ExitCode;

use bauta_gateway::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bauta-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}
