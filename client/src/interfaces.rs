//! The interfaces of this machine that lead to the gateway, each a path of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Deserialize;
use socket2::SockRef;

use crate::config::check_name;

/// Paths a tunnel has at most.
pub const MAX_PATHS: usize = 4;

/// Which interfaces carry the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// One path, over whatever interface the system's routes lead to.
    #[default]
    Routed,
    /// Every interface that leads to the gateway, as they come and go.
    Auto,
    /// These, as they come and go.
    Named(Vec<String>),
}

/// One word of `--path` or of `paths`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct PathName(String);

impl TryFrom<String> for PathName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        // An alias or VLAN has a dot or a colon in its name.
        let plain = name.replace(['.', ':', '@'], "-");
        check_name(&plain).map(|()| PathName(name))
    }
}

impl Paths {
    /// From the words given: names of interfaces, or `auto` alone.
    pub(crate) fn of(words: Vec<PathName>) -> Result<Paths, String> {
        let mut names: Vec<String> = words.into_iter().map(|word| word.0).collect();
        names.sort_unstable();
        names.dedup();
        match names.as_slice() {
            [] => Ok(Paths::Routed),
            [one] if one == "auto" => Ok(Paths::Auto),
            list if list.iter().any(|name| name == "auto") => {
                Err("`auto` takes every interface; name interfaces, or `auto` alone".into())
            }
            list if list.len() > MAX_PATHS => {
                Err(format!("a tunnel has at most {MAX_PATHS} paths; {} are named", list.len()))
            }
            _ => Ok(Paths::Named(names)),
        }
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Paths::Routed => false,
            Paths::Auto => true,
            Paths::Named(names) => names.iter().any(|named| named == name),
        }
    }
}

/// An interface that leads to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Its name.
    pub name: String,
    /// The gateway's addresses that can be reached over it, and our own towards the first of them.
    pub gateways: Vec<SocketAddr>,
    /// Our address towards the first of them.
    pub local: IpAddr,
}

/// The interfaces among `paths` that are up, have an address and a route to one of `gateways`, by name;
/// never `tun` itself. At most [`MAX_PATHS`].
pub fn usable(paths: &Paths, gateways: &[SocketAddr], tun: &str, mark: u32) -> Vec<Usable> {
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for interface in getifaddrs().into_iter().flatten() {
        let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
        let lives = interface.flags.contains(up)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && interface.interface_name != tun
            && !interface.interface_name.starts_with("bauta");
        let v4 = interface.address.as_ref().and_then(|a| a.as_sockaddr_in()).map(|a| a.ip());
        let v6 = interface.address.as_ref().and_then(|a| a.as_sockaddr_in6()).map(|a| a.ip());
        let addressed = v4.is_some_and(|ip| !ip.is_link_local())
            || v6.is_some_and(|ip| !ip.is_unicast_link_local());
        if lives && addressed && paths.takes(&interface.interface_name) {
            names.insert(interface.interface_name, ());
        }
    }
    let over = |name: String| {
        let reached: Vec<(SocketAddr, IpAddr)> = gateways
            .iter()
            .filter_map(|&gateway| Some((gateway, source_over(&name, gateway, mark)?)))
            .collect();
        let (_, local) = *reached.first()?;
        Some(Usable { name, gateways: reached.into_iter().map(|(g, _)| g).collect(), local })
    };
    names.into_keys().filter_map(over).take(MAX_PATHS).collect()
}

/// The address the kernel would send from towards `peer` over the interface `name`; `None` without a
/// route there.
fn source_over(name: &str, peer: SocketAddr, mark: u32) -> Option<IpAddr> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A connected UDP socket asks the routing table and sends nothing.
    let socket = std::net::UdpSocket::bind(any).ok()?;
    let _ = setsockopt(&socket, sockopt::Mark, &mark);
    SockRef::from(&socket).bind_device(Some(name.as_bytes())).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(words: &[&str]) -> Result<Paths, String> {
        let names: Result<_, _> = words.iter().map(|w| PathName::try_from(w.to_string())).collect();
        Paths::of(names?)
    }

    #[test]
    fn words_are_interfaces_or_auto_alone() {
        assert_eq!(paths(&[]), Ok(Paths::Routed));
        assert_eq!(paths(&["auto"]), Ok(Paths::Auto));
        let named = Paths::Named(vec!["eth0.7".into(), "wlan0".into()]);
        assert_eq!(paths(&["wlan0", "eth0.7", "wlan0"]), Ok(named));
        assert!(paths(&["auto", "wlan0"]).unwrap_err().contains("alone"));
        assert!(paths(&["a/b"]).unwrap_err().contains("cannot name"));
        assert!(paths(&["a", "b", "c", "d", "e"]).unwrap_err().contains("at most 4"));
    }

    #[test]
    fn an_interface_that_does_not_exist_is_no_path() {
        let gateways = ["192.0.2.7:443".parse().unwrap()];
        assert_eq!(usable(&paths(&["none0"]).unwrap(), &gateways, "bauta0", 0xba00), []);
    }
}
