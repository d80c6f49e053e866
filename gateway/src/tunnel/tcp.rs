//! CONNECT: a stream of bytes to a TCP target (RFC 9110 §9.3.6, RFC 9114 §4.4).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bauta_masque::datagram::H3_CONNECT_ERROR;
use bauta_masque_io::clock;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::accounts::{Bucket, Grant, Usage};
use crate::metrics::{Counters, Kind};
use crate::worker::{Ends, Inbox, Outbox, What};

/// Bytes read from the target at once.
const READ: usize = 32 * 1024;

/// How long a stream beyond its rate waits before it asks again.
const STEP: Duration = Duration::from_millis(5);

/// How long a half-closed connection may stay silent.
const LINGER: Duration = Duration::from_secs(300);

/// Counts what passes and holds it to the account's rate.
#[derive(Clone)]
pub(crate) struct Meter {
    usage: Arc<Usage>,
    counters: Arc<Counters>,
}

impl Meter {
    /// For a tunnel of this account's.
    pub(crate) fn new(grant: &Grant, counters: Arc<Counters>) -> Self {
        Self { usage: grant.account.usage.clone(), counters }
    }

    /// Waits until the rate lets `bytes` go up.
    async fn up(&self, bytes: usize) {
        pace(&self.usage.up, bytes).await;
        self.counters.up_bytes[Kind::Tcp as usize].add_shared(bytes as u64);
    }

    /// Waits until the rate lets `bytes` come down.
    async fn down(&self, bytes: usize) {
        pace(&self.usage.down, bytes).await;
        self.counters.down_bytes[Kind::Tcp as usize].add_shared(bytes as u64);
    }
}

/// A stream can wait where a packet is dropped.
async fn pace(bucket: &Bucket, bytes: usize) {
    while !bucket.admit(clock::now(), bytes) {
        tokio::time::sleep(STEP).await;
    }
}

/// Copies both ways until both are at their end, or one fails.
pub(crate) async fn copy(stream: TcpStream, ends: Ends, meter: Meter) {
    let (reader, writer) = stream.into_split();
    let Ends { inbox, outbox } = ends;
    let down = async {
        let done = down(reader, &outbox, &meter).await;
        outbox.tell(if done.is_ok() { What::End } else { What::Abort(H3_CONNECT_ERROR) });
        done
    };
    let up = up(writer, inbox, &meter);
    tokio::pin!(down, up);
    // One side's end is passed on; then the other has a while to finish.
    tokio::select! {
        done = &mut down => if done.is_ok() {
            let _ = tokio::time::timeout(LINGER, up).await;
        },
        done = &mut up => match done {
            Ok(()) => {
                let _ = tokio::time::timeout(LINGER, down).await;
            }
            Err(_) => outbox.tell(What::Abort(H3_CONNECT_ERROR)),
        },
    }
    outbox.tell(What::Done);
}

async fn down(mut reader: OwnedReadHalf, outbox: &Outbox, meter: &Meter) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        let n = (&mut reader).take(READ as u64).read_buf(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        meter.down(n).await;
        outbox.send(buffer.split().freeze()).await;
    }
}

async fn up(mut writer: OwnedWriteHalf, mut inbox: Inbox, meter: &Meter) -> io::Result<()> {
    while let Some(piece) = inbox.next().await {
        meter.up(piece.len()).await;
        writer.write_all(&piece).await?;
    }
    writer.shutdown().await
}

/// The same between two sockets, for HTTP/1.1 and HTTP/2.
pub(crate) async fn relay(
    client: impl AsyncRead + AsyncWrite,
    target: TcpStream,
    meter: &Meter,
) -> io::Result<()> {
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (mut reader, mut writer) = target.into_split();
    let up = async {
        let mut buffer = vec![0; READ];
        loop {
            let n = client_reader.read(&mut buffer).await?;
            if n == 0 {
                return writer.shutdown().await;
            }
            meter.up(n).await;
            writer.write_all(&buffer[..n]).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0; READ];
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                return client_writer.shutdown().await;
            }
            meter.down(n).await;
            client_writer.write_all(&buffer[..n]).await?;
        }
    };
    tokio::try_join!(up, down).map(|_| ())
}
