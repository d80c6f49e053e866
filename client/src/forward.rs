//! A local TCP or UDP port that leads to one target behind the gateway.

use std::{collections::HashMap, io, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    time::timeout,
};
use tracing::{debug, warn};

use crate::dial::{Dialer, Target, UdpFlow};

/// A UDP flow without a datagram in either direction for this long is closed (RFC 9298 §3.1 asks for 2 min).
pub const UDP_IDLE: Duration = Duration::from_secs(120);
/// UDP flows of one local port at once; the datagrams of more senders are dropped.
pub const MAX_UDP_FLOWS: usize = 1024;
/// Datagrams that wait while their flow is opened.
const MAX_EARLY: usize = 64;
/// The largest UDP payload, bytes.
pub(crate) const MAX_DATAGRAM: usize = 65_535;
/// How long to wait after accept has failed, of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Forwards TCP connections until the listener fails for good.
pub async fn tcp(listener: TcpListener, dialer: Dialer, target: Target) {
    loop {
        let Some(mut local) = accept(&listener).await else { continue };
        let (dialer, target) = (dialer.clone(), target.clone());
        tokio::task::spawn_local(async move {
            match dialer.tcp(&target).await {
                Ok(mut flow) => drop(copy_bidirectional(&mut local, &mut flow).await),
                Err(error) => {
                    warn!(%target, %error, "not connected");
                    // A reset tells the program more than an orderly end would.
                    let _ = local.set_zero_linger();
                }
            }
        });
    }
}

/// The next connection; `None` after a failure that may pass.
pub(crate) async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            debug!(%error, "accept");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Forwards datagrams, one flow for each local sender.
pub async fn udp(socket: UdpSocket, dialer: Dialer, target: Target) -> io::Result<()> {
    let socket = Rc::new(socket);
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let (ended, mut endings) = mpsc::unbounded_channel();
    let mut buf = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            Some(from) = endings.recv() => drop(senders.remove(&from)),
            received = socket.recv_from(&mut buf) => {
                // ICMP errors about earlier answers come out here and concern nobody else.
                let Ok((n, from)) = received else { continue };
                if let Some(sender) = senders.get(&from) {
                    let _ = sender.try_send(buf[..n].to_vec());
                    continue;
                }
                if senders.len() == MAX_UDP_FLOWS {
                    continue;
                }
                let (sender, datagrams) = mpsc::channel(MAX_EARLY);
                let _ = sender.try_send(buf[..n].to_vec());
                senders.insert(from, sender);
                let (socket, dialer, target, ended) = (socket.clone(), dialer.clone(), target.clone(), ended.clone());
                tokio::task::spawn_local(async move {
                    match dialer.udp(&target).await {
                        Ok(flow) => relay(&socket, from, &flow, datagrams).await,
                        Err(error) => warn!(%target, %error, "no flow"),
                    }
                    let _ = ended.send(from);
                });
            }
        }
    }
}

/// Moves datagrams both ways until the flow ends or is idle.
async fn relay(
    socket: &UdpSocket,
    local: SocketAddr,
    flow: &UdpFlow,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
) {
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
                    // What the local program's socket has no room for is lost, as on any network.
                    Ok(()) => flow.drain(|datagram| drop(socket.try_send_to(datagram, local))),
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
