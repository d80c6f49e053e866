//! CONNECT: a stream of bytes to a TCP target (RFC 9110 §9.3.6, RFC 9114 §4.4).

use std::time::Duration;

use bauta_masque::datagram::H3_CONNECT_ERROR;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::worker::{Ends, Inbox, Outbox, What};

/// Bytes read from the target at once.
const READ: usize = 64 * 1024;

/// How long a half-closed connection may stay silent.
const LINGER: Duration = Duration::from_secs(300);

/// Copies both ways until both are at their end, or one fails.
pub(crate) async fn copy(stream: TcpStream, ends: Ends) {
    let (reader, writer) = stream.into_split();
    let Ends { inbox, outbox } = ends;
    let down = async {
        let done = down(reader, &outbox).await;
        outbox.tell(if done.is_ok() { What::End } else { What::Abort(H3_CONNECT_ERROR) });
        done
    };
    let up = up(writer, inbox);
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

async fn down(mut reader: OwnedReadHalf, outbox: &Outbox) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        outbox.send(buffer.split().freeze()).await;
    }
}

async fn up(mut writer: OwnedWriteHalf, mut inbox: Inbox) -> std::io::Result<()> {
    while let Some(piece) = inbox.next().await {
        writer.write_all(&piece).await?;
    }
    writer.shutdown().await
}
