//! From a target's name to a socket: resolution, policy, connection. Every refusal says what an
//! account holder is told (RFC 9209).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bauta_masque::address::Prefix;
use bauta_masque::filter::{Policy, Prohibited};
use bauta_masque::proxy_status::{ProxyError, ProxyStatus};
use bauta_masque_io::udp::{BindOptions, UdpSocket};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Names resolved at once; the system's resolver needs a thread for each.
const MAX_LOOKUPS: usize = 64;

/// Addresses of one name that are looked at.
const MAX_ADDRESSES: usize = 16;

/// Kernel buffers of a flow's socket, in bytes: a tenth of a second at 20 Mbit/s.
const FLOW_BUFFER: usize = 256 * 1024;

/// A tunnel refused, and what the account holder is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of failure, with its status code.
    pub error: ProxyError,
    /// For people.
    pub details: Option<String>,
}

impl Refusal {
    /// The `Proxy-Status` value of the deployment called `domain`.
    pub fn proxy_status(&self, domain: &str) -> String {
        let status = ProxyStatus::new(domain).error(self.error);
        match &self.details {
            Some(details) => status.details(details).value().to_owned(),
            None => status.value().to_owned(),
        }
    }
}

impl From<ProxyError> for Refusal {
    fn from(error: ProxyError) -> Self {
        Self { error, details: None }
    }
}

impl From<Prohibited> for Refusal {
    fn from(why: Prohibited) -> Self {
        Self { error: why.into(), details: Some(why.to_string()) }
    }
}

/// Opens what tunnels lead to.
#[derive(Debug)]
pub struct Dialer {
    policy: ArcSwap<Policy>,
    lookups: Semaphore,
    dns_timeout: Duration,
    connect_timeout: Duration,
}

impl Dialer {
    /// With these times to wait.
    pub fn new(policy: Policy, dns_timeout: Duration, connect_timeout: Duration) -> Self {
        let policy = ArcSwap::from_pointee(policy);
        Self { policy, lookups: Semaphore::new(MAX_LOOKUPS), dns_timeout, connect_timeout }
    }

    /// Tells it this machine's addresses, if they changed.
    pub fn set_own(&self, own: Vec<IpAddr>) {
        let policy = self.policy.load();
        if policy.own != own {
            self.policy.store(Arc::new(Policy { own, ..Policy::clone(&policy) }));
        }
    }

    /// Where tunnels may go.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The addresses of `host` that the policy permits, at least one. IPv4 and IPv6 alike.
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Refusal> {
        let found = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.look_up(host).await?,
        };
        let policy = self.policy.load();
        let mut prohibited = None;
        let permitted: Vec<_> = found
            .into_iter()
            .filter(|ip| policy.check(*ip).map_err(|why| prohibited = Some(why)).is_ok())
            .collect();
        match (permitted.is_empty(), prohibited) {
            (false, _) => Ok(permitted),
            (true, Some(why)) => Err(why.into()),
            (true, None) => Err(ProxyError::DnsError.into()),
        }
    }

    /// Refuses a prefix of which the policy permits neither end.
    pub fn permit(&self, prefix: Prefix) -> Result<(), Refusal> {
        let policy = self.policy.load();
        match (policy.check(prefix.addr), policy.check(prefix.last())) {
            (Err(why), Err(_)) => Err(why.into()),
            _ => Ok(()),
        }
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, Refusal> {
        let lookup = async {
            let _slot = self.lookups.acquire().await;
            tokio::net::lookup_host((host, 0)).await
        };
        match timeout(self.dns_timeout, lookup).await {
            Err(_) => Err(ProxyError::DnsTimeout.into()),
            Ok(Err(e)) => {
                let details = Some(format!("the name does not resolve: {e}"));
                Err(Refusal { error: ProxyError::DnsError, details })
            }
            Ok(Ok(found)) => {
                let mut addresses: Vec<IpAddr> = Vec::new();
                for ip in found.map(|a| a.ip().to_canonical()).take(MAX_ADDRESSES) {
                    if !addresses.contains(&ip) {
                        addresses.push(ip);
                    }
                }
                Ok(addresses)
            }
        }
    }

    /// A socket connected to `host` (RFC 9298 §3.1), on its first address there is a route to.
    pub async fn udp(&self, host: &str, port: u16) -> Result<UdpSocket, Refusal> {
        let options = BindOptions {
            send_buffer: FLOW_BUFFER,
            recv_buffer: FLOW_BUFFER,
            ..BindOptions::default()
        };
        let mut last = ProxyError::DestinationUnavailable.into();
        for ip in self.resolve(host).await? {
            match UdpSocket::connected(SocketAddr::new(ip, port), &options) {
                Ok(socket) => return Ok(socket),
                Err(e) => last = refusal(&e),
            }
        }
        Err(last)
    }

    /// A TCP connection to `host`: its addresses are tried in turn, within one time limit.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, Refusal> {
        let addresses = self.resolve(host).await?;
        let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut last = ProxyError::DestinationUnavailable.into();
        for ip in addresses {
            match timeout(share, TcpStream::connect((ip, port))).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(e)) => last = refusal(&e),
                Err(_) => last = ProxyError::ConnectionTimeout.into(),
            }
        }
        Err(last)
    }
}

fn refusal(e: &io::Error) -> Refusal {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let error = match e.kind() {
        ConnectionRefused => ProxyError::ConnectionRefused,
        NetworkUnreachable => ProxyError::DestinationIpUnroutable,
        TimedOut => ProxyError::ConnectionTimeout,
        HostUnreachable => ProxyError::DestinationUnavailable,
        // Descriptors, ports or memory are used up: ours to mend.
        _ => ProxyError::ProxyInternalError,
    };
    Refusal { error, details: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(allow: &[&str]) -> Dialer {
        let host = |ip: &&str| Prefix::host(ip.parse().unwrap());
        let policy = Policy { allow: allow.iter().map(host).collect(), ..Policy::default() };
        Dialer::new(policy, Duration::from_secs(2), Duration::from_secs(2))
    }

    #[tokio::test]
    async fn prohibited_addresses_are_refused_before_any_socket() {
        for host in ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "224.0.0.1", "localhost"] {
            let refusal = dialer(&[]).udp(host, 53).await.unwrap_err();
            assert_eq!(refusal.error, ProxyError::DestinationIpProhibited, "{host}");
        }
        let refusal = dialer(&[]).tcp("127.0.0.1", 1).await.unwrap_err();
        let status = refusal.proxy_status("example.org");
        assert!(status.starts_with("example.org; error=destination_ip_prohibited"), "{status}");
    }

    #[tokio::test]
    async fn what_is_allowed_by_name_connects() {
        let dialer = dialer(&["127.0.0.1"]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(dialer.tcp("127.0.0.1", port).await.is_ok());
        assert!(dialer.tcp("localhost", port).await.is_ok(), "::1 is skipped, 127.0.0.1 is not");
        drop(listener);
        let refused = dialer.tcp("127.0.0.1", port).await.unwrap_err();
        assert_eq!(refused.error, ProxyError::ConnectionRefused);
        let socket = dialer.udp("127.0.0.1", port).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_a_dns_error() {
        let refusal = dialer(&[]).resolve("no-such-name.invalid").await.unwrap_err();
        let dns = [ProxyError::DnsError, ProxyError::DnsTimeout];
        assert!(dns.contains(&refusal.error), "{refusal:?}");
    }
}
