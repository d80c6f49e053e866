//! The far end: counts what comes, sends what is asked for, echoes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bauta_masque_io::clock;

use super::flow::{Incoming, Outgoing};
use super::port::{Port, wait};
use super::wire::Message;

/// Peers remembered at once; all are forgotten then.
const MAX_PEERS: usize = 1 << 16;
/// How long to wait when there is nothing to do.
const IDLE: Duration = Duration::from_millis(5);

/// Serves until the process is ended.
///
/// # Errors
/// What the socket says.
pub fn serve(mut port: Port) -> io::Result<()> {
    let mut incoming: HashMap<SocketAddr, Incoming> = HashMap::new();
    let mut outgoing: HashMap<SocketAddr, Outgoing> = HashMap::new();
    let mut touched: Vec<SocketAddr> = Vec::new();
    loop {
        if incoming.len() > MAX_PEERS {
            incoming.clear();
        }
        let now = clock::now();
        let mut busy = port.recv(|from, train| {
            let mut echo = false;
            for packet in train {
                match Message::parse(packet) {
                    Some(Message::Data { number }) => {
                        incoming.entry(from).or_default().data(number);
                    }
                    Some(Message::Ack { next, received }) => {
                        if let Some(flow) = outgoing.get_mut(&from) {
                            flow.acknowledged(next, received, now);
                        }
                        continue;
                    }
                    Some(Message::Hello(plan)) if plan.millis == 0 => {
                        incoming.insert(from, Incoming::default());
                    }
                    Some(Message::Hello(plan)) => {
                        outgoing.entry(from).or_insert_with(|| Outgoing::new(plan, now));
                        continue;
                    }
                    Some(Message::Echo) => echo = true,
                    None => {}
                }
                if !echo && touched.last() != Some(&from) {
                    touched.push(from);
                }
            }
            echo
        })? > 0;
        for from in touched.drain(..) {
            let Incoming { next, received } = incoming.get(&from).copied().unwrap_or_default();
            port.say(from, Message::Ack { next, received });
        }
        for (to, flow) in &mut outgoing {
            if let Some((first, count)) = flow.train(now) {
                let plan = flow.plan();
                let sent = port.send(*to, (first, count), plan.size, plan.single)?;
                flow.sent(sent);
                busy |= sent > 0;
            }
        }
        outgoing.retain(|_, flow| !flow.is_over(now));
        if !busy {
            wait(&[&port], IDLE)?;
        }
    }
}
