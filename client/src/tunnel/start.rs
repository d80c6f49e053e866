//! Before the first connection: the folder is taken, and the gateway's addresses are found.

use std::net::SocketAddr;

use super::system::state_failure;
use crate::{
    config::Settings,
    resolve::resolve,
    stage::{Failure, Progress, Stage},
    state::{Folder, Held},
};

/// Takes the folder of the tunnel.
pub(super) fn hold(folder: &Folder, settings: &Settings) -> Result<Held, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(
            Stage::Privileges,
            "`up` needs root: it makes an interface, routes and firewall rules",
            "run it with sudo, or use `bauta proxy` or `bauta forward`, which need nothing",
        ));
    }
    match folder.hold() {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(Failure::new(
            Stage::Privileges,
            format_args!("a tunnel named {} is up already", settings.name),
            "`bauta status` shows it, `bauta down` ends it; `name` in the configuration makes a second one",
        )),
        Err(e) => Err(state_failure(&e)),
    }
}

/// The gateway's addresses. After a run that died the kill switch still stands and no name can be resolved: its
/// addresses are used again.
pub(super) async fn gateways(
    held: &mut Held,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Vec<SocketAddr>, Failure> {
    let server = settings.server.to_string();
    let left = held.state().clone();
    if !left.changes.is_empty() {
        progress.notice(format_args!(
            "taking over from a run that did not end in order (process {})",
            left.pid
        ));
        if left.server == server {
            held.take_over().await;
        } else {
            held.restore().await;
        }
    }
    let found = if left.server == server && !left.changes.is_empty() && settings.addr.is_empty() {
        left.gateways
    } else {
        resolve(&settings.server, &settings.addr).await?
    };
    let list = found.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    progress.done(Stage::Resolve, format_args!("{} is {list}", settings.server.host));
    Ok(found)
}
