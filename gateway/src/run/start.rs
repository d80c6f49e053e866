//! What a gateway is made of, each with an error that says what to do.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, Result, anyhow};
use bauta_masque::request::Templates;
use bauta_masque_io::steer;
use bauta_masque_io::tls::TicketKey;
use bauta_masque_io::tun::{self, TunConfig, TunLanes, TunQueue};
use bauta_masque_io::udp::BindOptions;
use bauta_web::{Site, SiteConfig, Source, alt_svc};
use bauta_xdp::Steering;
use nix::unistd::User;

use crate::accounts::replace;
use crate::certificate;
use crate::config::{self, Config};
use crate::pool::{Plan, Queues};
use crate::privileges;
use crate::worker::Keys;

/// The website.
pub(super) fn site(config: &Config) -> Result<Site> {
    let source = match &config.site {
        config::Site::Sample => Source::Sample,
        config::Site::Folder { path } => Source::Folder { path: path.clone() },
        config::Site::Upstream { url } => Source::upstream(url),
    };
    let alt_svc = Some(alt_svc(config.listen.port()));
    Site::new(&SiteConfig { source, alt_svc }).context("[site]")
}

/// Where tunnels are offered.
pub(super) fn templates(config: &Config) -> Result<Templates> {
    let tunnel = &config.tunnel;
    Templates::new(Some(&tunnel.udp_template), Some(&tunnel.ip_template))
        .context("[tunnel] udp_template or ip_template")
}

/// Every socket the gateway listens on.
pub(super) struct Sockets {
    pub(super) udp: Vec<std::net::UdpSocket>,
    pub(super) tcp: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn bind(config: &Config, workers: usize) -> Result<Self> {
        let udp = steer::bind_group(config.listen, workers, &BindOptions::default())
            .context("listen (QUIC)")?;
        Ok(Self {
            udp,
            tcp: listen(config.listen, "listen (HTTPS)")?,
            http: certificate::http(config).map(|addr| listen(addr, "http")).transpose()?,
            admin: config.admin.listen.map(|addr| listen(addr, "[admin] listen")).transpose()?,
        })
    }
}

fn listen(addr: SocketAddr, field: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).map_err(|e| {
        let port = addr.port();
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => {
                format!(": another program has the port; `ss -ltnp 'sport = :{port}'` names it")
            }
            io::ErrorKind::PermissionDenied => {
                ": ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => ": no interface has this address".to_owned(),
            _ => String::new(),
        };
        anyhow!("{field}: TCP {addr}{hint} ({e})")
    })
}

/// The queues of the TUN: number `n` is lane `n / workers` of worker `n % workers`.
pub(super) fn tun(config: &Config, plan: &Plan, workers: usize) -> Result<Vec<TunQueue>> {
    privileges::check_tun()?;
    let tunnel = &config.tunnel;
    tun::open(&TunConfig {
        name: tunnel.name.clone(),
        mtu: tunnel.mtu,
        addresses: plan.gateway().collect(),
        queues: workers * lanes(workers),
        offload: true,
    })
    .context("CONNECT-IP; without it: [tunnel] ip = false")
}

/// The queues of each worker's: a client that is flooded fills but its own. Four tell neighbours in the pool
/// apart and are looked at in no time; Linux knows no more than 256 in all, and the table of steering 254.
fn lanes(workers: usize) -> usize {
    (254 / workers).clamp(1, 4)
}

/// The queues by worker.
pub(super) fn by_worker(queues: Vec<TunQueue>, workers: usize) -> Vec<Option<TunLanes>> {
    let mut of: Vec<Vec<TunQueue>> = (0..workers).map(|_| Vec::new()).collect();
    for (n, queue) in queues.into_iter().enumerate() {
        of[n % workers].push(queue);
    }
    of.into_iter().map(TunLanes::new).collect()
}

/// Lets each worker's queues of the TUN bring what is for its sessions.
pub(super) fn steering(queues: &[TunQueue], plan: &Plan, workers: usize) -> Option<Queues> {
    let first = queues.first().filter(|_| queues.len() > 1)?;
    let v4 = plan.v4(0).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let v6 = plan.v6(0).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    Steering::attach(first.as_fd(), v4, v6, plan.slots())
        .inspect_err(|error| {
            tracing::warn!("the TUN goes by flows, not by destination; workers hand over: {error}");
        })
        .map(|steering| Queues { steering, workers, lanes: lanes(workers) })
        .ok()
}

/// Makes the state folder, private to the user the gateway becomes.
pub(super) fn state_dir(config: &Config, user: Option<&User>) -> Result<()> {
    let dir = &config.state_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("state_dir {} cannot be made; name another", dir.display()))?;
    match user {
        Some(user) => privileges::hand_over(dir, user),
        None => Ok(()),
    }
}

/// Keys the workers share. That of stateless resets is kept, so that after a restart clients learn
/// at once that their connections are gone.
pub(super) fn keys(config: &Config) -> Result<Keys> {
    let path = config.state_dir.join("reset.key");
    let kept = std::fs::read(&path).ok().and_then(|key| <[u8; 32]>::try_from(key).ok());
    let reset = match kept {
        Some(key) => key,
        None => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|e| anyhow!("no randomness: {e}"))?;
            replace(&path, &key).with_context(|| format!("writing {}", path.display()))?;
            key
        }
    };
    Ok(Keys { reset, tickets: TicketKey::random()? })
}

/// Hands what has to be read or written later to the user the gateway becomes.
pub(super) fn hand_over(config: &Config, user: &User) -> Result<()> {
    for file in ["leases.json", "switches.json", "reset.key", "usage.json"] {
        let path = config.state_dir.join(file);
        if path.exists() {
            privileges::hand_over(&path, user)?;
        }
    }
    if config.acme.is_some() {
        let dir = config.acme_dir();
        privileges::hand_over(&dir, user)?;
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
        for entry in entries {
            privileges::hand_over(&entry?.path(), user)?;
        }
    }
    let accounts = &config.accounts.file;
    if !accounts.exists() {
        // Made now, so that an account added later is in a file the gateway may read.
        if let Some(parent) = accounts.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making {}", parent.display()))?;
        }
        replace(accounts, b"").with_context(|| format!("making {}", accounts.display()))?;
    }
    privileges::hand_over(accounts, user)?;
    if let Some(dir) = &config.log.qlog {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        privileges::hand_over(dir, user)?;
    }
    Ok(())
}
