//! The flows of all connections of the dialer: what comes in is handed to them, what they raise is sent.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, time::Instant};

use bauta_masque::{
    connect_udp::{ConnectUdp, Event as UdpEvent, Role, UdpVerdict},
    datagram::H3_REQUEST_CANCELLED,
};
use bauta_masque_io::{App, Closed, ConnId, Connection, DatagramBuf, Event, Header, clock};
use tokio::sync::Notify;

use super::{
    DialError, Open, TcpFlow, UdpFlow, Wanted,
    packets::Packets,
    pipe::Pipe,
    pump::{Pumped, pump_tcp, pump_udp},
};
use crate::{connect::MTU_PATIENCE, headers};

/// A stream of a connection.
pub(super) type Key = (ConnId, u64);

/// Bytes read from a stream at once.
const CHUNK: usize = 64 * 1024;

/// Tells the actor which flows have something to send, or room again.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: RefCell<Vec<Key>>,
    notify: Notify,
}

impl Signal {
    /// The flow wants to be looked at.
    pub(super) fn raise(&self, key: Key) {
        let mut raised = self.raised.borrow_mut();
        if raised.last() != Some(&key) {
            raised.push(key);
            self.notify.notify_one();
        }
    }

    /// Waits until a flow was raised.
    pub(super) async fn raised(&self) {
        self.notify.notified().await;
    }

    /// The flows raised, each once.
    pub(super) fn take(&self) -> Vec<Key> {
        let mut raised = std::mem::take(&mut *self.raised.borrow_mut());
        raised.sort_unstable();
        raised.dedup();
        raised
    }
}

/// What the actor has to act upon after a batch of events.
pub(super) enum Note {
    Established(ConnId),
    Settings(ConnId),
    GoAway(ConnId),
    Closed(ConnId, Closed),
}

enum Flow {
    Asked { open: Option<Open>, deadline: Instant },
    Tcp { pipe: Rc<RefCell<Pipe>>, sent_fin: bool },
    Udp { packets: Rc<Packets>, session: ConnectUdp, settled_by: Instant },
}

/// All flows.
pub(super) struct Flows {
    pub(super) signal: Rc<Signal>,
    pub(super) notes: Vec<Note>,
    /// To be asked for over another connection, and until when.
    pub(super) again: Vec<(Open, Instant)>,
    flows: HashMap<Key, Flow>,
    /// Flows whose datagrams found the queue full.
    stalled: Vec<Key>,
    /// Flows whose next datagram waits for path MTU discovery.
    early: Vec<Key>,
    chunk: Box<[u8]>,
}

impl Flows {
    pub(super) fn new() -> Flows {
        Flows {
            signal: Rc::default(),
            notes: Vec::new(),
            again: Vec::new(),
            flows: HashMap::new(),
            stalled: Vec::new(),
            early: Vec::new(),
            chunk: vec![0; CHUNK].into(),
        }
    }

    /// Whether the connection carries none.
    pub(super) fn is_idle(&self, conn: ConnId) -> bool {
        !self.flows.keys().any(|(id, _)| *id == conn)
    }

    /// A request has been sent; its answer decides.
    pub(super) fn asked(&mut self, key: Key, open: Open, deadline: Instant) {
        self.flows.insert(key, Flow::Asked { open: Some(open), deadline });
    }

