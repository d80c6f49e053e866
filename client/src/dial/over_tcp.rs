//! Flows where QUIC does not get through: streams of one HTTP/2 connection over TCP, or a connection of HTTP/1.1 each.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bauta_masque::{
    capsule,
    connect_udp::{ConnectUdp, Event, Role, UdpVerdict},
    datagram::CONTEXT_ID_ZERO,
    request::CONNECT_UDP,
};
use bauta_masque_io::tcp::{
    Version,
    client::{Answer, Requests, TcpError, TunnelRequest, TunnelStream},
    road::read_piece,
};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    DialError, Open, TcpFlow, UdpFlow, Wanted,
    flows::{Signal, refuse},
    packets::Packets,
};
use crate::{
    config::Settings,
    headers,
    stage::{Failure, Stage},
    tcp,
};

/// How long QUIC has for itself before TCP is tried beside it.
pub(super) const HEAD_START: Duration = Duration::from_millis(1500);
/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of datagrams gathered into one write.
const WRITE: usize = 16 * 1024;
/// How soon QUIC is tried again beside TCP, and how seldom at last.
const COMEBACK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// When QUIC is tried again while TCP carries the flows: only as flows are opened, and ever more seldom.
#[derive(Debug)]
pub(super) struct Comeback {
    wait: Duration,
    due: Instant,
}

impl Comeback {
    pub(super) fn new(now: Instant) -> Comeback {
        let (first, _) = COMEBACK;
        Comeback { wait: first, due: now + first }
    }

    /// Whether it is time; if so, the next time is twice as far.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due <= now;
        if due {
            let (_, longest) = COMEBACK;
            self.wait = (self.wait * 2).min(longest);
            self.due = now + self.wait;
        }
        due
    }
}

/// The way to the gateway over TCP.
pub(super) struct Lane {
    settings: Rc<Settings>,
    gateways: Vec<SocketAddr>,
    /// HTTP/2's connection, or one of HTTP/1.1 on which nothing was asked yet.
    requests: RefCell<Option<Requests>>,
    version: Version,
}

impl Lane {
    /// Connects, and no more.
    pub(super) async fn open(
        settings: Rc<Settings>,
        gateways: Vec<SocketAddr>,
    ) -> Result<Lane, Failure> {
        let requests = begin(&settings, &gateways).await?;
        let version = requests.version();
        Ok(Lane { settings, gateways, requests: RefCell::new(Some(requests)), version })
    }

    /// Whether another is needed for new flows.
    pub(super) fn is_closed(&self) -> bool {
        let requests = self.requests.borrow();
        self.version == Version::Http2 && requests.as_ref().is_none_or(Requests::is_closed)
    }

    /// Opens a flow, tells whoever waits, and carries it to its end.
    pub(super) async fn serve(self: Rc<Lane>, open: Open, deadline: Instant) {
        let asked = tokio::time::timeout_at(deadline.into(), async {
            let requests = self.requests().await.map_err(DialError::Gateway)?;
            let answer = match self.ask(requests, &open).await {
                // The connection may have died unseen; a fresh one has not.
                Err(TcpError::Http(_) | TcpError::Io(_)) => {
                    self.requests.take();
                    let fresh = begin(&self.settings, &self.gateways).await;
                    let fresh = fresh.map_err(DialError::Gateway)?;
                    self.requests.replace(fresh.another());
                    self.ask(fresh, &open).await
                }
                told => told,
            };
            let answer = answer.map_err(|e| DialError::Gateway(unfit(&e)))?;
            answer.stream.ok_or_else(|| {
                let said = answer.headers.get("proxy-status").and_then(|v| v.to_str().ok());
                let proxy_status = said.map(str::to_owned);
                DialError::Refused { status: answer.status.as_u16(), proxy_status }
            })
        });
        let stream = match asked.await.unwrap_or(Err(DialError::TimedOut)) {
            Ok(stream) => stream,
            Err(why) => return refuse(open, why),
        };
        match open.wanted {
            Wanted::Tcp(answer) => drop(answer.send(Ok(TcpFlow::over_tcp(stream)))),
            Wanted::Udp(answer) => {
                let signal = Rc::new(Signal::default());
                let (flow, packets) = UdpFlow::new(signal.clone(), (0, 0));
                if answer.send(Ok(flow)).is_ok() {
                    carry(stream, &packets, &signal).await;
                    packets.fail(std::io::ErrorKind::ConnectionReset);
                }
            }
        }
    }

