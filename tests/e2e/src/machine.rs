//! What a client may change on a machine and has to put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bauta_lab::Namespace;

/// The state of a machine, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine(BTreeMap<&'static str, String>);

/// What is looked at: a title, and the command that shows it.
const LOOKS: [(&str, &str); 7] = [
    ("links", "ip -o link show | sed 's/ qlen .*//'"),
    ("addresses", "ip -o address show | sed 's/ valid_lft .*//'"),
    ("rules", "ip rule; ip -6 rule"),
    ("routes", "ip route show table all | sort"),
    ("routes of IPv6", "ip -6 route show table all | sed 's/ expires .*//' | sort"),
    ("nftables", "nft --stateless list ruleset"),
    (
        "switches",
        "cd /proc/sys/net; grep -r . ipv4/conf/all ipv4/conf/default ipv4/conf/wan ipv4/ip_forward \
         ipv6/conf/all ipv6/conf/default ipv6/conf/wan 2>/dev/null | sort",
    ),
];

impl Machine {
    /// Looks at the machine, and at the namespace's own `resolv.conf`.
    pub fn of(ns: &Namespace) -> Result<Self> {
        let mut seen = BTreeMap::new();
        for (title, line) in LOOKS {
            let out = ns.shell(line).with_context(|| format!("looking at {title}"))?;
            seen.insert(title, out);
        }
        let path = PathBuf::from("/etc/netns").join(ns.name()).join("resolv.conf");
        let resolv = match fs::read(&path) {
            Ok(bytes) => {
                let meta = fs::metadata(&path)?;
                format!("{bytes:?} {:?} {:?}", meta.permissions(), meta.modified())
            }
            Err(_) => "the system's".into(),
        };
        seen.insert("resolv.conf", resolv);
        Ok(Self(seen))
    }

    /// One look.
    #[must_use]
    pub fn look(&self, title: &str) -> &str {
        self.0.get(title).map_or("", String::as_str)
    }

    /// Fails, showing the lines, where the machine is not what it was.
    pub fn assert_restored(&self, now: &Self) -> Result<()> {
        for (title, before) in &self.0 {
            let after = now.look(title);
            let only = |a: &str, b: &str| {
                let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
                lines.map(|line| format!("    {line}\n")).collect::<String>()
            };
            ensure!(
                before == after,
                "{title} differ;\n  before alone:\n{}  now alone:\n{}",
                only(before, after),
                only(after, before)
            );
        }
        Ok(())
    }
}
