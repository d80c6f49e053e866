//! Receive rings for the workers, opened while the process may.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bauta_xdp::{Attachment, FRAME_COUNT, FRAME_SIZE, Filter, Mode, XskRing};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// What there is beside the UDP sockets.
pub(super) struct Ingress {
    /// Held for as long as the workers run: the programs leave the interfaces with them.
    attachments: Vec<Attachment>,
    /// The rings of each worker.
    pub(super) rings: Vec<Vec<XskRing>>,
    /// Each worker has a queue of each interface, and a connection's datagrams keep to one.
    keeps: bool,
}

impl Ingress {
    /// Nothing but the sockets.
    fn none(workers: usize) -> Self {
        let rings = (0..workers).map(|_| Vec::new()).collect();
        Self { attachments: Vec::new(), rings, keeps: true }
    }

    /// Opens what `[xdp]` asks for, as far as it can be had; says what, and why not. To be called
    /// before privileges are dropped, and after the sockets were bound: until then another program
    /// may be receiving on the port.
    pub(super) fn open(config: &Config, workers: usize) -> Self {
        let mut ingress = Self::none(workers);
        let modes = config.xdp.mode.modes();
        if modes.is_empty() {
            return ingress;
        }
        let mut interfaces = config.xdp.interfaces.clone();
        if interfaces.is_empty() {
            interfaces = likely_interfaces(config.listen.ip());
        }
        if interfaces.is_empty() {
            tracing::warn!("no interface has a default route; name one in [xdp] interfaces");
        }
        for interface in &interfaces {
            ingress.add(interface, config.listen, modes);
        }
        if ingress.attachments.is_empty() {
            tracing::warn!(
                "no ring could be had: the UDP socket alone receives, as with [xdp] mode = \"off\""
            );
        }
        ingress
    }

    fn add(&mut self, interface: &str, listen: SocketAddr, modes: &[Mode]) {
        let queues = match bauta_xdp::queue_count(interface) {
            Ok(queues) => queues as usize,
            Err(error) => return tracing::warn!("XDP: {error}"),
        };
        let filter = match Filter::listening(&addresses(interface, listen)) {
            Ok(filter) => filter,
            Err(error) => return tracing::warn!(interface, "XDP: {error}"),
        };
        let before: usize = self.rings.iter().map(Vec::len).sum();
        allow_memory(before + queues);
        let opened = bauta_xdp::open(interface, &filter, modes);
        for step in &opened.steps {
            match &step.outcome {
                Ok(()) => tracing::info!(interface, "XDP: {step}"),
                Err(_) => tracing::warn!(interface, "XDP: {step}"),
            }
        }
        let Some(opened) = opened.ingress else { return };
        let workers = self.rings.len();
        // Behind the driver datagrams may have been merged, which then take the socket's way.
        self.keeps &= opened.attachment.mode() == Mode::Native && opened.rings.len() >= workers;
        for (at, ring) in (before..).zip(opened.rings) {
            self.rings[at % workers].push(ring);
        }
        self.attachments.push(opened.attachment);
    }

    /// Whether there are no rings.
    pub(super) fn is_none(&self) -> bool {
        self.attachments.is_empty()
    }

    /// Whether all datagrams of a connection arrive where its first one did.
    pub(super) fn keeps_connections(&self) -> bool {
        self.keeps && !self.attachments.is_empty()
    }

    /// How datagrams come in, for the log.
    pub(super) fn describe(&self) -> &'static str {
        let mut modes = self.attachments.iter().map(Attachment::mode);
        match modes.next() {
            None => "socket",
            Some(first) if modes.any(|mode| mode != first) => "rings and socket",
            Some(Mode::Native) => "native rings and socket",
            Some(Mode::Skb) => "SKB rings and socket",
        }
    }
}

/// What is for us among an interface's traffic. On a machine that forwards, "any address" would
/// include those of others, so the interface's own are named; one that comes later is served by the
/// socket.
fn addresses(interface: &str, listen: SocketAddr) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let own = interface_addresses().filter(|(name, _)| name == interface).map(|(_, ip)| ip);
    let served = own.filter(|ip| listen.is_ipv6() || ip.is_ipv4());
    served.map(|ip| SocketAddr::new(ip, listen.port())).collect()
}

fn interface_addresses() -> impl Iterator<Item = (String, IpAddr)> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
        Some((interface.interface_name, ip))
    })
}

/// The interfaces that hold the address, or, for any address, have a default route.
fn likely_interfaces(listen: IpAddr) -> Vec<String> {
    if !listen.is_unspecified() {
        let found = interface_addresses().filter(|(_, ip)| *ip == listen.to_canonical());
        return found.map(|(name, _)| name).collect::<BTreeSet<_>>().into_iter().collect();
    }
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    default_routes(&read("/proc/self/net/route"), &read("/proc/self/net/ipv6_route"))
}

/// From the kernel's tables of IPv4 and IPv6 routes.
fn default_routes(v4: &str, v6: &str) -> Vec<String> {
    let none = "00000000";
    let v4 = v4.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (*fields.get(1)? == none && *fields.get(7)? == none).then(|| fields[0].to_owned())
    });
    let v6 = v6.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let default = *fields.get(1)? == "00" && fields[0].bytes().all(|b| b == b'0');
        // The kernel's own, which refuses everything, is on loopback.
        let interface = *fields.get(9)?;
        (default && interface != "lo").then(|| interface.to_owned())
    });
    v4.chain(v6).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Lets the process pin the memory of so many rings, if it may; else opening them says what lacks.
fn allow_memory(rings: usize) {
    let wanted = ((rings + 1) * FRAME_COUNT * FRAME_SIZE) as u64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, wanted, hard.max(wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_with_a_default_route_are_found_in_both_families() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth2\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n";
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003 eth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n\
             fd000000000000000000000000000000 08 {zero} 00 {zero} 00000100 1 0 00000001 eth3\n"
        );
        assert_eq!(default_routes(v4, &v6), ["eth0", "eth1"]);
        assert!(default_routes("", "").is_empty());
    }

    #[test]
    fn any_address_means_those_of_the_interface() {
        let on = |listen: &str| addresses("lo", listen.parse().unwrap());
        assert!(on("[::]:443").contains(&"127.0.0.1:443".parse().unwrap()));
        assert!(on("0.0.0.0:443").iter().all(SocketAddr::is_ipv4));
        assert_eq!(on("192.0.2.1:443"), ["192.0.2.1:443".parse().unwrap()]);
        assert!(addresses("no-such-device", "[::]:443".parse().unwrap()).is_empty());
    }
}
