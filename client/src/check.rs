//! `bauta check`: the configuration, this machine, and the way to the gateway. Changes nothing.

use std::{fmt::Display, io::Write, time::Instant};

use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque_io::{App, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, clock};

use crate::{
    config::Settings,
    connect::{Connector, PATIENCE},
    quic,
    resolve::resolve,
    stage::{Failure, Stage},
};

/// Checks everything and writes a line about each; the first failure that stops `up` is the error.
pub async fn run(settings: &Settings, out: &mut impl Write) -> Result<(), Failure> {
    let mut say = |mark: char, what: &str, detail: &dyn Display| {
        // A closed pipe is not what is being checked.
        let _ = writeln!(out, "{mark} {what:<20} {detail}");
    };
    say('✓', "configuration", &format_args!("{} as {}", settings.server, settings.sni));
    let root = nix::unistd::geteuid().is_root();
    let tun = std::path::Path::new("/dev/net/tun").exists();
    let nft = std::process::Command::new("nft")
        .arg("--version")
        .env_clear()
        .env("PATH", crate::SYSTEM_PATH)
        .output()
        .is_ok_and(|o| o.status.success());
    for (good, what, bad) in [
        (root, "root", "no: `up` needs it; `proxy` and `forward` do not"),
        (tun, "/dev/net/tun", "missing: `modprobe tun`, or pass the device into the container"),
        (nft, "nftables", "`nft` is missing: install nftables, or set `kill_switch = false`"),
    ] {
        let detail: &dyn Display = if good { &"there" } else { &bad };
        say(if good { '✓' } else { '!' }, what, detail);
    }
    let found = resolve(&settings.server, &settings.addr).await?;
    let list = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    say('✓', Stage::Resolve.name(), &list);
    let probe = probe(settings, &found).await?;
    say('✓', Stage::Handshake.name(), &format_args!("round trip {:.1} ms", probe.rtt_ms));
    say('✓', Stage::Certificate.name(), &"accepted");
    if !probe.extended_connect {
        return Err(Failure::new(
            Stage::Settings,
            "the server does not take extended CONNECT",
            "it is no MASQUE gateway; is the host in the link right?",
        ));
    }
    let datagrams = if probe.datagrams { "and HTTP Datagrams" } else { "but no HTTP Datagrams" };
    say('✓', Stage::Settings.name(), &format_args!("extended CONNECT {datagrams}"));
    say('!', "credential", &"not tried: that would take an address; `bauta up` tells");
    Ok(())
}

struct Probe {
    rtt_ms: f64,
    extended_connect: bool,
    datagrams: bool,
}

/// Connects, reads the SETTINGS, and leaves.
async fn probe(settings: &Settings, found: &[std::net::SocketAddr]) -> Result<Probe, Failure> {
    let mut endpoint = Endpoint::client(quic::socket(settings)?, EndpointConfig::default())
        .map_err(|e| Failure::new(Stage::Handshake, e, "this is a fault of the client"))?;
    let mut config = quic::config(settings)?;
    let mut connector = Connector::new(clock::now(), found, &settings.sni, PATIENCE);
    let mut notes = Notes::default();
    loop {
        let now = clock::now();
        endpoint.handle_timeout(now, &mut notes);
        endpoint.handle_readable(now, &mut notes);
        for (id, closed) in notes.closed.drain(..) {
            connector.closed(id, &closed, now);
        }
        if let Some(probe) = notes.probe.take() {
            endpoint.close_all(H3_NO_ERROR, b"");
            endpoint.flush(now, &mut notes);
            return Ok(probe);
        }
        connector.advance(now, &mut endpoint, &mut config)?;
        endpoint.flush(now, &mut notes);
        let due = endpoint
            .timeout()
            .map_or(connector.timeout(), |at: Instant| at.min(connector.timeout()));
        tokio::select! {
            _ = endpoint.readable() => {}
            () = endpoint.writable() => {}
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
}

#[derive(Default)]
struct Notes {
    probe: Option<Probe>,
    closed: Vec<(bauta_masque_io::ConnId, bauta_masque_io::Closed)>,
}

impl App for Notes {
    fn datagram(&mut self, _: &mut Connection, _: u64, _: DatagramBuf) {}

    fn event(&mut self, conn: &mut Connection, event: Event) {
        match event {
            Event::Settings => {
                self.probe = Some(Probe {
                    rtt_ms: conn.rtt().as_secs_f64() * 1e3,
                    extended_connect: conn.extended_connect_enabled(),
                    datagrams: conn.datagrams_enabled(),
                });
            }
            Event::Closed(closed) => self.closed.push((conn.id(), closed)),
            _ => {}
        }
    }
}
