//! The machine's side of a tunnel: interface, firewall, routes and name servers, brought to what is wanted.
//!
//! Every change is written down before it is made ([`crate::state`]). Nothing here happens per packet.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use bauta_masque_io::tun::{TunConfig, TunQueue, open};
use tracing::{info, warn};

use crate::{
    config::Settings,
    dns,
    killswitch::{self, Guard, NftError},
    net::Net,
    routes::{Installed, Netlink, Plan, is_full},
    stage::{Failure, Progress, Stage},
    state::{Change, Held},
};

/// With it the kernel looks the source of marked packets up by their mark (strict reverse-path filtering).
const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";

/// How the machine shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) gateways: Vec<SocketAddr>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) routes: Vec<Net>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    pub(super) mtu: u16,
}

/// What has been done.
pub(super) struct System<'a> {
    settings: &'a Settings,
    held: Held,
    netlink: Netlink,
    applied: Option<Wanted>,
}

impl<'a> System<'a> {
    pub(super) fn new(settings: &'a Settings, held: Held) -> Result<System<'a>, Failure> {
        let netlink = Netlink::open().map_err(|e| routes_failure(&e))?;
        Ok(System { settings, held, netlink, applied: None })
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn applied(&self) -> Option<&Wanted> {
        self.applied.as_ref()
    }

    /// Whether the tunnel takes everything, as applied.
    pub(super) fn full(&self) -> bool {
        self.applied.as_ref().is_some_and(|w| is_full(&w.routes))
    }

    /// Whether nothing may leave outside, as applied.
    pub(super) fn drops(&self) -> bool {
        self.applied.as_ref().is_some_and(|w| self.wants_drop(w))
    }

    fn wants_drop(&self, wanted: &Wanted) -> bool {
        self.settings.kill_switch.unwrap_or_else(|| is_full(&wanted.routes))
    }

    /// Brings the machine from what was applied to what is wanted.
    pub(super) async fn apply(
        &mut self,
        wanted: Wanted,
        tun: &mut Option<TunQueue>,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        if self.applied.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let before = self.applied.clone();
        if before.is_none() {
            let detail =
                wanted.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            progress.done(Stage::Addresses, format_args!("{detail}"));
        }
        // The firewall first: from here on nothing slips out between two of the steps.
        self.firewall(&wanted, before.as_ref(), progress).await?;
        self.interface(&wanted, before.as_ref(), tun, progress)?;
        self.routes(&wanted, before.as_ref(), progress).await?;
        self.name_servers(&wanted, before.as_ref(), progress).await?;
        self.applied = Some(wanted);
        Ok(())
    }

    async fn firewall(
        &mut self,
        wanted: &Wanted,
        before: Option<&Wanted>,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let drop = self.wants_drop(wanted);
        let needed = drop || is_full(&wanted.routes);
        let table = killswitch::table(&self.settings.name);
        if !needed {
            // An earlier run that died may have left one.
            let change = Change::Firewall { table: table.clone() };
            if before.is_some() || self.held.state().changes.contains(&change) {
                killswitch::remove(&table).await.map_err(|e| firewall_failure(&e))?;
            }
            if before.is_none() {
                progress.done(
                    Stage::KillSwitch,
                    format_args!("off: the tunnel carries some networks only"),
                );
            }
            return Ok(());
        }
        self.held
            .record(Change::Firewall { table: table.clone() })
            .map_err(|e| state_failure(&e))?;
        let guard = Guard {
            tun: &self.settings.name,
            mark: self.settings.mark,
            gateways: &wanted.gateways,
            addresses: &wanted.addresses,
            exclude: &self.settings.exclude,
            allow_lan: self.settings.allow_lan,
            drop,
        };
        match killswitch::install(&guard).await {
            Ok(()) => {}
            Err(e) if !drop => progress.notice(format_args!(
                "without nftables strict reverse-path filtering may drop the tunnel's own packets: {e}"
            )),
            Err(e) => return Err(firewall_failure(&e)),
        }
        if before.is_none() {
            let what =
                if drop { "on: nothing leaves outside the tunnel" } else { "off, as configured" };
            progress.done(Stage::KillSwitch, format_args!("{what}"));
        }
        Ok(())
    }

    fn interface(
        &self,
        wanted: &Wanted,
        before: Option<&Wanted>,
        tun: &mut Option<TunQueue>,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let Some(tun) = tun else {
            let config = TunConfig {
                name: self.settings.name.clone(),
                mtu: wanted.mtu,
                addresses: wanted.addresses.iter().map(|&a| (a, host_len(a))).collect(),
                queues: 1,
                offload: true,
            };
            let opened =
                open(&config).map_err(|e| Failure::new(Stage::Tun, e, "see `bauta check`"))?;
            *tun = opened.into_iter().next();
            progress.done(Stage::Tun, format_args!("{}, MTU {}", self.settings.name, wanted.mtu));
            return Ok(());
        };
        let Some(before) = before else { return Ok(()) };
        let fail = |what: &str, e: io::Error| {
            Failure::new(
                Stage::Tun,
                format_args!("{what}: {e}"),
                "has another program changed the interface?",
            )
        };
        if before.mtu != wanted.mtu {
            tun.set_mtu(wanted.mtu).map_err(|e| fail("the MTU cannot be changed", e))?;
            info!(mtu = wanted.mtu, "the MTU has changed with the path");
        }
        for &new in wanted.addresses.iter().filter(|a| !before.addresses.contains(a)) {
            tun.add_address(new, host_len(new))
                .map_err(|e| fail("an address cannot be added", e))?;
        }
        for &old in before.addresses.iter().filter(|a| !wanted.addresses.contains(a)) {
            let _ = tun.remove_address(old, host_len(old));
        }
        Ok(())
    }

    async fn routes(
        &mut self,
        wanted: &Wanted,
        before: Option<&Wanted>,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let plan = self.plan(wanted);
        let index =
            self.netlink.index(&self.settings.name).await.map_err(|e| routes_failure(&e))?;
        let Some(before) = before else {
            if plan.full && wanted.addresses.iter().any(IpAddr::is_ipv4) {
                self.valid_mark(progress)?;
            }
            let installed = Installed { mark: plan.mark, table: plan.table };
            self.held.record(Change::Routes(installed)).map_err(|e| state_failure(&e))?;
            self.netlink.install(&plan, index).await.map_err(|e| routes_failure(&e))?;
            let what = if plan.full { "everything" } else { "some networks" };
            progress.done(
                Stage::Routes,
                format_args!("{what} ({} in table {})", plan.through.len(), plan.table),
            );
            return Ok(());
        };
        let old = self.plan(before);
        if old != plan || before.addresses != wanted.addresses {
            // Taking an address away makes the kernel drop routes that used it: set them again.
            self.netlink.change(&old, &plan, index).await.map_err(|e| routes_failure(&e))?;
        }
        Ok(())
    }

    /// Only families with an address are routed into the interface; in a full tunnel the other is unreachable.
    fn plan(&self, wanted: &Wanted) -> Plan {
        let has = |v4: bool| wanted.addresses.iter().any(|a| a.is_ipv4() == v4);
        Plan {
            mark: self.settings.mark,
            table: self.settings.table,
            full: is_full(&wanted.routes),
            through: wanted.routes.iter().filter(|n| has(n.is_ipv4())).copied().collect(),
            exclude: self.settings.exclude.clone(),
        }
    }

    fn valid_mark(&mut self, progress: &mut dyn Progress) -> Result<(), Failure> {
        let path = PathBuf::from(SRC_VALID_MARK);
        match fs::read_to_string(&path) {
            Ok(original) if original.trim() == "0" => {
                self.held
                    .record(Change::Sysctl { path: path.clone(), original })
                    .map_err(|e| state_failure(&e))?;
                if let Err(e) = fs::write(&path, "1") {
                    progress.notice(format_args!(
                        "{SRC_VALID_MARK} cannot be set ({e}); if nothing comes back, set it to 1 or rp_filter to 2"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn name_servers(
        &mut self,
        wanted: &Wanted,
        before: Option<&Wanted>,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        if before.is_some_and(|b| b.dns == wanted.dns && b.search == wanted.search) {
            return Ok(());
        }
        if wanted.dns.is_empty() {
            if before.is_none() {
                progress.done(Stage::Dns, format_args!("unchanged: the gateway names no servers"));
                if self.wants_drop(wanted) {
                    progress.notice(format_args!(
                        "name servers on the local network cannot be reached through the kill switch; \
                         set `dns` in the configuration if names do not resolve"
                    ));
                }
            }
            return Ok(());
        }
        let fail = |e: io::Error| {
            Failure::new(
                Stage::Dns,
                format_args!("the name servers cannot be set: {e}"),
                "is /etc/resolv.conf writable (`lsattr /etc/resolv.conf`)?",
            )
        };
        let name = &self.settings.name;
        let saved = match self.held.saved_dns() {
            Some(saved) => saved.clone(),
            None => dns::save(dns::RESOLV_CONF.as_ref(), name).map_err(fail)?,
        };
        self.held.record(Change::Dns(saved.clone())).map_err(|e| state_failure(&e))?;
        dns::apply(&saved, name, &wanted.dns, &wanted.search).await.map_err(fail)?;
        if before.is_none() {
            let list = wanted.dns.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            progress.done(Stage::Dns, format_args!("{list}"));
        }
        Ok(())
    }

    /// Puts everything back. The interface has to be gone by now.
    pub(super) async fn restore(mut self) -> Result<(), Failure> {
        let problems = self.held.restore().await;
        if problems.is_empty() {
            return Ok(());
        }
        for problem in &problems {
            warn!(%problem, "not restored");
        }
        Err(Failure::new(
            Stage::Routes,
            format_args!("not everything could be restored: {}", problems.join("; ")),
            "`bauta down` tries again",
        ))
    }
}

fn host_len(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn firewall_failure(e: &NftError) -> Failure {
    Failure::new(
        Stage::KillSwitch,
        format_args!("the firewall cannot be set: {e}"),
        "is nftables there (`nft list ruleset`)? `kill_switch = false` goes on without it, and without protection",
    )
}

fn routes_failure(e: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Stage::Routes,
        format_args!("the routes cannot be set: {e}"),
        "does another program use the same `table` (`ip rule`)?",
    )
}

pub(super) fn state_failure(e: &io::Error) -> Failure {
    Failure::new(
        Stage::Privileges,
        format_args!("the state file cannot be written: {e}"),
        "without it nothing could be undone; is `state_dir` writable?",
    )
}