    /// The earliest moment at which a request, or a datagram too large for now, has waited too long.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let deadlines = self.flows.values().filter_map(|flow| match flow {
            Flow::Asked { deadline, .. } => Some(*deadline),
            _ => None,
        });
        let early = self.early.iter().filter_map(|key| self.settled_by(key));
        deadlines.chain(early).min()
    }

    /// When the flow no longer waits for path MTU discovery.
    fn settled_by(&self, key: &Key) -> Option<Instant> {
        match self.flows.get(key) {
            Some(Flow::Udp { settled_by, .. }) => Some(*settled_by),
            _ => None,
        }
    }

    /// Gives up requests that have waited too long; the streams are to be reset.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Key> {
        let late = |flow: &Flow| matches!(flow, Flow::Asked { deadline, .. } if *deadline <= now);
        let keys: Vec<Key> =
            self.flows.iter().filter(|(_, flow)| late(flow)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.fail(*key, DialError::TimedOut);
        }
        keys
    }

    /// Flows to look at in this turn.
    pub(super) fn raised(&mut self, now: Instant) -> Vec<Key> {
        let mut keys = self.signal.take();
        keys.append(&mut self.stalled);
        let mut early = std::mem::take(&mut self.early);
        early.retain(|key| {
            let waits = self.settled_by(key).is_some_and(|at| now < at);
            if !waits {
                keys.push(*key);
            }
            waits
        });
        self.early = early;
        keys
    }

    /// Moves what a flow has to send, and reads what it has room for.
    pub(super) fn pump(&mut self, conn: &mut Connection, stream: u64) {
        let key = (conn.id(), stream);
        match self.flows.get_mut(&key) {
            Some(Flow::Tcp { pipe, sent_fin }) => {
                let dropped =
                    pump_tcp(conn, stream, &mut pipe.borrow_mut(), sent_fin, &mut self.chunk);
                if dropped || (*sent_fin && pipe.borrow().is_down_ended()) {
                    self.flows.remove(&key);
                }
            }
            Some(Flow::Udp { packets, session, settled_by }) => {
                if packets.is_dropped() {
                    conn.send_body(stream, bytes::Bytes::new(), true);
                    conn.stop(stream, H3_REQUEST_CANCELLED);
                    self.flows.remove(&key);
                } else {
                    let early = !conn.path_mtu_settled() && clock::now() < *settled_by;
                    match pump_udp(conn, stream, packets, session, early) {
                        Pumped::All => {}
                        Pumped::Full => self.stalled.push(key),
                        Pumped::Early if self.early.contains(&key) => {}
                        Pumped::Early => self.early.push(key),
                    }
                }
            }
            Some(Flow::Asked { .. }) | None => {}
        }
    }

    fn fail(&mut self, key: Key, why: DialError) {
        match self.flows.remove(&key) {
            Some(Flow::Asked { open: Some(open), .. }) => refuse(open, why),
            Some(Flow::Tcp { pipe, .. }) => pipe.borrow_mut().fail(io::ErrorKind::ConnectionReset),
            Some(Flow::Udp { packets, .. }) => packets.fail(io::ErrorKind::ConnectionReset),
            Some(Flow::Asked { open: None, .. }) | None => {}
        }
    }

    /// A connection is gone. What was only asked for there, nothing sent yet, is asked for once more.
    fn lost(&mut self, id: ConnId) {
        let keys: Vec<Key> = self.flows.keys().filter(|(conn, _)| *conn == id).copied().collect();
        for key in keys {
            match self.flows.get_mut(&key) {
                Some(Flow::Asked { open, deadline }) if open.as_ref().is_some_and(|o| !o.again) => {
                    let again = open.take().map(|open| (Open { again: true, ..open }, *deadline));
                    self.again.extend(again);
                    self.flows.remove(&key);
                }
                _ => self.fail(key, DialError::Lost),
            }
        }
    }

    fn answered(&mut self, conn: &mut Connection, stream: u64, list: &[Header]) {
        let key = (conn.id(), stream);
        let Some(Flow::Asked { open, .. }) = self.flows.get_mut(&key) else { return };
        let status = headers::status(list);
        if (100..200).contains(&status) {
            return;
        }
        if !(200..300).contains(&status) {
            let proxy_status = headers::field(list, "proxy-status").map(str::to_owned);
            conn.reset(stream, H3_REQUEST_CANCELLED);
            conn.stop(stream, H3_REQUEST_CANCELLED);
            return self.fail(key, DialError::Refused { status, proxy_status });
        }
        let Some(open) = open.take() else { return };
        let signal = self.signal.clone();
        let flow = match open.wanted {
            Wanted::Tcp(answer) => {
                let (flow, pipe) = TcpFlow::new(signal, key);
                // Nobody waits any more: the flow is dropped here, and that is noticed like any other end.
                let _ = answer.send(Ok(flow));
                Flow::Tcp { pipe, sent_fin: false }
            }
            Wanted::Udp(answer) => {
                let (flow, packets) = UdpFlow::new(signal, key);
                let _ = answer.send(Ok(flow));
                // What is too large for what is known to pass waits: the first packets of a QUIC connection through
                // the flow are, and are repeated only after a second.
                let settled_by = clock::now() + MTU_PATIENCE;
                Flow::Udp { packets, session: ConnectUdp::new(Role::Client), settled_by }
            }
        };
        self.flows.insert(key, flow);
    }

    fn data(&mut self, conn: &mut Connection, stream: u64) {
        let key = (conn.id(), stream);
        match self.flows.get_mut(&key) {
            Some(Flow::Tcp { .. }) => self.pump(conn, stream),
            Some(Flow::Udp { packets, session, .. }) => {
                let mut broken = None;
                loop {
                    let n = conn.recv_body(stream, &mut self.chunk);
                    if n == 0 {
                        break;
                    }
                    if let Err(e) = session.handle_stream(&self.chunk[..n]) {
                        broken = Some(e.code());
                    }
                    while let Some(UdpEvent::DatagramCapsule(payload)) = session.poll_event() {
                        if let Ok(UdpVerdict::Forward(datagram)) = session.handle_datagram(&payload)
                        {
                            packets.push_down(datagram);
                        }
                    }
                }
                if let Some(code) = broken {
                    abort(conn, stream, code);
                    self.fail(key, DialError::Lost);
                }
            }
            // The body of a refusal is the website's page.
            Some(Flow::Asked { .. }) | None => while conn.recv_body(stream, &mut self.chunk) > 0 {},
        }
    }

    fn finished(&mut self, conn: &mut Connection, stream: u64) {
        let key = (conn.id(), stream);
        match self.flows.get_mut(&key) {
            Some(Flow::Tcp { pipe, sent_fin }) => {
                pipe.borrow_mut().end_down();
                if *sent_fin {
                    self.flows.remove(&key);
                }
            }
            Some(_) => self.fail(key, DialError::Lost),
            None => {}
        }
    }
}

