//! The socket and the QUIC configuration of the client, the same for tunnels and single flows.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use bauta_masque_io::{
    QuicConfig,
    tls::{self, ClientTls, Roots, TransportConfig},
    udp::{BindOptions, UdpSocket},
};

use crate::{
    config::Settings,
    stage::{Failure, Stage},
};

/// A socket for both families, or for IPv4 where there is no IPv6. It carries the tunnel's mark where that is
/// permitted, so that a full tunnel on the same machine does not swallow it.
pub fn socket(settings: &Settings) -> Result<UdpSocket, Failure> {
    bind(Some(settings.mark))
        .or_else(|_| bind(None))
        .map_err(|e| Failure::new(Stage::Handshake, e, "does this machine have a network?"))
}

/// A socket that carries the mark, without which a full tunnel would swallow its own packets.
pub fn marked_socket(settings: &Settings) -> Result<UdpSocket, Failure> {
    bind(Some(settings.mark)).map_err(|e| {
        Failure::new(Stage::Privileges, e, "`up` needs root, or CAP_NET_ADMIN in a container")
    })
}

/// The same over one interface.
pub fn bound_socket(settings: &Settings, device: Option<&str>) -> Result<UdpSocket, Failure> {
    let device = device.map(Into::into);
    let options = BindOptions { mark: Some(settings.mark), device, ..BindOptions::default() };
    bind_with(&options).map_err(|e| {
        Failure::new(Stage::Privileges, e, "`up` needs root, or CAP_NET_ADMIN in a container")
    })
}

fn bind(mark: Option<u32>) -> io::Result<UdpSocket> {
    bind_with(&BindOptions { mark, ..BindOptions::default() })
}

fn bind_with(options: &BindOptions) -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0).into(), options)
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into(), options))
}

/// What connections that carry tunnels are made with.
pub fn tunnel_config(settings: &Settings) -> Result<QuicConfig, Failure> {
    let transport = TransportConfig::client();
    make(settings, if settings.resilience { transport.tunnel() } else { transport })
}

/// What connections are made with. Reads the authorities: once at the start, not again.
pub fn config(settings: &Settings) -> Result<QuicConfig, Failure> {
    make(settings, TransportConfig::client())
}

fn make(settings: &Settings, transport: TransportConfig) -> Result<QuicConfig, Failure> {
    let tls = ClientTls { roots: roots(settings), transport };
    tls::quic_client_config_as(&tls, settings.credential.certificate()).map_err(|e| {
        Failure::new(
            Stage::Certificate,
            e,
            "`ca=` in the link names a PEM file; is it there and readable?",
        )
    })
}

/// Whom to trust to name the gateway.
pub fn roots(settings: &Settings) -> Roots {
    match (&settings.pin, &settings.ca) {
        (Some(pin), _) => Roots::PinnedSpki(pin.0),
        (None, Some(ca)) => Roots::Pem(ca.clone()),
        (None, None) => Roots::System,
    }
}
