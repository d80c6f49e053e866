//! Port 80: everything is a redirect to HTTPS.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::admin::read_head;

/// Connections looked after at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 256;

/// Time for a whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the task is dropped. `origin` as in `https://example.org`.
pub(super) async fn serve(listener: TcpListener, origin: String) {
    let (slots, origin) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(origin));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let origin = origin.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, exchange(stream, &origin)).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(mut stream: TcpStream, origin: &str) -> std::io::Result<()> {
    let Some(head) = read_head(&mut stream).await? else { return Ok(()) };
    stream.write_all(answer(&head, origin).as_bytes()).await?;
    stream.shutdown().await
}

fn answer(head: &[u8], origin: &str) -> String {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let path = line.split(|b| *b == b' ').nth(1).unwrap_or_default();
    let plain = path.first() == Some(&b'/') && path.iter().all(u8::is_ascii_graphic);
    let path = if plain { std::str::from_utf8(path).unwrap_or("/") } else { "/" };
    format!(
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: {origin}{path}\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_along_and_nothing_else_does() {
        let location = |head: &[u8]| {
            let answer = answer(head, "https://a.org");
            answer.lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(location(b"GET /x?y=1 HTTP/1.1\r\n\r\n"), "location: https://a.org/x?y=1");
        assert_eq!(location(b"GET http://evil/ HTTP/1.1\r\n\r\n"), "location: https://a.org/");
        assert_eq!(location(b"GET /a\nb HTTP/1.1\r\n\r\n"), "location: https://a.org/");
        assert_eq!(location(b"\r\n\r\n"), "location: https://a.org/");
    }
}
