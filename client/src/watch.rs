//! Changes of addresses and routes, so that the connection can move with them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::StreamExt;
use rtnetlink::{MulticastGroup, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage};
use tokio::{sync::mpsc, time::timeout};

/// Changes come in bursts: an address goes, a route goes, another comes. One look after each burst is enough.
const SETTLE: Duration = Duration::from_millis(100);
/// A burst that does not end is looked at this often.
const MAX_SETTLE: u32 = 10;

/// Sends a message after each burst of changes, until the receiver is dropped.
pub fn changes() -> io::Result<mpsc::Receiver<()>> {
    let groups = [
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Link,
    ];
    let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        // The handle keeps the connection open.
        let _handle = handle;
        while let Some((message, _)) = messages.next().await {
            if !matches!(message.payload, NetlinkPayload::InnerMessage(ref m) if matters(m)) {
                continue;
            }
            for _ in 0..MAX_SETTLE {
                match timeout(SETTLE, messages.next()).await {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
            if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
    });
    Ok(told)
}

fn matters(message: &RouteNetlinkMessage) -> bool {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink, NewRoute};
    matches!(
        message,
        NewAddress(_) | DelAddress(_) | NewRoute(_) | DelRoute(_) | NewLink(_) | DelLink(_)
    )
}

/// The address the kernel would send from towards `peer`, for packets that carry `mark`; `None` without a route.
pub fn source(peer: SocketAddr, mark: Option<u32>) -> Option<IpAddr> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A connected UDP socket asks the routing table and sends nothing.
    let socket = std::net::UdpSocket::bind(any).ok()?;
    if let Some(mark) = mark {
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &mark);
    }
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_towards_loopback_is_loopback() {
        let source = source("127.0.0.1:9".parse().unwrap(), None);
        assert_eq!(source, Some("127.0.0.1".parse().unwrap()));
    }
}
