//! Forwarding between the TUN and the world: nftables rules and kernel switches.
//!
//! All rules live in one table of our own, named after the TUN. It goes at exit, and what a crash
//! left behind is replaced at the next start. What the switches were before is written down first,
//! so that it can be restored even then.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::accounts::replace;
use crate::config::{Net, Tunnel};
use crate::pool::Plan;

/// The table's name; nftables wants no hyphens unquoted.
fn table(tun: &str) -> String {
    format!("inet bauta_{}", tun.replace('-', "_"))
}

/// The whole ruleset, for `nft -f -`. Replaces an older table of the same name in one transaction.
/// Datagrams to the port `ringed`, if any, are taken by receive rings, before they are translated
/// back: no flow of a client leaves with it as its source port.
pub fn ruleset(tunnel: &Tunnel, plan: &Plan, ringed: Option<u16>) -> String {
    let (table, tun) = (table(&tunnel.name), &tunnel.name);
    let family = |net: &Net| if net.addr.is_ipv4() { "ip" } else { "ip6" };
    let mut rules = format!("table {table}\ndelete table {table}\ntable {table} {{\n");
    if tunnel.nat {
        rules += "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat;\n";
        for net in plan.nets() {
            if let Some(port) = ringed {
                let others = if port < 32_768 { "32768-65535" } else { "1024-32767" };
                rules += &format!(
                    "\t\t{} saddr {net} oifname != \"{tun}\" udp sport {port} masquerade to :{others}\n",
                    family(&net)
                );
            }
            rules += &format!("\t\t{} saddr {net} oifname != \"{tun}\" masquerade\n", family(&net));
        }
        rules += "\t}\n";
    }
    rules += "\tchain forward {\n\t\ttype filter hook forward priority filter;\n";
    if !tunnel.client_to_client {
        rules += &format!("\t\tiifname \"{tun}\" oifname \"{tun}\" drop\n");
    }
    // A client's path may be narrower than either side believes; its TCP need not find out.
    for side in ["iifname", "oifname"] {
        rules += &format!(
            "\t\t{side} \"{tun}\" tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu\n"
        );
    }
    if tunnel.nat {
        // Behind masquerading nobody outside can open a connection to a client.
        rules += &format!(
            "\t\tiifname != \"{tun}\" oifname \"{tun}\" ct state != {{ established, related }} drop\n"
        );
    }
    rules + "\t}\n}\n"
}

/// The rules and switches in force; [`Nat::remove`] undoes them.
#[derive(Debug)]
pub struct Nat {
    tun: String,
    before: Switches,
    removed: bool,
}

impl Drop for Nat {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = self.remove()
        {
            tracing::error!("{error:#}");
        }
    }
}

impl Nat {
    /// Puts rules and switches in place, after undoing what a crash left.
    pub fn install(
        tunnel: &Tunnel,
        plan: &Plan,
        ringed: Option<u16>,
        state_dir: &Path,
    ) -> Result<Self> {
        nft(&ruleset(tunnel, plan, ringed)).context("setting the forwarding rules")?;
        // ICMP errors of ours enter by the TUN with the gateway's own address as their source, which
        // the kernel takes for a forgery otherwise. The switch goes with the TUN.
        write(&format!("ipv4/conf/{}/accept_local", tunnel.name), "1")
            .context("letting the gateway's ICMP errors through")?;
        let before = Switches::recall(state_dir);
        let mut nat = Self { tun: tunnel.name.clone(), before, removed: false };
        nat.before.turn_on(plan).context("switching forwarding on")?;
        Ok(nat)
    }

    /// Removes the rules and restores the switches; so does dropping it.
    pub fn remove(&mut self) -> Result<()> {
        self.removed = true;
        let table = table(&self.tun);
        // Naming the table first makes the deletion succeed even if somebody removed it already.
        let rules = nft(&format!("table {table}\ndelete table {table}\n"));
        self.before.restore();
        rules.context("removing the forwarding rules")
    }
}

fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                anyhow::anyhow!("`nft` is missing; install nftables, or set [tunnel] ip = false")
            }
            _ => anyhow::anyhow!("running `nft`: {e}"),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(rules.as_bytes()).context("talking to `nft`")?;
    }
    let output = child.wait_with_output().context("waiting for `nft`")?;
    if !output.status.success() {
        bail!("nft says: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Kernel switches we turned, with the value each had before.
#[derive(Debug)]
struct Switches {
    file: PathBuf,
    before: BTreeMap<String, String>,
}

const SYSCTL: &str = "/proc/sys/net";

impl Switches {
    /// What an earlier run wrote down and did not get to restore.
    fn recall(state_dir: &Path) -> Self {
        let file = state_dir.join("switches.json");
        let text = std::fs::read(&file).unwrap_or_default();
        Self { file, before: serde_json::from_slice(&text).unwrap_or_default() }
    }

    fn turn_on(&mut self, plan: &Plan) -> Result<()> {
        let mut wanted = Vec::new();
        if plan.nets().any(|net| net.addr.is_ipv4()) {
            wanted.push(("ipv4/ip_forward".to_owned(), "1"));
        }
        if plan.nets().any(|net| net.addr.is_ipv6()) {
            // A host that forwards stops listening to router advertisements, and loses its own
            // default route, unless each interface that listened is told to go on.
            for name in interfaces_with("ipv6/conf", "accept_ra", "1") {
                wanted.push((format!("ipv6/conf/{name}/accept_ra"), "2"));
            }
            wanted.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
        }
        let turn: Vec<_> = wanted.into_iter().filter(|(key, to)| read(key) != *to).collect();
        for (key, _) in &turn {
            self.before.entry(key.clone()).or_insert_with(|| read(key));
        }
        if !self.before.is_empty() {
            replace(&self.file, &serde_json::to_vec(&self.before)?)
                .with_context(|| format!("writing {}", self.file.display()))?;
        }
        for (key, to) in turn {
            write(&key, to).with_context(|| format!("setting net/{key} to {to}"))?;
        }
        Ok(())
    }

    fn restore(&mut self) {
        for (key, value) in std::mem::take(&mut self.before) {
            if let Err(error) = write(&key, &value) {
                tracing::warn!(switch = key, %error, "a kernel switch could not be restored");
            }
        }
        let _ = std::fs::remove_file(&self.file);
    }
}

fn read(key: &str) -> String {
    let text = std::fs::read_to_string(format!("{SYSCTL}/{key}")).unwrap_or_default();
    text.trim().to_owned()
}

fn write(key: &str, value: &str) -> io::Result<()> {
    if read(key) == value { Ok(()) } else { std::fs::write(format!("{SYSCTL}/{key}"), value) }
}

fn interfaces_with(folder: &str, switch: &str, value: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("{SYSCTL}/{folder}")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name != "all" && name != "default")
        .filter(|name| read(&format!("{folder}/{name}/{switch}")) == value)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(change: impl FnOnce(&mut Tunnel)) -> String {
        let mut tunnel = Tunnel::default();
        change(&mut tunnel);
        ruleset(&tunnel, &Plan::new(tunnel.ipv4_pool, tunnel.ipv6_pool), None)
    }

    fn with_rings(port: u16) -> String {
        let tunnel = Tunnel::default();
        ruleset(&tunnel, &Plan::new(tunnel.ipv4_pool, tunnel.ipv6_pool), Some(port))
    }

    #[test]
    fn a_port_that_rings_take_is_no_clients_source_port() {
        for (port, others) in [(443, "32768-65535"), (40_000, "1024-32767")] {
            let rules = with_rings(port);
            for net in ["ip saddr 10.77.0.0/16", "ip6 saddr fd62:6175:7461::/64"] {
                let line = format!(
                    "{net} oifname != \"bautag0\" udp sport {port} masquerade to :{others}\n"
                );
                let at = rules.find(&line).unwrap();
                let any = format!("{net} oifname != \"bautag0\" masquerade");
                assert!(rules.find(&any).unwrap() > at, "the first rule that fits decides");
            }
        }
    }

    #[test]
    fn by_default_clients_are_masqueraded_and_kept_apart() {
        let rules = rules(|_| {});
        for line in [
            "table inet bauta_bautag0\ndelete table inet bauta_bautag0\n",
            "ip saddr 10.77.0.0/16 oifname != \"bautag0\" masquerade",
            "ip6 saddr fd62:6175:7461::/64 oifname != \"bautag0\" masquerade",
            "iifname \"bautag0\" oifname \"bautag0\" drop",
            "ct state != { established, related } drop",
        ] {
            assert!(rules.contains(line), "{line} is missing from\n{rules}");
        }
    }

    #[test]
    fn without_nat_the_world_may_reach_the_pools() {
        let rules = rules(|tunnel| {
            tunnel.nat = false;
            tunnel.client_to_client = true;
            tunnel.name = "my-tun".into();
        });
        assert!(rules.starts_with("table inet bauta_my_tun\n"));
        for word in ["masquerade", "ct state", "oifname \"my-tun\" drop"] {
            assert!(!rules.contains(word), "{word} in\n{rules}");
        }
    }

    #[test]
    fn nft_takes_the_rules() {
        let check = |rules: &str| {
            let mut child = Command::new("nft")
                .args(["--check", "-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .ok()?;
            child.stdin.take()?.write_all(rules.as_bytes()).ok()?;
            child.wait_with_output().ok()
        };
        // Without nft or privileges there is nothing to learn here.
        match check("table inet bauta_probe { }\n") {
            Some(output) if output.status.success() => {}
            _ => return,
        }
        for rules in [rules(|_| {}), rules(|tunnel| tunnel.nat = false), with_rings(443)] {
            let output = check(&rules).unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{stderr}\n{rules}");
        }
    }
}
