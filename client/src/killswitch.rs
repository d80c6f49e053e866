//! The firewall: nothing leaves outside the tunnel while it should be inside.
//!
//! One nftables table, loaded in one transaction, that stays when the client dies. Even with the kill switch
//! off the table exists for a full tunnel: it marks what comes from the gateway, so that strict reverse-path
//! filtering looks it up outside the tunnel's routing table.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use thiserror::Error;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{config::DEFAULT_NAME, net::Net};

/// What the table has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard<'a> {
    /// The TUN interface.
    pub tun: &'a str,
    /// The mark of the tunnel's own packets.
    pub mark: u32,
    /// The gateway's addresses and ports, the same for UDP and TCP.
    pub gateways: &'a [SocketAddr],
    /// The addresses of the TUN interface.
    pub addresses: &'a [IpAddr],
    /// Networks that stay outside.
    pub exclude: &'a [Net],
    /// Private networks stay reachable.
    pub allow_lan: bool,
    /// Whether what leaves outside is dropped.
    pub drop: bool,
}

/// What keeps the firewall from being set.
#[derive(Debug, Error)]
pub enum NftError {
    /// The program is missing.
    #[error("the program `nft` cannot be started: {0}; install nftables")]
    Missing(std::io::Error),
    /// The kernel or nft said no.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// The name of the table (family `inet`) of the tunnel `name`.
pub fn table(name: &str) -> String {
    // nft identifiers take neither a dash nor a leading digit.
    if name == DEFAULT_NAME { "bauta".into() } else { format!("bauta_{}", name.replace('-', "_")) }
}

/// Sets the table, replacing one that is there in the same transaction.
pub async fn install(guard: &Guard<'_>) -> Result<(), NftError> {
    nft(&guard.ruleset()).await
}

/// Removes the table, if it is there.
pub async fn remove(table: &str) -> Result<(), NftError> {
    nft(&format!("table inet {table}\ndelete table inet {table}\n")).await
}

async fn nft(script: &str) -> Result<(), NftError> {
    use std::process::Stdio;
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .env_clear()
        .env("PATH", crate::SYSTEM_PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // When nft ends early its message says more than a broken pipe.
        let _ = stdin.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(NftError::Missing)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(stderr.lines().next().unwrap_or("no reason given").trim().into()))
}

/// Networks that are one's own neighbourhood: RFC 1918, 3927, 4193, 4291 and link-local multicast.
const LAN: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "fc00::/7",
    "fe80::/10",
    "ff02::/16",
];

