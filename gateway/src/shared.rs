//! What all threads share: read-mostly, lock-free where packets pass.

use std::sync::Arc;

use bauta_masque::address::Prefix;
use bauta_masque::filter::Policy;
use bauta_masque::request::Templates;
use tokio::sync::mpsc;

use crate::accounts::Accounts;
use crate::config::{Config, Net};
use crate::dial::Dialer;
use crate::metrics::Metrics;
use crate::pool::{Plan, SharedPool};
use crate::worker::Message;

/// Everything the workers and the TCP side have in common.
pub struct Shared {
    /// The configuration as it was at the start.
    pub config: Config,
    /// Who may tunnel.
    pub accounts: Accounts,
    /// Where tunnels are offered.
    pub templates: Templates,
    /// What opens the way to targets.
    pub dialer: Dialer,
    /// Client addresses; absent without CONNECT-IP.
    pub pool: Option<SharedPool>,
    /// Everybody's counters.
    pub metrics: Metrics,
    /// The workers' mailboxes, in order.
    pub workers: Vec<mpsc::Sender<Message>>,
}

/// Everything behind one `Arc`.
pub type Everything = Arc<Shared>;

/// The policy of a configuration; `own` are this machine's addresses.
pub fn policy(config: &Config, plan: Option<&Plan>, own: Vec<std::net::IpAddr>) -> Policy {
    let tunnel = &config.tunnel;
    let prefixes = |nets: &[Net]| nets.iter().map(prefix).collect();
    Policy {
        deny: prefixes(&tunnel.deny),
        allow: prefixes(&tunnel.allow),
        own,
        pools: plan.into_iter().flat_map(Plan::nets).map(|net| prefix(&net)).collect(),
        client_to_client: tunnel.client_to_client,
    }
}

fn prefix(net: &Net) -> Prefix {
    Prefix::around(net.addr, net.len)
}

/// Every address of this machine.
pub fn own_addresses() -> Vec<std::net::IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| std::net::IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| std::net::IpAddr::V6(a.ip())))
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
