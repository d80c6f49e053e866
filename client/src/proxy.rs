//! Local SOCKS5 and HTTP proxies whose connections the gateway makes.

use std::{collections::HashMap, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    dial::{DialError, Dialer, Target, UdpFlow},
    forward::{MAX_DATAGRAM, MAX_UDP_FLOWS, UDP_IDLE, accept},
    http_proxy,
    socks::{self, Reply},
};

/// How long a program may take to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Datagrams that wait while their flow is opened.
const MAX_EARLY: usize = 64;

/// Serves SOCKS5.
pub async fn socks(listener: TcpListener, dialer: Dialer) {
    loop {
        let Some(mut local) = accept(&listener).await else { continue };
        let dialer = dialer.clone();
        tokio::task::spawn_local(async move {
            match timeout(HANDSHAKE, socks::accept(&mut local)).await {
                Ok(Ok(socks::Request::Connect(target))) => {
                    drop(socks_connect(local, dialer, target).await);
                }
                Ok(Ok(socks::Request::UdpAssociate)) => drop(associate(local, dialer).await),
                Ok(Err(error)) => debug!(%error, "SOCKS"),
                Err(_) => {}
            }
        });
    }
}

async fn socks_connect(mut local: TcpStream, dialer: Dialer, target: Target) -> io::Result<()> {
    match dialer.tcp(&target).await {
        Ok(mut flow) => {
            socks::reply(&mut local, Reply::Succeeded, None).await?;
            copy_bidirectional(&mut local, &mut flow).await.map(drop)
        }
        Err(error) => {
            warn!(%target, %error, "not connected");
            let reply = match error.kind() {
                io::ErrorKind::ConnectionRefused => Reply::Refused,
                io::ErrorKind::PermissionDenied => Reply::NotAllowed,
                io::ErrorKind::HostUnreachable | io::ErrorKind::TimedOut => Reply::HostUnreachable,
                _ => Reply::Failure,
            };
            socks::reply(&mut local, reply, None).await
        }
    }
}

/// UDP ASSOCIATE: the relay lives as long as the TCP connection it was asked for on (RFC 1928 §7).
async fn associate(mut local: TcpStream, dialer: Dialer) -> io::Result<()> {
    let relay = UdpSocket::bind((local.local_addr()?.ip(), 0)).await?;
    socks::reply(&mut local, Reply::Succeeded, Some(relay.local_addr()?)).await?;
    let peer = local.peer_addr()?;
    let mut byte = [0];
    tokio::select! {
        _ = local.read(&mut byte) => Ok(()),
        outcome = serve_relay(Rc::new(relay), peer, dialer) => outcome,
    }
}

async fn serve_relay(relay: Rc<UdpSocket>, peer: SocketAddr, dialer: Dialer) -> io::Result<()> {
    // The flows go with this future: each task ends when its channel does.
    let mut flows: HashMap<Target, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut program = None;
    let mut buf = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            Some(target) = endings.recv() => drop(flows.remove(&target)),
            received = relay.recv_from(&mut buf) => {
                let Ok((n, from)) = received else { continue };
                // Only the program that asked: the same host, and the port it began with.
                if from.ip() != peer.ip() || *program.get_or_insert(from) != from {
                    continue;
                }
                let Some((target, payload)) = socks::datagram(&buf[..n]) else { continue };
                if let Some(flow) = flows.get(&target) {
                    let _ = flow.try_send(payload.to_vec());
                    continue;
                }
                if flows.len() == MAX_UDP_FLOWS {
                    continue;
                }
                let (sender, datagrams) = mpsc::channel(MAX_EARLY);
                let _ = sender.try_send(payload.to_vec());
                flows.insert(target.clone(), sender);
                let (relay, dialer, ended) = (relay.clone(), dialer.clone(), ended.clone());
                tokio::task::spawn_local(async move {
                    match dialer.udp(&target).await {
                        Ok(flow) => relay_flow(&relay, from, &target, &flow, datagrams).await,
                        Err(error) => warn!(%target, %error, "no flow"),
                    }
                    let _ = ended.send(target);
                });
            }
        }
    }
}

async fn relay_flow(
    relay: &UdpSocket,
    program: SocketAddr,
    target: &Target,
    flow: &UdpFlow,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) {
    let mut packet = socks::datagram_header(target);
    let header = packet.len();
    loop {
        let turn = async {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => {
                        flow.send(&datagram);
                    }
                    None => return false,
                },
                readable = flow.readable() => match readable {
                    Ok(()) => flow.drain(|datagram| {
                        packet.truncate(header);
                        packet.extend_from_slice(datagram);
                        let _ = relay.try_send_to(&packet, program);
                    }),
                    Err(_) => return false,
                },
            }
            true
        };
        if timeout(UDP_IDLE, turn).await != Ok(true) {
            return;
        }
    }
}

/// Serves the HTTP proxy.
pub async fn http(listener: TcpListener, dialer: Dialer) {
    loop {
        let Some(mut local) = accept(&listener).await else { continue };
        let dialer = dialer.clone();
        tokio::task::spawn_local(async move {
            match timeout(HANDSHAKE, http_proxy::read(&mut local)).await {
                Ok(Ok(request)) => drop(http_request(local, dialer, request).await),
                Ok(Err(http_proxy::HttpProxyError::Io(_))) | Err(_) => {}
                Ok(Err(error)) => {
                    drop(answer(&mut local, error.status(), &error.to_string()).await);
                }
            }
        });
    }
}

async fn http_request(
    mut local: TcpStream,
    dialer: Dialer,
    request: http_proxy::Request,
) -> io::Result<()> {
    let mut flow = match dialer.tcp(&request.target).await {
        Ok(flow) => flow,
        Err(error) => {
            warn!(target = %request.target, %error, "not connected");
            let status = match (&error, error.kind()) {
                (DialError::TimedOut, _) => "504 Gateway Timeout",
                (_, io::ErrorKind::PermissionDenied) => "403 Forbidden",
                _ => "502 Bad Gateway",
            };
            return answer(&mut local, status, &error.to_string()).await;
        }
    };
    if request.connect {
        local.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    }
    flow.write_all(&request.first).await?;
    copy_bidirectional(&mut local, &mut flow).await.map(drop)
}

async fn answer(local: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    let length = text.len() + 1;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    local.write_all(format!("{head}{text}\n").as_bytes()).await?;
    local.shutdown().await
}
