//! The receive rings of a worker.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use bauta_masque_io::Source;
use bauta_masque_io::udp::Datagram;
use bauta_xdp::{AsyncRing, RxRing, XskRing};

use crate::metrics::{Counters, Frames};

/// The rings of the queues that a worker serves: none, one or several.
pub(super) struct Rings {
    rings: Vec<AsyncRing>,
    /// Frames that held no datagram to act on.
    refused: u64,
}

impl Rings {
    pub(super) fn new(rings: Vec<XskRing>) -> io::Result<Self> {
        let rings = rings.into_iter().map(AsyncRing::new).collect::<io::Result<_>>()?;
        Ok(Self { rings, refused: 0 })
    }

    /// Waits until frames wait; forever without a ring.
    pub(super) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut ready = self.rings.iter().map(|ring| ring.poll_readable(cx));
            ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Brings the counters up to date. A system call a ring.
    pub(super) fn count(&self, counters: &Counters) {
        let mut frames = [0; Frames::LABELS.len()];
        frames[Frames::Refused as usize] = self.refused;
        for ring in &self.rings {
            let stats = ring.stats();
            frames[Frames::Received as usize] += stats.received;
            frames[Frames::NoMemory as usize] += stats.dropped;
            frames[Frames::RingFull as usize] += stats.ring_full;
            frames[Frames::Invalid as usize] += stats.invalid;
        }
        counters.rings.set(self.rings.len() as u64);
        for (count, value) in counters.frames.iter().zip(frames) {
            count.set(value);
        }
    }
}

impl Source for Rings {
    fn poll_batch(&mut self, each: &mut dyn FnMut(Datagram<'_>)) -> usize {
        let Self { rings, refused } = self;
        let mut taken = 0;
        for ring in rings {
            let interface = ring.ring().interface();
            taken +=
                ring.poll_batch(&mut |frame| match bauta_xdp::Datagram::parse(frame, interface) {
                    Ok(bauta_xdp::Datagram { source: from, destination, payload }) => {
                        each(Datagram { payload, from, to: Some(destination.ip()), ecn: None });
                    }
                    Err(_) => *refused += 1,
                });
        }
        taken
    }
}
