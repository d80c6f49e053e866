//! Clients, a gateway and an internet: the network every end-to-end test shares.
//!
//! ```text
//! client-N wan ──(veth or emulated link)── accessN gateway uplink ──veth── inet internet
//!   198.51.100.(2+N)              198.51.100.1         203.0.113.1      203.0.113.2
//!   2001:db8:1::(2+N)             2001:db8:1::1        2001:db8:2::1    2001:db8:2::2
//! ```
//!
//! Clients have a default route towards the gateway, so that what leaks can be seen; the gateway
//! has one towards the internet and, by itself, forwards nothing. The internet knows its own
//! network alone: an answer from it proves translation of addresses.

use std::time::Duration;

use crate::clock::poll_until;
use crate::error::{LabError, Result};
use crate::link::{Emulator, End, LinkPair, LinkSpec};
use crate::net::{Namespace, Net};

/// The most clients: 198.51.100.2 to .200.
const CLIENTS_MAX: usize = 199;
/// The most paths of one client.
const PATHS_MAX: usize = 16;
/// How long a fresh device may take to be routed by.
const SETTLE: Duration = Duration::from_secs(2);
/// The MTUs a router between may have.
const ROUTER_MTU: std::ops::RangeInclusive<usize> = 576..=1500;

/// The addresses of [`Topology`].
pub mod addresses {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The gateway, as clients reach it.
    pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    /// The gateway, as clients reach it.
    pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    /// The gateway, as the internet sees it.
    pub const UPLINK_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// The gateway, as the internet sees it.
    pub const UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
    /// A host of the internet.
    pub const INTERNET_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
    /// A host of the internet.
    pub const INTERNET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

    /// Client number `n`, from 0, on its path number `path`, from 0.
    #[must_use]
    pub fn client_v4(n: usize, path: usize) -> Ipv4Addr {
        let host = u8::try_from(n + 2).unwrap_or(u8::MAX);
        match u8::try_from(path).unwrap_or(u8::MAX) {
            0 => Ipv4Addr::new(198, 51, 100, host),
            path => Ipv4Addr::new(10, 81, path, host),
        }
    }

    /// Client number `n`, from 0, on its path number `path`, from 0.
    #[must_use]
    pub fn client_v6(n: usize, path: usize) -> Ipv6Addr {
        let host = u16::try_from(n + 2).unwrap_or(u16::MAX);
        let net = u16::try_from(path).unwrap_or(u16::MAX);
        Ipv6Addr::new(0x2001, 0xdb8, 1, net, 0, 0, 0, host)
    }
}

use addresses::{
    GATEWAY_V4, GATEWAY_V6, INTERNET_V4, INTERNET_V6, UPLINK_V4, UPLINK_V6, client_v4, client_v6,
};

/// The routers' addresses on either side of the gateway.
const OUTER_HOP: [&str; 2] = ["198.51.100.254", "2001:db8:1::fe"];
const INNER_HOP: [&str; 2] = ["203.0.113.254", "2001:db8:2::fe"];

/// What a client's path to the gateway is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// A veth pair: as fast as the machine.
    Veth,
    /// An emulated link; the client is its A, so that "up" is from the client.
    Link(Box<LinkPair>),
}

impl From<LinkPair> for Access {
    fn from(pair: LinkPair) -> Self {
        Self::Link(Box::new(pair))
    }
}

impl From<LinkSpec> for Access {
    fn from(spec: LinkSpec) -> Self {
        LinkPair::symmetric(spec).into()
    }
}

/// What to build; see [`Topology::builder`].
#[derive(Debug, Clone)]
pub struct TopologyBuilder {
    clients: usize,
    paths: Vec<Access>,
    outer_mtu: Option<usize>,
    inner_mtu: Option<usize>,
}

/// The network. Dropping it removes everything.
#[derive(Debug)]
pub struct Topology {
    /// The emulated links, `links[client][path]`; `None` for a veth.
    pub links: Vec<Vec<Option<Emulator>>>,
    /// The clients.
    pub clients: Vec<Namespace>,
    /// The gateway.
    pub gateway: Namespace,
    /// The internet.
    pub internet: Namespace,
    /// The router between clients and gateway, if asked for.
    pub outer_router: Option<Namespace>,
    /// The router between gateway and internet, if asked for.
    pub inner_router: Option<Namespace>,
    /// What owns them; its folder is for the test's files.
    pub net: Net,
}

