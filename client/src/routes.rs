//! Policy routing, as `wg-quick` does it: the main table is never touched.
//!
//! Everything that does not carry the tunnel's mark is looked up in a table of its own, which leads into the TUN
//! interface. In a full tunnel a second rule lets the main table's routes win, except its default ones, so that
//! directly connected networks stay what they were; whether packets may go there is the kill switch's business.
//! Behind each route into the TUN stands an `unreachable` one: it stays when the interface goes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Error, Handle, IpVersion, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage, RouteType},
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::net::Net;

/// Where the rule stands that sends unmarked packets to the tunnel's table: before `main` (32766).
const PRIORITY_TUNNEL: u32 = 31_001;
/// Where the rule stands that lets the specific routes of `main` win.
const PRIORITY_SPECIFIC: u32 = 31_000;
/// The metric of what stands behind the routes into the TUN.
const METRIC_BEHIND: u32 = 4_000_000_000;

/// Routes and rules of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The mark of the tunnel's own packets.
    pub mark: u32,
    /// The table.
    pub table: u32,
    /// Whether the tunnel takes everything: then rules are made for both families.
    pub full: bool,
    /// Networks through the TUN.
    pub through: Vec<Net>,
    /// Networks left to the main table.
    pub exclude: Vec<Net>,
}

/// What there is to remove, whatever the plan was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The mark in the rules.
    pub mark: u32,
    /// The table to empty.
    pub table: u32,
}

/// Whether these networks are so much of a family that the tunnel is a full one: half of IPv4, or all of
/// IPv6's global unicast space (2000::/3). Gateways leave out private ranges, which makes no difference.
pub fn is_full(nets: &[Net]) -> bool {
    let v4: u64 = nets.iter().filter(|n| n.is_ipv4()).map(|n| 1 << (32 - n.prefix_len())).sum();
    let global =
        [Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 1)];
    let v6 =
        global.iter().all(|&a| nets.iter().any(|n| n.prefix_len() <= 8 && n.contains(a.into())));
    v4 >= 1 << 31 || v6
}

impl Plan {
    fn families(&self) -> impl Iterator<Item = IpVersion> + '_ {
        let has = |v4: bool| self.full || self.through.iter().any(|n| n.is_ipv4() == v4);
        [(IpVersion::V4, has(true)), (IpVersion::V6, has(false))]
            .into_iter()
            .filter(|f| f.1)
            .map(|f| f.0)
    }

    /// The routes in the table, in the order in which they are added: what stands behind comes first.
    fn routes(&self, tun: u32) -> Vec<RouteMessage> {
        let mut behind: Vec<Net> = self.through.clone();
        if self.full {
            behind.extend([Net::ALL_V4, Net::ALL_V6]);
        }
        behind.sort_unstable();
        behind.dedup();
        let refuse = behind.iter().map(|&net| {
            let kind = RouteType::Unreachable;
            route(net, self.table, kind, |m| m.push(RouteAttribute::Priority(METRIC_BEHIND)))
        });
        let throw =
            self.exclude.iter().map(|&net| route(net, self.table, RouteType::Throw, |_| {}));
        let through = self.through.iter().map(|&net| {
            route(net, self.table, RouteType::Unicast, |m| m.push(RouteAttribute::Oif(tun)))
        });
        refuse.chain(throw).chain(through).collect()
    }
}

fn route(
    net: Net,
    table: u32,
    kind: RouteType,
    more: impl Fn(&mut Vec<RouteAttribute>),
) -> RouteMessage {
    let mut message = match net.addr() {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(addr, net.prefix_len())
            .table_id(table)
            .build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(addr, net.prefix_len())
            .table_id(table)
            .build(),
    };
    message.header.kind = kind;
    more(&mut message.attributes);
    message
}

fn tunnel_rule(family: &IpVersion, mark: u32, table: u32) -> RuleMessage {
    let mut message = rule(family, PRIORITY_TUNNEL);
    message.header.flags = RuleFlags::Invert;
    message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::Table(table)]);
    message
}

fn specific_rule(family: &IpVersion) -> RuleMessage {
    let mut message = rule(family, PRIORITY_SPECIFIC);
    message.attributes.extend([RuleAttribute::SuppressPrefixLen(0), RuleAttribute::Table(MAIN)]);
    message
}

const MAIN: u32 = 254;

fn rule(family: &IpVersion, priority: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = match family {
        IpVersion::V4 => AddressFamily::Inet,
        IpVersion::V6 => AddressFamily::Inet6,
    };
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(priority));
    message
}

