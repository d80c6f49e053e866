//! SIGHUP: certificate files, site and accounts again, under running connections.

use std::path::Path;

use anyhow::Result;
use bauta_masque_io::tls::HotCertificate;
use tokio::sync::watch;

use super::start;
use crate::certificate::{Origin, install};
use crate::config::Config;
use crate::shared::Everything;
use crate::worker::Message;
use bauta_web::Site;

/// Reads everything first and changes nothing unless all of it is right.
pub(super) async fn reload(
    shared: &Everything,
    path: &Path,
    hot: &HotCertificate,
    tcp_site: &watch::Sender<Site>,
) -> Result<()> {
    let config = Config::load(path)?;
    let certificate = match shared.config.acme {
        None => Origin::new(&config)?.first()?,
        Some(_) => None,
    };
    let site = start::site(&config)?;
    shared.accounts.reload()?;
    if let Some(certificate) = certificate {
        install(shared, hot, &certificate).await;
    }
    let _ = tcp_site.send(site.clone());
    for worker in &shared.workers {
        let _ = worker.send(Message::Site(site.clone())).await;
    }
    Ok(())
}
