//! Datagrams that reach an endpoint by another way than its socket.

use std::net::SocketAddr;

use super::receive::RESETS_A_TURN;
use super::{App, Endpoint};
use crate::udp::Datagram;

/// Batches taken from a source in one turn, so that the socket, TUN and timers have theirs.
const BATCHES_A_TURN: usize = 4;

/// Where whole datagrams for the endpoint's port come from, beside its socket: a ring of frames
/// shared with the kernel, for instance.
pub trait Source {
    /// Hands a bounded batch of datagrams to `each`, which decrypts them where they lie: they are only
    /// borrowed. Never blocks. Returns how many were taken; 0: nothing waits.
    fn poll_batch(&mut self, each: &mut dyn FnMut(Datagram<'_>)) -> usize;
}

impl Endpoint {
    /// Takes a bounded number of batches from `source` and tells `app` what they brought. Answers
    /// leave by the socket.
    pub fn handle_source(&mut self, source: &mut impl Source, app: &mut impl App) {
        let port = self.local.port();
        let mut resets = RESETS_A_TURN;
        for _ in 0..BATCHES_A_TURN {
            let taken = source.poll_batch(&mut |d| {
                // The kernel's filter is on the socket only.
                if !self.gate.passes(d.payload, d.from) {
                    self.door.stats.filtered += 1;
                    return;
                }
                let to = d.to.map_or(self.local, |ip| SocketAddr::new(ip, port));
                self.route(d.payload, d.from, to, &mut resets);
            });
            if taken == 0 {
                break;
            }
            app.received(crate::clock::now());
            self.drive_heard(app);
        }
    }
}
