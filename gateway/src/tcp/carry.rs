//! CONNECT-UDP and CONNECT-IP over HTTP/2 and HTTP/1.1: from a request to a worker, and bytes both
//! ways between it and the client's stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bauta_masque::request::Ask;
use bauta_masque_io::{Header, NameValue};
use bauta_web::Body;
use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::accounts::Grant;
use crate::shared::Everything;
use crate::worker::{Carried, Down, Message, Opened, Up, number};

/// Bytes read from a client at once.
const READ: usize = 32 * 1024;

/// Bytes written to a client at once: capsules are small, and each write is a TLS record.
const WRITE: usize = 16 * 1024;

/// How long a tunnel whose client has ended its side may take to end ours.
const LINGER: Duration = Duration::from_secs(10);

/// How many tunnels came this way.
static ROADS: AtomicU64 = AtomicU64::new(0);

/// The TCP side's end of a tunnel. When it goes, the worker learns that the stream is gone.
struct Road {
    id: u64,
    worker: mpsc::Sender<Message>,
    down: mpsc::UnboundedReceiver<Down>,
    queued: Arc<AtomicUsize>,
}

impl Road {
    fn message(&self, up: Up) -> Message {
        Message::Road(self.id, Carried(up))
    }

    async fn tell(&self, up: Up) -> bool {
        self.worker.send(self.message(up)).await.is_ok()
    }
}

impl Drop for Road {
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
    let (sender, down) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let mut road = Road { id: number(nth), worker, down, queued: queued.clone() };
    let opened = Opened { ask, grant, down: sender, queued };
    if !road.tell(Up::Open(Box::new(opened))).await {
        return None;
    }
    let Down::Head(head, ended) = road.down.recv().await? else { return None };
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
            pump(TokioIo::new(client), road).await;
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
async fn pump(client: impl AsyncRead + AsyncWrite, mut road: Road) {
    let (mut reader, mut writer) = tokio::io::split(client);
    let (_, closed) = mpsc::unbounded_channel();
    let mut down = std::mem::replace(&mut road.down, closed);
    let queued = road.queued.clone();
    let up = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ);
            let Ok(n) = (&mut reader).take(READ as u64).read_buf(&mut buffer).await else { return };
            let more = n > 0;
            let told = if more { Up::Body(buffer.split().freeze()) } else { Up::End };
            if !road.tell(told).await || !more {
                break;
            }
        }
        tokio::time::sleep(LINGER).await;
    };
    let down = async {
        let mut buffer = Vec::with_capacity(2 * WRITE);
        while let Some(first) = down.recv().await {
            let mut next = Some(first);
            let mut last = false;
            while let Some(told) = next {
                match told {
                    Down::Body(bytes) => buffer.extend_from_slice(&bytes),
                    Down::End => last = true,
                    Down::Head(..) => {}
                    Down::Abort => return,
                }
                if last || buffer.len() >= WRITE {
                    break;
                }
                next = down.try_recv().ok();
            }
            if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
                return;
            }
            queued.fetch_sub(buffer.len(), Ordering::Relaxed);
            buffer.clear();
            if last {
                let _ = writer.shutdown().await;
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