impl Topology {
    /// One client by veth, a gateway, an internet.
    pub fn internet() -> Result<Self> {
        Self::builder().build()
    }

    /// One client by veth, to begin with.
    #[must_use]
    pub fn builder() -> TopologyBuilder {
        TopologyBuilder { clients: 1, paths: vec![Access::Veth], outer_mtu: None, inner_mtu: None }
    }

    /// The first client.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.clients[0]
    }

    /// The first client's first link, if it is an emulated one.
    #[must_use]
    pub fn link(&self) -> Option<&Emulator> {
        self.links.first()?.first()?.as_ref()
    }
}

impl TopologyBuilder {
    /// So many clients.
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }

    /// What every client's path is made of.
    #[must_use]
    pub fn access(self, access: impl Into<Access>) -> Self {
        Self { paths: vec![access.into()], ..self }
    }

    /// Several paths for every client: devices `wan`, `wan1`, … with an address each; what is
    /// sent from an address leaves by its own path.
    #[must_use]
    pub fn paths(self, paths: impl IntoIterator<Item = impl Into<Access>>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect(), ..self }
    }

    /// A router with this MTU between the clients and the gateway (first path only). It answers
    /// longer packets by ICMP, in both directions.
    #[must_use]
    pub fn outer_router(self, mtu: usize) -> Self {
        Self { outer_mtu: Some(mtu), ..self }
    }

    /// A router with this MTU between the gateway and the internet.
    #[must_use]
    pub fn inner_router(self, mtu: usize) -> Self {
        Self { inner_mtu: Some(mtu), ..self }
    }

    /// Builds it.
    pub fn build(self) -> Result<Topology> {
        self.check()?;
        let net = Net::new()?;
        let gateway = net.namespace("gateway")?;
        let internet = net.namespace("internet")?;
        let inner_router = self.lay_uplink(&net, &gateway, &internet)?;
        let outer_router = self.outer_mtu.map(|mtu| lay_outer(&net, &gateway, mtu)).transpose()?;
        let (mut clients, mut links) = (Vec::new(), Vec::new());
        for n in 0..self.clients {
            let client = net.namespace(&format!("client-{n}"))?;
            let lay = |(path, access)| match &outer_router {
                Some(router) if path == 0 => {
                    lay_routed(&net, &client, router, &gateway, n, access, self.outer_mtu)
                }
                _ => lay_direct(&net, &client, &gateway, n, path, access),
            };
            links.push(self.paths.iter().enumerate().map(lay).collect::<Result<_>>()?);
            clients.push(client);
        }
        Ok(Topology { links, clients, gateway, internet, outer_router, inner_router, net })
    }

    fn check(&self) -> Result<()> {
        let routers = [self.outer_mtu, self.inner_mtu];
        let right = (1..=CLIENTS_MAX).contains(&self.clients)
            && (1..=PATHS_MAX).contains(&self.paths.len())
            && routers.into_iter().flatten().all(|mtu| ROUTER_MTU.contains(&mtu));
        if right {
            return Ok(());
        }
        Err(LabError::Invalid(format!(
            "a topology has 1 to {CLIENTS_MAX} clients of 1 to {PATHS_MAX} paths, and routers of \
             MTU {} to {}",
            ROUTER_MTU.start(),
            ROUTER_MTU.end()
        )))
    }

    fn lay_uplink(
        &self,
        net: &Net,
        gateway: &Namespace,
        internet: &Namespace,
    ) -> Result<Option<Namespace>> {
        let uplink = [UPLINK_V4.to_string(), UPLINK_V6.to_string()];
        let host = [INTERNET_V4.to_string(), INTERNET_V6.to_string()];
        let Some(mtu) = self.inner_mtu else {
            net.veth((gateway, "uplink"), (internet, "inet"))?;
            for (family, prefix) in ["24", "64"].into_iter().enumerate() {
                gateway.address("uplink", &[&format!("{}/{prefix}", uplink[family])])?;
                internet.address("inet", &[&format!("{}/{prefix}", host[family])])?;
                default_via(gateway, &host[family], "uplink")?;
            }
            return Ok(None);
        };
        let router = router(net, "inner-router")?;
        net.veth((gateway, "uplink"), (&router, "gateway"))?;
        net.veth((&router, "internet"), (internet, "inet"))?;
        for (family, hop) in INNER_HOP.into_iter().enumerate() {
            gateway.address("uplink", &[&uplink[family]])?;
            internet.address("inet", &[&host[family]])?;
            default_via(gateway, hop, "uplink")?;
            internet.route(&format!("{} via {hop} dev inet onlink", uplink[family]))?;
            router.address("gateway", &[hop])?;
            router.address("internet", &[hop])?;
            router.route(&format!("{} dev gateway mtu lock {mtu}", uplink[family]))?;
            router.route(&format!("{} dev internet mtu lock {mtu}", host[family]))?;
        }
        Ok(Some(router))
    }
}