    async fn ask(&self, mut requests: Requests, open: &Open) -> Result<Answer, TcpError> {
        let (list, protocol) = match open.wanted {
            Wanted::Tcp(_) => {
                (headers::connect_tcp(&self.settings, &mut requests, &open.target), None)
            }
            Wanted::Udp(_) => {
                let list = headers::connect_udp(&self.settings, &mut requests, &open.target);
                (list, Some(CONNECT_UDP))
            }
        };
        requests.ask(&TunnelRequest::new(protocol, &list)?).await
    }

    async fn requests(&self) -> Result<Requests, Failure> {
        let ready = match self.version {
            Version::Http2 => self.requests.borrow().as_ref().and_then(Requests::another),
            Version::Http1 => self.requests.borrow_mut().take().filter(|r| !r.is_closed()),
        };
        match ready {
            Some(requests) => Ok(requests),
            None => begin(&self.settings, &self.gateways).await,
        }
    }
}

async fn begin(settings: &Settings, gateways: &[SocketAddr]) -> Result<Requests, Failure> {
    let begun = tokio::time::timeout(PATIENCE, async {
        let (dialled, _, _) = tcp::dial(settings, gateways).await?;
        dialled.begin().await.map_err(|e| unfit(&e))
    });
    begun.await.unwrap_or_else(|_| Err(tcp::silent(gateways, PATIENCE)))
}

fn unfit(error: &TcpError) -> Failure {
    Failure::new(
        Stage::Settings,
        format_args!("over TCP: {error}"),
        "it is no MASQUE gateway, or something in between does not let its requests pass",
    )
}

/// Moves datagrams both ways, in capsules (RFC 9297 §3.5), until either end is gone.
async fn carry(stream: TunnelStream, packets: &Packets, signal: &Signal) {
    let (reader, writer) = stream.split();
    tokio::select! {
        () = down(reader, packets) => {}
        () = up(writer, packets, signal) => {}
    }
}

async fn down(mut reader: impl AsyncRead + Unpin, packets: &Packets) {
    let mut session = ConnectUdp::new(Role::Client);
    let mut buffer = BytesMut::new();
    while let Some(bytes) = read_piece(&mut reader, &mut buffer).await {
        let whole = session.handle_stream(&bytes).is_ok();
        while let Some(Event::DatagramCapsule(payload)) = session.poll_event() {
            if let Ok(UdpVerdict::Forward(datagram)) = session.handle_datagram(&payload) {
                packets.push_down(datagram);
            }
        }
        if bytes.is_empty() || !whole {
            return;
        }
    }
}

async fn up(mut writer: impl AsyncWrite + Unpin, packets: &Packets, signal: &Signal) {
    let mut buffer = Vec::with_capacity(2 * WRITE);
    loop {
        signal.raised().await;
        signal.take();
        loop {
            buffer.clear();
            packets.up.borrow_mut().drain(|datagram| {
                let room = buffer.len() < WRITE;
                if room {
                    capsule::encode_datagram(&CONTEXT_ID_ZERO, datagram, &mut buffer);
                }
                room
            });
            if buffer.is_empty() {
                break;
            }
            if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        if packets.is_dropped() {
            let _ = writer.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bauta_masque_io::clock;

    use super::*;

    #[test]
    fn quic_is_tried_again_ever_more_seldom() {
        let mut now = clock::now();
        let mut comeback = Comeback::new(now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let before = now;
            while !comeback.is_due(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - before).as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[tokio::test]
    async fn datagrams_travel_in_capsules_and_the_end_is_seen() {
        let signal = Rc::new(Signal::default());
        let (flow, packets) = UdpFlow::new(signal.clone(), (0, 0));
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        for datagram in [&b"one"[..], b"two"] {
            assert!(flow.send(datagram));
        }
        drop(flow);
        up(ours, &packets, &signal).await;
        let mut sent = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut sent).await.unwrap();
        assert_eq!(sent, b"\0\x04\0one\0\x04\0two");

        let (flow, packets) = UdpFlow::new(signal, (0, 0));
        down(&sent[..], &packets).await;
        let mut got = Vec::new();
        flow.drain(|datagram| got.push(datagram.to_vec()));
        assert_eq!(got, [b"one", b"two"]);
    }
}
