//! Datagrams on their way to UDP targets, gathered into trains.

use std::rc::Rc;

use bauta_masque_io::udp::{Train, UdpSocket, is_too_big, is_unreachable};

use super::Key;
use crate::metrics::{Counters, Dropped};

/// The train under construction, for whichever flow sent last.
#[derive(Default)]
pub(crate) struct Upward {
    train: Train,
    to: Option<(Key, Rc<UdpSocket>)>,
    /// Flows whose target turned out unreachable.
    broken: Vec<Key>,
}

impl Upward {
    /// Adds a datagram; a train for another flow leaves first.
    pub(crate) fn push(
        &mut self,
        key: Key,
        socket: &Rc<UdpSocket>,
        payload: &[u8],
        counters: &Counters,
    ) {
        if self.to.as_ref().is_none_or(|(to, _)| *to != key) {
            self.send(counters);
            self.to = Some((key, socket.clone()));
        }
        if !self.train.push(payload) {
            self.depart(counters);
            let _ = self.train.push(payload);
        }
    }

    /// Sends what waits. To be called at the end of each turn.
    pub(crate) fn send(&mut self, counters: &Counters) {
        self.depart(counters);
        self.to = None;
    }

    fn depart(&mut self, counters: &Counters) {
        let Some((key, socket)) = &self.to else { return };
        let datagrams = self.train.len() as u64;
        match self.train.send(socket) {
            Ok(()) => {}
            Err(e) if is_unreachable(&e) => self.broken.push(*key),
            Err(e) => {
                let why = if is_too_big(&e) { Dropped::TooLarge } else { Dropped::Blocked };
                counters.drops[why as usize].add(datagrams);
            }
        }
    }

    /// The flows that must end.
    pub(crate) fn take_broken(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.broken)
    }
}
