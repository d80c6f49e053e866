//! `bauta check`: the configuration, this machine, and the way to the gateway. Changes nothing.

use std::{
    fmt::Display,
    io::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque_io::{
    App, Connection, DatagramBuf, Endpoint, EndpointConfig, Event, clock, tcp::Version,
};

use crate::{
    config::Settings,
    connect::{self, Connector},
    quic,
    resolve::resolve,
    stage::{Failure, Stage},
    tcp::{self, Transport},
};

const UNTRIED: &str = "not tried: that would take an address; `bauta up` tells";

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
    let quic = match settings.transport {
        Transport::Tcp => None,
        Transport::Auto | Transport::Quic => Some(probe(settings, &found).await),
    };
    let probe = match quic {
        Some(Ok(probe)) => {
            say('✓', Stage::Handshake.name(), &format_args!("round trip {:.1} ms", probe.rtt_ms));
            probe
        }
        Some(Err(failure))
            if settings.transport == Transport::Quic || failure.stage == Stage::Certificate =>
        {
            return Err(failure);
        }
        quic => {
            if quic.is_some() {
                say('!', "UDP", &"does not get through: flows and the tunnel go over TCP");
            }
            let over_tcp = probe_tcp(settings, &found).await;
            // Where both are silent, the first has more to say.
            let (rtt, version) = match (over_tcp, quic) {
                (Ok(found), _) => found,
                (Err(tcp), Some(Err(quic))) if tcp.stage == Stage::Handshake => return Err(quic),
                (Err(tcp), _) => return Err(tcp),
            };
            let rtt_ms = rtt.as_secs_f64() * 1e3;
            let how = format_args!("round trip {rtt_ms:.1} ms over TCP");
            say('✓', Stage::Handshake.name(), &how);
            say('✓', Stage::Certificate.name(), &"accepted");
            say(
                '✓',
                Stage::Settings.name(),
                &match version {
                    Version::Http2 => "HTTP/2 with extended CONNECT",
                    Version::Http1 => "HTTP/1.1, where only asking tells more",
                },
            );
            say('!', "credential", &UNTRIED);
            return Ok(());
        }
    };
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
    say('!', "credential", &UNTRIED);
    Ok(())
}

/// The same over TCP, with the round trip of TCP's handshake.
async fn probe_tcp(
    settings: &Settings,
    found: &[SocketAddr],
) -> Result<(Duration, Version), Failure> {
    let (dialled, _, rtt) = tcp::dial(settings, found).await?;
    let unfit = |e| {
        let advice = "it is no MASQUE gateway; is the host in the link right?";
        Failure::new(Stage::Settings, format_args!("over TCP: {e}"), advice)
    };
    let mut requests = dialled.begin().await.map_err(unfit)?;
    requests.extended_connect().await.map_err(unfit)?;
    Ok((rtt, requests.version()))
}

struct Probe {
    rtt_ms: f64,
    extended_connect: bool,
    datagrams: bool,
}

/// Connects, reads the SETTINGS, and leaves.
async fn probe(settings: &Settings, found: &[SocketAddr]) -> Result<Probe, Failure> {
    let mut endpoint = Endpoint::client(quic::socket(settings)?, EndpointConfig::default())
        .map_err(|e| Failure::new(Stage::Handshake, e, "this is a fault of the client"))?;
    let mut config = quic::config(settings)?;
    // Where TCP is left to try, nobody waits for QUIC's last word.
    let patience = match settings.transport {
        Transport::Auto => connect::RETRY,
        Transport::Quic | Transport::Tcp => connect::PATIENCE,
    };
    let mut connector = Connector::new(clock::now(), found, &settings.sni, patience);
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
