//! The same site, and CONNECT, over HTTP/1.1 and HTTP/2 on TCP.

use std::net::TcpListener;
use std::sync::Arc;

use bauta_masque_io::tls::HotCertificate;
use bauta_web::Site;
use tokio::sync::watch;

use crate::shared::Everything;

/// What the TCP side is made from.
pub struct Front {
    shared: Everything,
    site: watch::Receiver<Site>,
    certificate: Arc<HotCertificate>,
}

impl Front {
    /// And the way to change its site.
    pub fn new(
        shared: Everything,
        site: Site,
        certificate: Arc<HotCertificate>,
    ) -> (Self, watch::Sender<Site>) {
        let (sender, site) = watch::channel(site);
        (Self { shared, site, certificate }, sender)
    }
}

/// Serves on this thread until `stopped` says so.
pub fn run(front: Front, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let _ = (front.shared, front.site, front.certificate, listener, &mut stopped);
}