/// The outer router and its side towards the gateway.
fn lay_outer(net: &Net, gateway: &Namespace, mtu: usize) -> Result<Namespace> {
    let router = router(net, "outer-router")?;
    net.veth((&router, "gateway"), (gateway, "access0"))?;
    let served = [GATEWAY_V4.to_string(), GATEWAY_V6.to_string()];
    for (served, hop) in served.iter().zip(OUTER_HOP) {
        gateway.address("access0", &[served])?;
        router.address("gateway", &[hop])?;
        router.route(&format!("{served} dev gateway mtu lock {mtu}"))?;
        router.route(&format!("default via {served} dev gateway onlink"))?;
    }
    Ok(router)
}

/// A client behind the outer router.
fn lay_routed(
    net: &Net,
    client: &Namespace,
    router: &Namespace,
    gateway: &Namespace,
    n: usize,
    access: &Access,
    mtu: Option<usize>,
) -> Result<Option<Emulator>> {
    let port = format!("client{n}");
    let link = lay_wire(net, (client, "wan"), (router, &port), access)?;
    let own = [client_v4(n, 0).to_string(), client_v6(n, 0).to_string()];
    for (own, hop) in own.iter().zip(OUTER_HOP) {
        client.address("wan", &[own])?;
        default_via(client, hop, "wan")?;
        router.address(&port, &[hop])?;
        let mtu = mtu.map_or_else(String::new, |mtu| format!(" mtu lock {mtu}"));
        router.route(&format!("{own} dev {port}{mtu}"))?;
        gateway.route(&format!("{own} via {hop} dev access0 onlink"))?;
    }
    Ok(link)
}

/// A client's path straight to the gateway.
fn lay_direct(
    net: &Net,
    client: &Namespace,
    gateway: &Namespace,
    n: usize,
    path: usize,
    access: &Access,
) -> Result<Option<Emulator>> {
    let (wan, port) = match path {
        0 => ("wan".to_owned(), format!("access{n}")),
        path => (format!("wan{path}"), format!("access{n}p{path}")),
    };
    let link = lay_wire(net, (client, &wan), (gateway, &port), access)?;
    let own = [client_v4(n, path).to_string(), client_v6(n, path).to_string()];
    let served = [GATEWAY_V4.to_string(), GATEWAY_V6.to_string()];
    for (own, served) in own.iter().zip(&served) {
        client.address(&wan, &[&format!("{own} peer {served}")])?;
        gateway.address(&port, &[&format!("{served} peer {own}")])?;
        if path == 0 {
            default_via(client, served, &wan)?;
        } else {
            let table = 100 + path;
            let family = if own.contains(':') { "-6 " } else { "" };
            // The kernel knows the neighbour on this device a moment after the device is up.
            let default = format!("default via {served} dev {wan} onlink table {table}");
            let added = poll_until(SETTLE, || client.route(&default).ok());
            added.map_or_else(|| client.route(&default), Ok)?;
            client.ip(&format!("{family}rule add from {own} lookup {table} priority {table}"))?;
        }
    }
    Ok(link)
}

fn lay_wire(
    net: &Net,
    a: (&Namespace, &str),
    b: (&Namespace, &str),
    access: &Access,
) -> Result<Option<Emulator>> {
    match access {
        Access::Veth => net.veth(a, b).map(|()| None),
        Access::Link(pair) => {
            Emulator::between(End::new(a.0, a.1), End::new(b.0, b.1), (**pair).clone()).map(Some)
        }
    }
}

fn router(net: &Net, label: &str) -> Result<Namespace> {
    let router = net.namespace(label)?;
    router.sysctl("ipv4/ip_forward", 1)?;
    router.sysctl("ipv6/conf/all/forwarding", 1)?;
    Ok(router)
}

fn default_via(namespace: &Namespace, hop: &str, device: &str) -> Result<()> {
    namespace.route(&format!("default via {hop} dev {device} onlink"))
}