impl Guard<'_> {
    /// The script for `nft -f -`.
    pub fn ruleset(&self) -> String {
        let name = table(self.tun);
        // `table` makes sure that there is something to delete: the three lines are one replacement.
        let mut out =
            format!("table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
        if self.drop {
            self.output(&mut out);
            self.forward(&mut out);
            self.input(&mut out);
        }
        self.mark(&mut out);
        out.push_str("}\n");
        out
    }

    fn output(&self, out: &mut String) {
        out.push_str(
            "\tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n",
        );
        out.push_str("\t\toifname \"lo\" accept\n");
        let _ = writeln!(out, "\t\toifname \"{}\" accept", self.tun);
        for gateway in self.gateways {
            let (family, addr) = family(gateway.ip());
            let _ = writeln!(
                out,
                "\t\tmeta mark {:#x} {family} daddr {addr} meta l4proto {{ tcp, udp }} th dport {} accept",
                self.mark,
                gateway.port()
            );
        }
        out.push_str("\t\tip protocol udp udp sport 68 udp dport 67 accept comment \"DHCP\"\n");
        out.push_str("\t\tip6 nexthdr udp udp sport 546 udp dport 547 accept comment \"DHCPv6\"\n");
        out.push_str(
            "\t\ticmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } \
             ip6 hoplimit 255 accept comment \"neighbour discovery\"\n",
        );
        self.outside(out);
        out.push_str("\t\tcounter comment \"kept inside\"\n\t}\n");
    }

    /// What other machines and containers send through this one.
    fn forward(&self, out: &mut String) {
        out.push_str(
            "\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n",
        );
        let _ = writeln!(out, "\t\toifname \"{0}\" accept\n\t\tiifname \"{0}\" accept", self.tun);
        self.outside(out);
        out.push_str("\t\tcounter comment \"kept inside\"\n\t}\n");
    }

    fn outside(&self, out: &mut String) {
        for net in self.exclude {
            let _ = writeln!(out, "\t\t{} daddr {net} accept", family(net.addr()).0);
        }
        if self.allow_lan {
            for net in LAN.iter().filter_map(|net| net.parse::<Net>().ok()) {
                let _ = writeln!(out, "\t\t{} daddr {net} accept", family(net.addr()).0);
            }
        }
    }

    /// A neighbour must not reach, and so find out, the address inside the tunnel (CVE-2019-14899).
    fn input(&self, out: &mut String) {
        out.push_str(
            "\tchain input {\n\t\ttype filter hook prerouting priority raw; policy accept;\n",
        );
        for &address in self.addresses {
            let (family, addr) = family(address);
            let _ = writeln!(
                out,
                "\t\tiifname != \"{}\" {family} daddr {addr} fib saddr type != local drop",
                self.tun
            );
        }
        out.push_str("\t}\n");
    }

    fn mark(&self, out: &mut String) {
        out.push_str(
            "\tchain arriving {\n\t\ttype filter hook prerouting priority mangle; policy accept;\n",
        );
        for gateway in self.gateways {
            let (family, addr) = family(gateway.ip());
            let _ = writeln!(
                out,
                "\t\t{family} saddr {addr} meta l4proto {{ tcp, udp }} th sport {} meta mark set {:#x}",
                gateway.port(),
                self.mark
            );
        }
        out.push_str("\t}\n");
    }
}

fn family(addr: IpAddr) -> (&'static str, IpAddr) {
    (if addr.is_ipv4() { "ip" } else { "ip6" }, addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard<'a>(gateways: &'a [SocketAddr], exclude: &'a [Net]) -> Guard<'a> {
        Guard {
            tun: "bauta0",
            mark: 0xba00,
            gateways,
            addresses: &[],
            exclude,
            allow_lan: false,
            drop: true,
        }
    }

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        let text = guard(&[], &[]).ruleset();
        assert!(
            text.starts_with("table inet bauta\ndelete table inet bauta\ntable inet bauta {\n")
        );
        assert_eq!(text.matches("policy drop").count(), 2);
    }

    #[test]
    fn only_marked_packets_to_the_gateway_pass_outside() {
        let gateways = ["203.0.113.1:443".parse().unwrap(), "[2001:db8::1]:8443".parse().unwrap()];
        let text = guard(&gateways, &[]).ruleset();
        assert!(text.contains(
            "meta mark 0xba00 ip daddr 203.0.113.1 meta l4proto { tcp, udp } th dport 443 accept"
        ));
        assert!(text.contains(
            "meta mark 0xba00 ip6 daddr 2001:db8::1 meta l4proto { tcp, udp } th dport 8443 accept"
        ));
        assert!(text.contains(
            "ip saddr 203.0.113.1 meta l4proto { tcp, udp } th sport 443 meta mark set 0xba00"
        ));
        assert!(!text.contains("192.168.0.0"));
    }

    #[test]
    fn exclusions_and_the_lan_are_opened_only_on_wish() {
        let exclude = ["192.0.2.0/24".parse().unwrap()];
        let open = Guard { allow_lan: true, ..guard(&[], &exclude) };
        assert!(open.ruleset().contains("ip daddr 192.0.2.0/24 accept"));
        assert!(open.ruleset().contains("ip6 daddr fe80::/10 accept"));
    }

    #[test]
    fn without_the_switch_nothing_is_dropped() {
        let off = Guard { drop: false, ..guard(&[], &[]) };
        assert!(!off.ruleset().contains("drop"));
    }

    #[test]
    fn tables_of_two_tunnels_do_not_meet() {
        assert_eq!((table("bauta0"), table("my-vpn")), ("bauta".into(), "bauta_my_vpn".into()));
    }
}