fn abort(conn: &mut Connection, stream: u64, code: u64) {
    conn.reset(stream, code);
    conn.stop(stream, code);
}

/// Tells whoever waits that there will be no flow.
pub(super) fn refuse(open: Open, why: DialError) {
    match open.wanted {
        Wanted::Tcp(answer) => drop(answer.send(Err(why))),
        Wanted::Udp(answer) => drop(answer.send(Err(why))),
    }
}

impl App for Flows {
    fn datagram(&mut self, conn: &mut Connection, stream: u64, payload: DatagramBuf) {
        let key = (conn.id(), stream);
        let Some(Flow::Udp { packets, session, .. }) = self.flows.get(&key) else { return };
        match session.handle_datagram(payload.as_ref()) {
            Ok(UdpVerdict::Forward(datagram)) => packets.push_down(datagram),
            Ok(UdpVerdict::Drop(_)) => {}
            Err(e) => {
                abort(conn, stream, e.code());
                self.fail(key, DialError::Lost);
            }
        }
    }

    fn event(&mut self, conn: &mut Connection, event: Event) {
        let id = conn.id();
        match event {
            Event::Established => self.notes.push(Note::Established(id)),
            Event::Settings => self.notes.push(Note::Settings(id)),
            Event::GoAway => self.notes.push(Note::GoAway(id)),
            Event::Headers { stream, headers, .. } => self.answered(conn, stream, &headers),
            Event::Data { stream } => self.data(conn, stream),
            Event::Finished { stream } => self.finished(conn, stream),
            Event::Reset { stream, .. } => self.fail((id, stream), DialError::Lost),
            Event::Stopped { stream, .. } => {
                // The target takes no more, but may still have something to say.
                if let Some(Flow::Tcp { pipe, sent_fin }) = self.flows.get_mut(&(id, stream)) {
                    *sent_fin = true;
                    pipe.borrow_mut().stop_up();
                }
            }
            Event::Writable { stream } => self.signal.raise((id, stream)),
            Event::PathMtu { .. } => {
                let signal = &self.signal;
                let settled = |key: &mut Key| key.0 == id;
                self.early.extract_if(.., settled).for_each(|key| signal.raise(key));
            }
            Event::Migrated => {}
            Event::Closed(closed) => {
                self.lost(id);
                self.notes.push(Note::Closed(id, closed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::dial::Target;

    #[test]
    fn what_was_only_asked_for_on_a_lost_connection_is_asked_for_once_more() {
        let mut flows = Flows::new();
        let (answer, mut answered) = oneshot::channel();
        let target = Target::new("far.test", 80).unwrap();
        let open = Open { target, wanted: Wanted::Tcp(answer), again: false };
        let deadline = clock::now() + MTU_PATIENCE;
        flows.asked((1, 0), open, deadline);
        flows.lost(2);
        assert!(flows.again.is_empty(), "another connection was lost");
        flows.lost(1);
        let (open, until) = flows.again.pop().unwrap();
        assert!(until == deadline && flows.is_idle(1));
        assert!(answered.try_recv().is_err(), "it was refused at once");
        flows.asked((3, 0), open, until);
        flows.lost(3);
        assert!(flows.again.is_empty() && flows.is_idle(3));
        assert!(matches!(answered.try_recv(), Ok(Err(DialError::Lost))));
    }
}
