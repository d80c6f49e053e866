//! By which way datagrams reach the gateway: every scene can be played in each.

use anyhow::{Result, bail};
use bauta_lab::Namespace;

/// Names the way for a whole run: `socket` (the default), `native` or `skb`.
const VARIABLE: &str = "BAUTA_E2E_INGRESS";

/// The way datagrams come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// By the UDP socket alone.
    Socket,
    /// By AF_XDP rings in native mode beside it.
    Native,
    /// By AF_XDP rings in SKB mode beside it.
    Skb,
}

impl Ingress {
    /// As the run was told.
    pub fn of_tests() -> Result<Self> {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "socket") => Ok(Self::Socket),
            Ok("native") => Ok(Self::Native),
            Ok("skb") => Ok(Self::Skb),
            Ok(other) => bail!("{VARIABLE}={other}: there are socket, native and skb"),
        }
    }

    /// The table of the gateway's configuration; nothing for the socket alone. Rings are wished for
    /// on every interface towards clients.
    pub fn table(self, gateway: &Namespace) -> Result<String> {
        let mode = match self {
            Self::Socket => return Ok(String::new()),
            Self::Native => "native",
            Self::Skb => "skb",
        };
        let interfaces = accesses(gateway)?;
        Ok(format!("[xdp]\nmode = \"{mode}\"\ninterfaces = {interfaces:?}\n"))
    }

    /// How many rings there have to be: one on every veth towards a client. An emulated link ends in
    /// a TUN, which carries no Ethernet frames.
    pub fn rings(self, gateway: &Namespace) -> Result<u64> {
        if self == Self::Socket {
            return Ok(0);
        }
        let is_veth = |name: &String| {
            let link = gateway.ip(&format!("-o link show dev {name}"))?;
            Ok(link.contains("link/ether"))
        };
        let veths = accesses(gateway)?.iter().map(is_veth).collect::<Result<Vec<_>>>()?;
        Ok(veths.into_iter().filter(|is_veth| *is_veth).count() as u64)
    }
}

/// The interfaces towards clients.
fn accesses(gateway: &Namespace) -> Result<Vec<String>> {
    let links = gateway.ip("-o link show")?;
    let names = links.lines().filter_map(|line| {
        let name = line.split(": ").nth(1)?;
        let name = name.split('@').next()?;
        name.starts_with("access").then(|| name.to_owned())
    });
    Ok(names.collect())
}
