//! Before there is a certificate: QUIC is silent, as on a port that nobody listens on.

use std::sync::Arc;

use bauta_masque_io::tls::Certified;

use super::{Message, Parts};

/// Waits for the first certificate; `None`: told to stop before.
pub(super) async fn for_certificate(parts: &mut Parts) -> Option<Arc<Certified>> {
    if let Some(certificate) = parts.certificate.take() {
        return Some(certificate);
    }
    loop {
        match parts.mailbox.recv().await? {
            Message::Certificate(certificate) => {
                forget_arrivals(&parts.socket);
                return Some(certificate);
            }
            Message::Site(site) => parts.site = site,
            Message::Stop => return None,
            // There are no sessions yet, and a dropped question is an answer.
            _ => {}
        }
    }
}

/// What arrived meanwhile came from clients that have given up.
fn forget_arrivals(socket: &std::net::UdpSocket) {
    /// Datagrams thrown away at most; what arrives faster than that is news.
    const MOST: usize = 1 << 16;
    if socket.set_nonblocking(true).is_ok() {
        let mut nothing = [0; 1];
        (0..MOST).take_while(|_| socket.recv_from(&mut nothing).is_ok()).count();
    }
}
