//! From a configuration to a running gateway, and back to a clean machine.
//!
//! What needs root comes first: ports, TUN, rules. Then the process becomes an ordinary user, and
//! only then are there threads.

mod control;
mod ingress;
mod redirect;
mod reload;
mod start;

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use bauta_masque_io::clock;
use bauta_masque_io::tls::HotCertificate;
use tokio::sync::mpsc;

use crate::accounts::{Accounts, UsageFile};
use crate::certificate::Origin;
use crate::config::Config;
use crate::dial::Dialer;
use crate::metrics::Metrics;
use crate::nat::Nat;
use crate::pool::{LeaseFile, Plan, SharedPool};
use crate::shared::{Everything, Shared, own_addresses, policy};
use crate::worker::{self, MAILBOX, Message, Parts};
use crate::{privileges, tcp};
use ingress::Ingress;
use start::Sockets;

/// Reads everything the configuration names and reports the first mistake.
pub fn check(config: &Config) -> Result<()> {
    start::site(config)?;
    start::templates(config)?;
    Accounts::load(config.accounts.file.clone(), None)?;
    privileges::target(config.user.as_deref())?;
    tracing_subscriber::EnvFilter::builder()
        .parse(&config.log.level)
        .with_context(|| format!("[log] level = \"{}\"", config.log.level))?;
    let mut origin = Origin::new(config)?;
    if config.acme.is_some() {
        // What is not there yet is fetched once the gateway runs.
        return Ok(());
    }
    if origin.first()?.is_some_and(|certificate| !certificate.covers(&config.domain)) {
        anyhow::bail!(
            "{} is not for {}: clients would refuse it; get one that names the domain",
            config.tls.cert.display(),
            config.domain
        );
    }
    Ok(())
}

/// Serves until SIGTERM or SIGINT. `path` is where the configuration came from, for SIGHUP.
pub fn run(config: &Config, path: &Path) -> Result<()> {
    crate::log::start(&config.log)?;
    bauta_masque_io::memory::keep_freed();
    let files = privileges::raise_files();
    let user = privileges::target(config.user.as_deref())?;
    let site = start::site(config)?;
    let workers = config.worker_count(thread::available_parallelism().map_or(1, usize::from));
    let sockets = Sockets::bind(config, workers)?;
    let mut ingress = Ingress::open(config, workers);
    start::state_dir(config, user.as_ref())?;
    let mut origin = Origin::new(config)?;
    let certificate = origin.first()?;
    match &certificate {
        Some(certificate) if !certificate.covers(&config.domain) => {
            tracing::warn!(domain = config.domain, "the certificate is not for the domain");
        }
        Some(_) => {}
        None => tracing::info!("there is no certificate yet; port 443 waits for it"),
    }
    let keys = start::keys(config)?;

    let plan = (config.tunnel.enabled && config.tunnel.ip)
        .then(|| Plan::new(config.tunnel.ipv4_pool, config.tunnel.ipv6_pool));
    let mut tun = Vec::new();
    let mut queues = None;
    let mut nat = None;
    if let Some(plan) = &plan {
        tun = start::tun(config, plan, workers)?;
        queues = start::steering(&tun, plan, workers);
        let ringed = (!ingress.is_none()).then_some(config.listen.port());
        nat = Some(Nat::install(&config.tunnel, plan, ringed, &config.state_dir)?);
    }
    let leases = LeaseFile::new(&config.state_dir);
    let pool = plan.as_ref().map(|plan| {
        let (pool, trouble) = leases.load(*plan);
        if let Some(trouble) = trouble {
            tracing::warn!("{trouble}");
        }
        SharedPool::new(pool, queues)
    });
    if let Some(user) = &user {
        start::hand_over(config, user)?;
        privileges::drop_to(user)?;
    }

    let (senders, mailboxes): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mpsc::channel::<Message>(MAILBOX)).unzip();
    let tunnel = &config.tunnel;
    let dialer = Dialer::new(
        policy(config, plan.as_ref(), own_addresses()),
        tunnel.dns_timeout.0,
        tunnel.connect_timeout.0,
    );
    let shared: Everything = Arc::new(Shared {
        accounts: if tunnel.enabled {
            Accounts::load(config.accounts.file.clone(), tunnel.rate.map(|rate| rate.0))?
        } else {
            Accounts::none()
        },
        templates: start::templates(config)?,
        dialer,
        pool,
        metrics: Metrics::new(workers),
        workers: senders,
        config: config.clone(),
    });

    let usage = UsageFile::new(&config.state_dir);
    match usage.read(clock::unix_time()) {
        Ok(used) => shared.accounts.carry(&used),
        Err(error) => tracing::warn!(%error, "usage.json: accounts start the month anew"),
    }

    let hot = HotCertificate::new(certificate.as_deref());
    let ended = mpsc::channel(workers + 1);
    let mut threads = Vec::new();
    let mut tun = start::by_worker(tun, workers).into_iter();
    let mut rings = std::mem::take(&mut ingress.rings).into_iter();
    for (id, (socket, mailbox)) in sockets.udp.into_iter().zip(mailboxes).enumerate() {
        let parts = Parts {
            id,
            socket,
            rings: rings.next().unwrap_or_default(),
            accepts_anywhere: ingress.keeps_connections(),
            tun: tun.next().flatten(),
            certificate: certificate.clone(),
            site: site.clone(),
            mailbox,
            keys: keys.clone(),
            shared: shared.clone(),
        };
        let end = ended.0.clone();
        let work = move || {
            let result = worker::run(parts);
            let _ = end.blocking_send(result);
        };
        threads.push(spawn(format!("worker-{id}"), work)?);
    }
    let (tcp, tcp_site) =
        tcp::Front::new(shared.clone(), site, hot.clone(), origin.challenges.clone());
    let (stop_tcp, stopped) = tokio::sync::watch::channel(false);
    let end = ended.0.clone();
    let work = move || {
        if let Err(error) = tcp::run(tcp, sockets.tcp, stopped) {
            let _ = end.blocking_send(Err(error));
        }
    };
    threads.push(spawn("tcp".into(), work)?);

    let control = control::Control {
        shared: shared.clone(),
        path: path.to_owned(),
        leases: leases.clone(),
        usage: control::Usage::new(usage.clone()),
        hot,
        hurry: origin.hurry.clone(),
        tcp_site,
        ended: ended.1,
    };
    let serving = || {
        tracing::info!(
            domain = config.domain,
            listen = %config.listen,
            workers,
            files,
            connect_ip = plan.is_some(),
            ingress = ingress.describe(),
            user = user.as_ref().map_or("unchanged", |user| &user.name),
            "serving"
        );
    };
    let outcome = control::run(control, origin, sockets.admin, sockets.http, serving);
    let _ = stop_tcp.send(true);
    for thread in threads {
        let _ = thread.join();
    }
    control::remember(&shared, &leases);
    control::Usage::new(usage).write(&shared);
    if let Some(mut nat) = nat {
        nat.remove()?;
    }
    tracing::info!("stopped");
    outcome
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(work).context("starting a thread")
}

/// A listener of the standard library, ready for tokio.
fn nonblocking(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}