/// A connection to the kernel's routing. Closed when dropped.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Opens it in the network namespace of the calling thread.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, task: tokio::spawn(connection) })
    }

    /// The index of an interface.
    pub async fn index(&self, name: &str) -> Result<u32, Error> {
        let mut links = self.handle.link().get().match_name(name).execute();
        Ok(links.try_next().await?.map_or(0, |link| link.header.index))
    }

    /// Adds routes, then rules: a packet finds the table filled.
    pub async fn install(&self, plan: &Plan, tun: u32) -> Result<(), Error> {
        for message in plan.routes(tun) {
            self.handle.route().add(message).replace().execute().await?;
        }
        for family in plan.families() {
            if plan.full {
                self.add_rule(specific_rule(&family)).await?;
            }
            self.add_rule(tunnel_rule(&family, plan.mark, plan.table)).await?;
        }
        Ok(())
    }

    /// Moves from one plan to another without a moment in which a packet finds neither.
    pub async fn change(&self, from: &Plan, to: &Plan, tun: u32) -> Result<(), Error> {
        self.install(to, tun).await?;
        let keep = to.routes(tun);
        for gone in from.routes(tun).into_iter().filter(|route| !keep.contains(route)) {
            absent_is_fine(self.handle.route().del(gone).execute().await)?;
        }
        let kept: Vec<bool> = to.families().map(|f| matches!(f, IpVersion::V4)).collect();
        for family in from.families() {
            if from.full && !to.full {
                absent_is_fine(self.handle.rule().del(specific_rule(&family)).execute().await)?;
            }
            if !kept.contains(&matches!(family, IpVersion::V4)) {
                let rule = tunnel_rule(&family, from.mark, from.table);
                absent_is_fine(self.handle.rule().del(rule).execute().await)?;
            }
        }
        Ok(())
    }

    async fn add_rule(&self, message: RuleMessage) -> Result<(), Error> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = message;
        match request.execute().await {
            Err(Error::NetlinkError(e)) if e.raw_code() == -nix::libc::EEXIST => Ok(()),
            other => other,
        }
    }

    /// Removes the rules and empties the table. What is gone already is fine.
    pub async fn remove(&self, what: &Installed) -> Result<(), Error> {
        for family in [IpVersion::V4, IpVersion::V6] {
            let tunnel = tunnel_rule(&family, what.mark, what.table);
            absent_is_fine(self.handle.rule().del(tunnel).execute().await)?;
            if !self.others_need_specific(&family).await? {
                absent_is_fine(self.handle.rule().del(specific_rule(&family)).execute().await)?;
            }
        }
        self.empty(what.table).await
    }

    /// Whether another tunnel still relies on the rule that lets the main table's specific routes win.
    async fn others_need_specific(&self, family: &IpVersion) -> Result<bool, Error> {
        let at = RuleAttribute::Priority(PRIORITY_TUNNEL);
        let mut rules = self.handle.rule().get(family.clone()).execute();
        while let Some(rule) = rules.try_next().await? {
            if rule.attributes.contains(&at) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn empty(&self, table: u32) -> Result<(), Error> {
        let all = [
            RouteMessageBuilder::<Ipv4Addr>::new().table_id(table).build(),
            RouteMessageBuilder::<Ipv6Addr>::new().table_id(table).build(),
        ];
        for filter in all {
            let mut routes = self.handle.route().get(filter).execute();
            let mut found = Vec::new();
            while let Some(route) = routes.try_next().await? {
                if table_of(&route) == table {
                    found.push(route);
                }
            }
            for route in found {
                absent_is_fine(self.handle.route().del(route).execute().await)?;
            }
        }
        Ok(())
    }
}

fn table_of(route: &RouteMessage) -> u32 {
    let long = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| route.header.table.into())
}

fn absent_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    use nix::libc::{EAFNOSUPPORT, ENODEV, ENOENT, ESRCH};
    match result {
        Err(Error::NetlinkError(e))
            if [ENOENT, ESRCH, ENODEV, EAFNOSUPPORT].contains(&-e.raw_code()) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<Net> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn plan(through: &[&str], full: bool) -> Plan {
        Plan { mark: 0xba00, table: 0xba00, full, through: nets(through), exclude: Vec::new() }
    }

    #[test]
    fn everything_but_private_ranges_is_still_a_full_tunnel() {
        assert!(is_full(&nets(&["0.0.0.0/0"])));
        assert!(is_full(&nets(&["::/0"])));
        assert!(is_full(&nets(&["2000::/3"])));
        let public =
            ["0.0.0.0/5", "11.0.0.0/8", "16.0.0.0/4", "32.0.0.0/3", "64.0.0.0/2", "128.0.0.0/2"];
        assert!(is_full(&nets(&public)));
    }

    #[test]
    fn a_few_networks_are_a_scoped_tunnel() {
        assert!(!is_full(&nets(&["10.0.0.0/8", "64.0.0.0/2", "2001:db8::/32"])));
    }

    #[test]
    fn a_full_tunnel_of_one_family_makes_the_other_unreachable() {
        let routes = plan(&["0.0.0.0/0"], true).routes(7);
        let v6: Vec<_> =
            routes.iter().filter(|r| r.header.address_family == AddressFamily::Inet6).collect();
        assert_eq!(v6.len(), 1);
        assert_eq!(v6[0].header.kind, RouteType::Unreachable);
        assert_eq!(plan(&["0.0.0.0/0"], true).families().count(), 2);
    }

    #[test]
    fn a_scoped_tunnel_adds_only_its_networks() {
        let scoped = plan(&["10.0.0.0/8"], false);
        assert_eq!(scoped.families().count(), 1);
        let kinds: Vec<_> = scoped.routes(7).iter().map(|r| r.header.kind).collect();
        assert_eq!(kinds, [RouteType::Unreachable, RouteType::Unicast]);
    }

    #[test]
    fn exclusions_are_thrown_back_to_the_main_table() {
        let plan = Plan { exclude: nets(&["192.0.2.0/24"]), ..plan(&["0.0.0.0/0"], true) };
        assert!(plan.routes(7).iter().any(|r| r.header.kind == RouteType::Throw));
    }
}
