//! SIGHUP: certificate, site and accounts again, under running connections.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bauta_masque_io::tls::HotCertificate;
use tokio::sync::watch;

use super::start;
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
    let certificate = Arc::new(start::certificate(&config)?);
    let site = start::site(&config)?;
    shared.accounts.reload()?;
    hot.replace(&certificate);
    let _ = tcp_site.send(site.clone());
    for worker in &shared.workers {
        let _ = worker.send(Message::Certificate(certificate.clone())).await;
        let _ = worker.send(Message::Site(site.clone())).await;
    }
    Ok(())
}
