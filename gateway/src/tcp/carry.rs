//! CONNECT-UDP and CONNECT-IP over HTTP/2 and HTTP/1.1: from a request to a worker, and bytes both
//! ways between it and the client's stream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bauta_masque::request::Ask;
use bauta_masque_io::tcp::road::{self, RoadEnd, read_piece};
use bauta_masque_io::{ConnId, Header, NameValue};
use bauta_web::Body;
use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::accounts::Grant;
use crate::shared::Everything;
use crate::worker::{Carried, Message, Opened, Up};

/// How long a tunnel whose client has ended its side may take to end ours.
const LINGER: Duration = Duration::from_secs(10);

/// How many tunnels came this way.
static ROADS: AtomicU64 = AtomicU64::new(0);

/// The way to a tunnel's worker. When it goes, the worker learns that the stream is gone.
struct Ear {
    id: ConnId,
    worker: mpsc::Sender<Message>,
}

impl Ear {
    fn message(&self, up: Up) -> Message {
        Message::Road(self.id, Carried(up))
    }

    async fn tell(&self, up: Up) -> bool {
        self.worker.send(self.message(up)).await.is_ok()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let gone = self.message(Up::Gone);
        if let Err(mpsc::error::TrySendError::Full(gone)) = self.worker.try_send(gone) {
            let worker = self.worker.clone();
            tokio::spawn(async move {
                let _ = worker.send(gone).await;
            });
        }
    }
}

/// Opens a tunnel and answers for it; `protocol` is HTTP/1.1's Upgrade token, `None` on HTTP/2.
pub(super) async fn tunnel(
    ask: Ask,
    grant: Grant,
    protocol: Option<HeaderValue>,
    upgraded: OnUpgrade,
    shared: &Everything,
) -> Option<Response<Body>> {
    let nth = ROADS.fetch_add(1, Ordering::Relaxed);
    let worker = shared.workers.get(usize::try_from(nth).ok()? % shared.workers.len())?.clone();
    let ear = Ear { id: road::number(nth), worker };
    let (opened, mut end) = Opened::new(ear.id, ask, grant);
    if !ear.tell(Up::Open(opened)).await {
        return None;
    }
    let (head, ended) = end.head().await?;
    let mut response = Response::new(Body::empty());
    for field in &head {
        if field.name() == b":status" {
            *response.status_mut() = StatusCode::from_bytes(field.value()).ok()?;
        } else {
            append(&mut response, field)?;
        }
    }
    if ended {
        // RFC 9931: a refused upgrade ends an HTTP/1.1 connection.
        if protocol.is_some() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        return Some(response);
    }
    if let Some(protocol) = protocol {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = HeaderValue::from_static("Upgrade");
        response.headers_mut().insert(header::CONNECTION, upgrade);
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    tokio::spawn(async move {
        if let Ok(client) = upgraded.await {
            pump(TokioIo::new(client), &ear, end).await;
        }
    });
    Some(response)
}

fn append(response: &mut Response<Body>, field: &Header) -> Option<()> {
    let name = HeaderName::from_bytes(field.name()).ok()?;
    response.headers_mut().append(name, HeaderValue::from_bytes(field.value()).ok()?);
    Some(())
}

/// Copies both ways until our side has ended, or the client is gone.
async fn pump(client: impl AsyncRead + AsyncWrite, ear: &Ear, mut end: RoadEnd) {
    let (mut reader, writer) = tokio::io::split(client);
    let up = async {
        let mut buffer = BytesMut::new();
        while let Some(bytes) = read_piece(&mut reader, &mut buffer).await {
            let ended = bytes.is_empty();
            let up = if ended { Up::End } else { Up::Body(bytes) };
            if !ear.tell(up).await {
                return;
            }
            if ended {
                return tokio::time::sleep(LINGER).await;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = end.write_to(writer) => {}
    }
}
