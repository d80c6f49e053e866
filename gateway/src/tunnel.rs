//! Tunnels over HTTP/3: what they have in common.

pub(crate) mod ip;
pub(crate) mod tcp;
pub(crate) mod udp;

use bauta_masque::bond::field::Offer;
use bauta_masque::datagram::H3_NO_ERROR;
use bauta_masque::proxy_status::ProxyStatus;
use bauta_masque::request::{Ask, Target};
use bauta_masque_io::udp::UdpSocket;
use bauta_masque_io::{Carrier, Header, pad_answer};
use bytes::Bytes;
use tokio::net::TcpStream;

use crate::accounts::{FlowGuard, Grant};
use crate::dial::Refusal;
use crate::shared::Everything;
use crate::worker::{Key, Task, Told, What};

/// Datagrams kept while a tunnel is being opened (RFC 9298 §5), and their bytes.
const EARLY: usize = 32;
const EARLY_BYTES: usize = 64 * 1024;

/// How a tunnel's stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: a FIN.
    Fin,
    /// With an error code, both ways.
    Abort(u64),
}

impl End {
    /// Ends `stream`.
    pub(crate) fn apply(self, conn: &mut (impl Carrier + ?Sized), stream: u64) {
        match self {
            Self::Fin => {
                conn.send_body(stream, Bytes::new(), true);
                conn.stop(stream, H3_NO_ERROR);
            }
            Self::Abort(code) => {
                conn.reset(stream, code);
                conn.stop(stream, code);
            }
        }
    }
}

/// Who a tunnel belongs to; it counts as one of the account's flows.
pub(crate) struct Owner {
    pub(crate) grant: Grant,
    pub(crate) _flow: FlowGuard,
}

/// What a tunnel leads to, once it is known.
pub(crate) enum Ready {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Ip(ip::Scope),
}

/// What a request says beside what it asks for.
#[derive(Default)]
pub(crate) struct Wishes {
    /// The bond the client offers.
    pub(crate) offer: Option<Offer>,
    /// The client has padded its request.
    pub(crate) padded: bool,
}

/// A tunnel on its way: its name is being resolved, its target dialled.
pub(crate) struct Opening {
    pub(crate) owner: Owner,
    /// The peer has nothing more to send.
    pub(crate) ended: bool,
    pub(crate) wishes: Wishes,
    early: Vec<Bytes>,
    early_bytes: usize,
    _task: Option<Task>,
}

impl Opening {
    /// Nothing is known yet of where it leads.
    pub(crate) fn new(owner: Owner, wishes: Wishes, ended: bool) -> Self {
        Self { owner, ended, wishes, early: Vec::new(), early_bytes: 0, _task: None }
    }

    /// Resolves and dials beside the worker, which hears of the outcome.
    pub(crate) fn start(mut self, key: Key, ask: Ask, shared: Everything, told: &Told) -> Self {
        let told = told.what.clone();
        self._task = Some(Task::spawn(async move {
            let ready = open(ask, &shared).await;
            let _ = told.send((key, What::Ready(Box::new(ready))));
        }));
        self
    }

    /// Keeps a datagram that came before its tunnel was open; `false` if there is no room.
    pub(crate) fn hold(&mut self, payload: &[u8]) -> bool {
        let fits = self.early.len() < EARLY && self.early_bytes + payload.len() <= EARLY_BYTES;
        if fits {
            self.early_bytes += payload.len();
            self.early.push(Bytes::copy_from_slice(payload));
        }
        fits
    }

    /// Who it belongs to, what the request said, and the datagrams kept.
    pub(crate) fn finish(self) -> (Owner, Wishes, Vec<Bytes>) {
        (self.owner, self.wishes, self.early)
    }
}

/// What needs no looking up; the rest is given back.
pub(crate) fn at_once(ask: Ask) -> Result<Ready, Ask> {
    match ask {
        Ask::ConnectIp { target: Target::Any, ipproto } => {
            Ok(Ready::Ip(ip::Scope { targets: None, ipproto }))
        }
        ask => Err(ask),
    }
}

async fn open(ask: Ask, shared: &Everything) -> Result<Ready, Refusal> {
    let dialer = &shared.dialer;
    match ask {
        Ask::ConnectUdp { host, port } => dialer.udp(&host.to_string(), port).await.map(Ready::Udp),
        Ask::ConnectTcp { host, port } => dialer.tcp(&host.to_string(), port).await.map(Ready::Tcp),
        Ask::ConnectIp { target, ipproto } => {
            let targets = match target {
                Target::Any => None,
                Target::Prefix(prefix) => {
                    dialer.permit(prefix)?;
                    Some(vec![prefix])
                }
                Target::Name(name) => {
                    let found = dialer.resolve(&name).await?;
                    Some(found.into_iter().map(bauta_masque::address::Prefix::host).collect())
                }
            };
            Ok(Ready::Ip(ip::Scope { targets, ipproto }))
        }
        Ask::Http | Ask::Malformed(_) | Ask::UnknownProtocol => {
            Err(bauta_masque::proxy_status::ProxyError::ProxyInternalError.into())
        }
    }
}

/// The head that opens a tunnel; `capsules`: it speaks the capsule protocol; `padded`: so was the request.
pub(crate) fn accepted(
    domain: &str,
    next_hop: Option<&str>,
    capsules: bool,
    padded: bool,
) -> Vec<Header> {
    let mut head = vec![Header::new(b":status", b"200")];
    if capsules {
        head.push(Header::new(b"capsule-protocol", b"?1"));
    }
    if let Some(hop) = next_hop {
        let status = ProxyStatus::new(domain).next_hop(hop);
        head.push(Header::new(b"proxy-status", status.value().as_bytes()));
    }
    if padded {
        pad_answer(&mut head);
    }
    head
}

/// The head that refuses one, to an account holder.
pub(crate) fn refused(domain: &str, status: u16, refusal: &Refusal) -> Vec<Header> {
    vec![
        Header::new(b":status", status.to_string().as_bytes()),
        Header::new(b"proxy-status", refusal.proxy_status(domain).as_bytes()),
        Header::new(b"content-length", b"0"),
    ]
}
