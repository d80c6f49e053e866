//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    config::{PolicyName, ShapeName},
    dial::Target,
    interfaces::PathName,
    rate::Rate,
    stage::exit,
};

/// Puts this machine, or a single port of it, behind a Bauta gateway.
#[derive(Debug, Parser)]
#[command(name = "bauta", version, about, after_help = exit::HELP)]
pub struct Cli {
    /// Configuration file; without it /etc/bauta/bauta.toml is read if it exists.
    #[arg(long, global = true, env = "BAUTA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File that holds the link; `-` is standard input. BAUTA_LINK holds the link itself.
    #[arg(long, global = true, value_name = "FILE")]
    pub link_file: Option<PathBuf>,
    /// Name of the interface, for more tunnels than one.
    #[arg(long, global = true, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    /// Where a running tunnel keeps its state.
    #[arg(long, global = true, env = "BAUTA_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// This machine's key; /etc/bauta/client.key for root, ~/.config/bauta/client.key for others.
    #[arg(long, global = true, env = "BAUTA_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A certificate (PEM) to show to a gateway that asks for one, instead of that key. Its own private key is in
    /// --key-file (PEM), or in the same file.
    #[arg(long, global = true, env = "BAUTA_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Say more; twice: much more. RUST_LOG says exactly what.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring the tunnel up: interface, routes, name servers, kill switch. Stays in the foreground.
    Up {
        /// The link; `-` reads it from standard input, which keeps it out of the process list.
        link: Option<String>,
        /// Go to the background once the tunnel is up.
        #[arg(long)]
        detach: bool,
        /// An interface that carries the tunnel, beside others if given again; `auto`: every one that leads to
        /// the gateway, as they come and go. Without it the system's routes decide.
        #[arg(long = "path", value_name = "INTERFACE", value_parser = path)]
        paths: Vec<PathName>,
        /// How packets are spread over the paths; `auto` by default.
        #[arg(long, value_name = "POLICY")]
        policy: Option<PolicyName>,
        /// How much of what is sent looks like a browser's; `start` by default.
        #[arg(long, value_name = "SHAPE")]
        shape: Option<ShapeName>,
        /// What the tunnel never exceeds, each way, repair included, such as 50mbit; as fast as the network
        /// allows by default.
        #[arg(long, value_name = "RATE")]
        rate: Option<Rate>,
    },
    /// Take the tunnel down and restore everything, also after a crash.
    Down,
    /// Tell how the tunnel is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Every second, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    /// Let a local port lead to a target behind the gateway. Needs no root.
    Forward {
        /// Which protocol.
        protocol: Protocol,
        /// Where to listen: ADDRESS:PORT, or a port of 127.0.0.1.
        #[arg(value_parser = local)]
        local: SocketAddr,
        /// Where to go, as the gateway sees it: HOST:PORT.
        #[arg(value_parser = target)]
        target: Target,
    },
    /// Serve a SOCKS5 and an HTTP proxy. Needs no root.
    Proxy {
        /// Where SOCKS5 listens; 127.0.0.1:1080 if neither is given.
        #[arg(long, value_parser = local)]
        socks: Option<SocketAddr>,
        /// Where the HTTP proxy listens.
        #[arg(long, value_parser = local)]
        http: Option<SocketAddr>,
    },
    /// Print the public key of this machine, which is made the first time. Whoever runs the gateway lets it in by
    /// `bauta-gateway user add NAME --key KEY`; the link then needs no secret.
    Key {
        /// Make a new one; the old one opens nothing any more from here.
        #[arg(long)]
        replace: bool,
    },
    /// Check the configuration, this machine and the way to the gateway; changes nothing.
    Check,
}

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// By CONNECT-UDP.
    Udp,
    /// By CONNECT.
    Tcp,
}

fn name(text: &str) -> Result<String, String> {
    crate::config::check_name(text).map(|()| text.into())
}

fn path(text: &str) -> Result<PathName, String> {
    text.to_string().try_into()
}

fn local(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(([127, 0, 0, 1], port).into());
    }
    text.parse().map_err(|_| "neither ADDRESS:PORT nor a port".into())
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text, None).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        for line in ["bauta --config c up", "bauta up --config c"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.config, Some("c".into()));
        }
    }

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        let cli =
            Cli::try_parse_from("bauta forward udp 5353 [2001:db8::1]:53".split(' ')).unwrap();
        let Command::Forward { protocol, local, target } = cli.command else { panic!() };
        assert_eq!((protocol, local.to_string()), (Protocol::Udp, "127.0.0.1:5353".into()));
        assert_eq!(target.to_string(), "[2001:db8::1]:53");
    }

    #[test]
    fn help_lists_the_exit_codes() {
        assert!(Cli::command().render_help().to_string().contains("9  status"));
    }
}
