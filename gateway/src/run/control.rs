//! The main thread once everything runs: signals, the accounts file, leases, the admin address.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bauta_masque_io::clock;
use bauta_masque_io::tls::HotCertificate;
use bauta_web::Site;
use bauta_web::cert::Status;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Interval, interval, timeout};

use super::{nonblocking, redirect, reload};
use crate::accounts::{UsageFile, Used};
use crate::admin;
use crate::certificate::{self, Origin};
use crate::pool::LeaseFile;
use crate::shared::{Everything, Shared, own_addresses};
use crate::worker::{Message, SessionInfo};

/// How often the accounts file and our addresses are looked at and changed leases are written.
const TICK: Duration = Duration::from_secs(1);

/// How long workers may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Control {
    pub(super) shared: Everything,
    pub(super) path: PathBuf,
    pub(super) leases: LeaseFile,
    pub(super) usage: Usage,
    pub(super) hot: Arc<HotCertificate>,
    /// Makes ACME try again at once.
    pub(super) hurry: Option<Arc<Notify>>,
    pub(super) tcp_site: watch::Sender<Site>,
    pub(super) ended: mpsc::Receiver<Result<()>>,
}

/// Runs until a signal ends it, or a worker fails. Calls `serving` once everything is in place, the
/// signals too: whoever reads of it may send one.
pub(super) fn run(
    mut control: Control,
    origin: Origin,
    admin: Option<TcpListener>,
    http: Option<TcpListener>,
    serving: impl FnOnce(),
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = Signals::new()?;
        if let Some(listener) = admin {
            let source = Arc::new(Source(control.shared.clone(), origin.status));
            tokio::spawn(admin::serve(nonblocking(listener)?, source));
        }
        if let Some(listener) = http {
            let config = &control.shared.config;
            let (names, port) = (config.names(), config.listen.port());
            let about = redirect::Port80 { names, port, challenges: origin.challenges };
            tokio::spawn(redirect::serve(nonblocking(listener)?, about));
        }
        let (shared, hot) = (control.shared.clone(), control.hot.clone());
        tokio::spawn(certificate::keep(origin.source, shared, hot));
        serving();
        let outcome = control.watch(signals).await;
        control.stop().await;
        outcome
    })
}

struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
    tick: Interval,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            tick: interval(TICK),
        })
    }
}

impl Control {
    async fn watch(&mut self, mut on: Signals) -> Result<()> {
        loop {
            tokio::select! {
                _ = on.terminate.recv() => return Ok(()),
                _ = on.interrupt.recv() => return Ok(()),
                _ = on.hang_up.recv() => self.reload().await,
                _ = on.tick.tick() => self.look_around(),
                end = self.ended.recv() => return match end {
                    Some(Err(error)) => Err(error.context("a worker failed")),
                    _ => Err(anyhow!("a worker ended unasked")),
                },
            }
        }
    }

    async fn reload(&self) {
        let Self { shared, path, hot, tcp_site, .. } = self;
        match reload::reload(shared, path, hot, tcp_site).await {
            Ok(()) if self.hurry.is_some() => {
                self.hurry.iter().for_each(|hurry| hurry.notify_one());
                tracing::info!("site and accounts were read again");
            }
            Ok(()) => tracing::info!("certificate, site and accounts were read again"),
            Err(error) => tracing::error!("nothing changed: {error:#}"),
        }
    }

    fn look_around(&mut self) {
        let accounts = &self.shared.accounts;
        if accounts.changed() {
            match accounts.reload() {
                Ok(count) => tracing::info!(count, "the accounts were read again"),
                Err(error) => tracing::error!("the accounts in force stay: {error}"),
            }
        }
        self.shared.dialer.set_own(own_addresses());
        remember(&self.shared, &self.leases);
        self.usage.tick(&self.shared);
    }

    /// Tells everybody to end, and waits a while.
    async fn stop(&mut self) {
        for worker in &self.shared.workers {
            let _ = timeout(PATIENCE, worker.send(Message::Stop)).await;
        }
        for _ in &self.shared.workers {
            if timeout(PATIENCE, self.ended.recv()).await.is_err() {
                tracing::warn!("a worker takes long to end");
            }
        }
    }
}

/// What accounts use, written down now and then: a crash forgets [`USAGE_EVERY`] ticks at most.
pub(super) struct Usage {
    file: UsageFile,
    written: Used,
    ticks: u32,
}

/// Ticks from one writing to the next.
const USAGE_EVERY: u32 = 10;

impl Usage {
    pub(super) fn new(file: UsageFile) -> Self {
        Self { file, written: Used::default(), ticks: 0 }
    }

    fn tick(&mut self, shared: &Shared) {
        self.ticks += 1;
        if self.ticks >= USAGE_EVERY {
            self.ticks = 0;
            self.write(shared);
        }
    }

    /// Writes it down if it changed.
    pub(super) fn write(&mut self, shared: &Shared) {
        let used = shared.accounts.used(clock::unix_time());
        if used == self.written {
            return;
        }
        if let Err(error) = self.file.write(&used) {
            tracing::warn!(%error, "usage cannot be remembered; is state_dir writable?");
        }
        self.written = used;
    }
}

/// Writes the leases down if they changed.
pub(super) fn remember(shared: &Everything, leases: &LeaseFile) {
    let Some(pool) = &shared.pool else { return };
    let snapshot = pool.lock().snapshot();
    if let Some(snapshot) = snapshot
        && let Err(error) = leases.store(&snapshot)
    {
        tracing::warn!(%error, "leases cannot be remembered; is state_dir writable?");
    }
}

struct Source(Everything, watch::Receiver<Status>);

impl admin::Source for Source {
    fn metrics(&self) -> String {
        self.0.metrics.encode().unwrap_or_default()
    }

    fn certificate(&self) -> String {
        serde_json::to_string(&*self.1.borrow()).unwrap_or_default()
    }

    async fn sessions(&self) -> String {
        let (to, mut from) = mpsc::channel(self.0.workers.len());
        for worker in &self.0.workers {
            let _ = worker.try_send(Message::Sessions(to.clone()));
        }
        drop(to);
        let mut all: Vec<SessionInfo> = Vec::new();
        while let Ok(Some(some)) = timeout(PATIENCE, from.recv()).await {
            all.extend(some);
        }
        serde_json::to_string(&all).unwrap_or_default()
    }
}
