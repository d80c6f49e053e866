//! The client's way to the gateway over TCP, where UDP does not get through.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bauta_masque_io::{
    clock,
    tcp::client::{Dialled, TcpError},
    tls::TcpTls,
};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    config::Settings,
    quic,
    stage::{Failure, Stage},
};

/// What may carry a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC, and TCP where that does not get through.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TCP alone.
    Tcp,
}

/// How long one address may take for TCP's handshake while others wait.
const CONNECT: Duration = Duration::from_secs(3);
/// Silence after which the gateway is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(15);
/// How often it is asked, and how often in vain.
const PROBES: (Duration, u32) = (Duration::from_secs(1), 4);
/// How long what was sent may wait for its acknowledgement before the connection counts as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(4);

/// Connects to the first address that answers, as far as TLS. Returns the round-trip time of TCP's handshake too.
pub async fn dial(
    settings: &Settings,
    gateways: &[SocketAddr],
) -> Result<(Dialled, SocketAddr, Duration), Failure> {
    let identity = settings.credential.certificate();
    let tls = TcpTls::new_as(&quic::roots(settings), identity).map_err(|e| {
        Failure::new(Stage::Certificate, e, "`ca=` in the link names a PEM file; is it there?")
    })?;
    let mut failure = silent(gateways, CONNECT);
    for &gateway in gateways {
        let start = clock::now();
        let tcp = match tokio::time::timeout(CONNECT, connect(settings, gateway)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => {
                failure = Failure::new(
                    Stage::Handshake,
                    format_args!("TCP to {gateway}: {e}"),
                    "is the gateway running?",
                );
                continue;
            }
            Err(_) => continue,
        };
        let rtt = since(start);
        match Dialled::new(tcp, &settings.sni, &tls).await {
            Ok(dialled) => return Ok((dialled, gateway, rtt)),
            Err(TcpError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
                failure = Failure::certificate(&settings.sni, e);
            }
            Err(e) => {
                failure = Failure::new(
                    Stage::Handshake,
                    format_args!("TLS with {gateway} over TCP: {e}"),
                    "is it a Bauta gateway, and is the clock of this machine right?",
                );
            }
        }
    }
    Err(failure)
}

/// Nothing answers over TCP either.
pub fn silent(gateways: &[SocketAddr], after: Duration) -> Failure {
    let list = gateways.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    Failure::new(
        Stage::Handshake,
        format_args!("no answer from {list} over TCP in {:.0} s", after.as_secs_f32()),
        "is the gateway running, and does this network let that port pass?",
    )
}

fn since(start: Instant) -> Duration {
    clock::now().saturating_duration_since(start)
}

async fn connect(settings: &Settings, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, Some(Protocol::TCP))?;
    // Without the mark a full tunnel would swallow its own packets; without one, none is needed.
    let _ = socket.set_mark(settings.mark);
    let (interval, times) = PROBES;
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(interval).with_retries(times);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(gateway).await
}
