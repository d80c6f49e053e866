//! The accept loop.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body::Body;
use nix::libc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::endpoint::Subnet;

use super::{SelectTls, Service, TcpLimits, connection};

/// The first wait when the system has no descriptors or memory left; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run<S, B>(
    listener: TcpListener,
    tls: Option<Arc<dyn SelectTls>>,
    limits: TcpLimits,
    service: S,
    shutdown: impl Future<Output = ()> + Send,
) where
    S: Service<B>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let limits = Arc::new(limits);
    let room = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (stop, stopped) = watch::channel(false);
    let sources = Sources::default();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await;
            (permit, accept(&listener).await)
        };
        let (permit, (stream, addr)) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Some(guest) = sources.enter(addr, limits.max_per_source) else {
            tracing::debug!(%addr, "the source holds too many connections");
            continue;
        };
        let (tls, limits) = (tls.clone(), limits.clone());
        let (service, stopped) = (service.clone(), stopped.clone());
        connections.spawn(async move {
            let _held = (permit, guest);
            connection::run(stream, addr, tls, &limits, service, stopped).await;
        });
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_timeout, drained).await.is_err() {
        tracing::debug!("connections were cut off at shutdown");
    }
}

/// How many connections each source holds.
#[derive(Clone, Default)]
struct Sources(Arc<Mutex<HashMap<Subnet, usize>>>);

impl Sources {
    /// One more, unless the source has `limit`. It ends with the guard.
    fn enter(&self, addr: SocketAddr, limit: usize) -> Option<Guest> {
        let source = Subnet::of(addr);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(source).or_insert(0);
        if *count >= limit.max(1) {
            return None;
        }
        *count += 1;
        Some(Guest { sources: self.clone(), source })
    }
}

struct Guest {
    sources: Sources,
    source: Subnet,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut held = self.sources.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.source);
            }
        }
    }
}

/// The next connection, whatever happens to those before it.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut pause = MIN_PAUSE;
    loop {
        match listener.accept().await {
            Ok((stream, addr)) => {
                let plain = SocketAddr::new(addr.ip().to_canonical(), addr.port());
                return (stream, plain);
            }
            Err(e) if is_exhausted(&e) => {
                tracing::warn!("cannot accept connections: {e}; raise the limit of open files");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            // The peer gave up while it waited.
            Err(e) => tracing::debug!("a connection ended before it was accepted: {e}"),
        }
    }
}

fn is_exhausted(e: &io::Error) -> bool {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    e.raw_os_error().is_some_and(|code| exhausted.contains(&code))
}
