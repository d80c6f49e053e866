//! Between a flow's local end and its stream: as much as either has room for.

use bauta_masque::{
    capsule,
    connect_udp::{ConnectUdp, UdpVerdict},
    datagram::{CONTEXT_ID_ZERO, H3_REQUEST_CANCELLED},
};
use bauta_masque_io::{Connection, DatagramError, connection::HIGH_WATER};

use super::{packets::Packets, pipe::Pipe};

/// What became of the datagrams that a flow has to send.
#[derive(PartialEq)]
pub(super) enum Pumped {
    All,
    /// Some are left: the connection's queue is full.
    Full,
    /// Some are left: the next may fit once path MTU discovery has ended.
    Early,
}

/// Returns whether the local program is gone.
pub(super) fn pump_tcp(
    conn: &mut Connection,
    stream: u64,
    pipe: &mut Pipe,
    sent_fin: &mut bool,
    chunk: &mut [u8],
) -> bool {
    if pipe.is_dropped() {
        if !*sent_fin {
            // What was written before the end still counts; a program that breaks off shuts nothing down.
            while let Some((bytes, last)) = pipe.take_up() {
                conn.send_body(stream, bytes, last);
                if last {
                    *sent_fin = true;
                    break;
                }
            }
        }
        if !*sent_fin {
            conn.reset(stream, H3_REQUEST_CANCELLED);
        }
        if !pipe.is_down_ended() {
            conn.stop(stream, H3_REQUEST_CANCELLED);
        }
        return true;
    }
    while !*sent_fin && conn.queued(stream) < HIGH_WATER {
        let Some((bytes, last)) = pipe.take_up() else { break };
        conn.send_body(stream, bytes, last);
        *sent_fin = last;
    }
    loop {
        let room = pipe.room().min(chunk.len());
        let n = if room == 0 { 0 } else { conn.recv_body(stream, &mut chunk[..room]) };
        if n == 0 {
            return false;
        }
        pipe.push_down(&chunk[..n]);
    }
}

/// `early`: what is too large for now may not be so for long.
pub(super) fn pump_udp(
    conn: &mut Connection,
    stream: u64,
    packets: &Packets,
    session: &ConnectUdp,
    early: bool,
) -> Pumped {
    let mut pumped = Pumped::All;
    let max = conn.max_datagram_payload(stream);
    packets.up.borrow_mut().drain(|datagram| {
        let Some(max) = max else {
            // Without HTTP Datagrams the same payload goes as a capsule (RFC 9297 §3.5).
            if conn.queued(stream) >= HIGH_WATER {
                pumped = Pumped::Full;
                return false;
            }
            conn.send_body(
                stream,
                capsule::encode_datagram_capsule(&CONTEXT_ID_ZERO, datagram),
                false,
            );
            return true;
        };
        match session.encapsulate(datagram, max) {
            UdpVerdict::Forward(datagram) => {
                let sent = conn.send_datagram(stream, &CONTEXT_ID_ZERO, datagram);
                if let Err(DatagramError::Full) = sent {
                    pumped = Pumped::Full;
                }
            }
            // What is too large is dropped (RFC 9298 §6.1).
            UdpVerdict::Drop(_) if early => pumped = Pumped::Early,
            UdpVerdict::Drop(_) => {}
        }
        pumped == Pumped::All
    });
    pumped
}
