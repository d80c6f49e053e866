//! A UDP flow: two rings of datagrams between the local program and the actor.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
};

use tokio::sync::Notify;

use super::flows::{Key, Signal};

/// Datagrams that wait in either direction; more are dropped, as any queue does.
const CAPACITY: usize = 512;

/// A ring of datagrams that keeps its memory.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Vec<Vec<u8>>,
    first: usize,
    len: usize,
}

impl Ring {
    fn new() -> Ring {
        Ring { slots: Vec::new(), first: 0, len: 0 }
    }

    /// Adds a copy; `false` when there is no room.
    pub(super) fn push(&mut self, datagram: &[u8]) -> bool {
        if self.len == CAPACITY {
            return false;
        }
        let at = (self.first + self.len) % CAPACITY;
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, Vec::new);
        }
        self.slots[at].clear();
        self.slots[at].extend_from_slice(datagram);
        self.len += 1;
        true
    }

    /// Hands out what is there, oldest first, until `take` returns `false` (which leaves that one).
    pub(super) fn drain(&mut self, mut take: impl FnMut(&mut [u8]) -> bool) {
        while self.len > 0 && take(&mut self.slots[self.first]) {
            self.first = (self.first + 1) % CAPACITY;
            self.len -= 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Both directions of one flow.
#[derive(Debug)]
pub(super) struct Packets {
    pub(super) up: RefCell<Ring>,
    pub(super) down: RefCell<Ring>,
    arrived: Notify,
    failed: Cell<Option<io::ErrorKind>>,
    dropped: Cell<bool>,
}

impl Packets {
    /// A datagram from the target.
    pub(super) fn push_down(&self, datagram: &[u8]) {
        self.down.borrow_mut().push(datagram);
        self.arrived.notify_one();
    }

    /// The flow is over.
    pub(super) fn fail(&self, why: io::ErrorKind) {
        if self.failed.get().is_none() {
            self.failed.set(Some(why));
        }
        self.arrived.notify_one();
    }

    /// The local program is gone.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.get()
    }
}

/// A UDP flow to one target.
#[derive(Debug)]
pub struct UdpFlow {
    packets: Rc<Packets>,
    signal: Rc<Signal>,
    key: Key,
}

impl UdpFlow {
    pub(super) fn new(signal: Rc<Signal>, key: Key) -> (UdpFlow, Rc<Packets>) {
        let packets = Rc::new(Packets {
            up: RefCell::new(Ring::new()),
            down: RefCell::new(Ring::new()),
            arrived: Notify::new(),
            failed: Cell::new(None),
            dropped: Cell::new(false),
        });
        (UdpFlow { packets: packets.clone(), signal, key }, packets)
    }

    /// Sends a datagram, or drops it when too many wait; `false` then.
    pub fn send(&self, datagram: &[u8]) -> bool {
        let taken = self.packets.up.borrow_mut().push(datagram);
        self.signal.raise(self.key);
        taken
    }

    /// Waits until datagrams are there; an error when the flow is over and none is left.
    pub async fn readable(&self) -> io::Result<()> {
        loop {
            if !self.packets.down.borrow().is_empty() {
                return Ok(());
            }
            if let Some(why) = self.packets.failed.get() {
                return Err(why.into());
            }
            self.packets.arrived.notified().await;
        }
    }

    /// Hands out the datagrams that are there.
    pub fn drain(&self, mut each: impl FnMut(&[u8])) {
        self.packets.down.borrow_mut().drain(|datagram| {
            each(datagram);
            true
        });
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        self.packets.dropped.set(true);
        self.signal.raise(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn a_ring_keeps_order_and_drops_what_does_not_fit() {
        let mut ring = Ring::new();
        for round in 0..3 {
            for n in 0..CAPACITY {
                assert!(ring.push(&[n as u8, round]));
            }
            assert!(!ring.push(b"more"));
            let mut next = 0;
            ring.drain(|d| {
                assert_eq!(d, [next as u8, round]);
                next += 1;
                next < CAPACITY
            });
            assert_eq!(next, CAPACITY);
            ring.drain(|_| true);
            assert!(ring.is_empty());
        }
    }

    #[test]
    fn what_arrived_before_the_end_is_still_read() {
        run(async {
            let (flow, packets) = UdpFlow::new(Rc::default(), (0, 0));
            packets.push_down(b"one");
            packets.fail(io::ErrorKind::ConnectionReset);
            flow.readable().await.unwrap();
            let mut got = Vec::new();
            flow.drain(|d| got.extend_from_slice(d));
            assert_eq!(got, b"one");
            assert_eq!(flow.readable().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn sending_raises_the_signal_once() {
        let signal = Rc::new(Signal::default());
        let (flow, packets) = UdpFlow::new(signal.clone(), (1, 8));
        assert!(flow.send(b"a") && flow.send(b"b"));
        assert_eq!(signal.take(), [(1, 8)]);
        drop(flow);
        assert!(packets.is_dropped());
    }
}
