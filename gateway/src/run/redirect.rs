//! Port 80: everything is a redirect to HTTPS, but what an authority asks (ACME's HTTP-01).

use std::sync::Arc;
use std::time::Duration;

use bauta_web::acme::{Challenges, HTTP01_PATH};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::admin::read_head;

/// Connections looked after at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 256;

/// Time for a whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where requests are sent to, and what authorities are told.
pub(super) struct Port80 {
    /// The names that redirects lead to as they are asked for; others lead to the first.
    pub(super) names: Vec<String>,
    /// The port of the site.
    pub(super) port: u16,
    pub(super) challenges: Challenges,
}

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, about: Port80) {
    let (slots, about) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(about));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let about = about.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, exchange(stream, &about)).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(mut stream: TcpStream, about: &Port80) -> std::io::Result<()> {
    let Some(head) = read_head(&mut stream).await? else { return Ok(()) };
    stream.write_all(answer(&head, about).as_bytes()).await?;
    stream.shutdown().await
}

impl Port80 {
    /// `https://example.org`, by the name that was asked for if it is one of ours.
    fn origin(&self, head: &[u8]) -> String {
        let host = head.split(|b| *b == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(5)?;
            let value = std::str::from_utf8(value).ok()?.trim().to_ascii_lowercase();
            name.eq_ignore_ascii_case(b"host:").then_some(value)
        });
        let host = host.as_deref().unwrap_or_default();
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let known = self.names.iter().find(|name| *name == bare).or_else(|| self.names.first());
        let name = known.map_or("", String::as_str);
        match self.port {
            443 => format!("https://{name}"),
            port => format!("https://{name}:{port}"),
        }
    }
}

fn answer(head: &[u8], about: &Port80) -> String {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let path = line.split(|b| *b == b' ').nth(1).unwrap_or_default();
    let plain = path.first() == Some(&b'/') && path.iter().all(u8::is_ascii_graphic);
    let path = if plain { std::str::from_utf8(path).unwrap_or("/") } else { "/" };
    let token = path.strip_prefix(HTTP01_PATH);
    if let Some(proof) = token.and_then(|token| about.challenges.http01(token)) {
        return format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{proof}",
            proof.len()
        );
    }
    let origin = about.origin(head);
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
        let names = vec!["a.org".into(), "b.org".into()];
        let mut about = Port80 { names, port: 443, challenges: Challenges::default() };
        let location = |head: &[u8]| {
            let answer = answer(head, &about);
            answer.lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(location(b"GET /x?y=1 HTTP/1.1\r\n\r\n"), "location: https://a.org/x?y=1");
        assert_eq!(location(b"GET http://evil/ HTTP/1.1\r\n\r\n"), "location: https://a.org/");
        assert_eq!(location(b"GET /a\nb HTTP/1.1\r\n\r\n"), "location: https://a.org/");
        assert_eq!(location(b"\r\n\r\n"), "location: https://a.org/");
        let location =
            |host: &str| about.origin(format!("GET / HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
        assert_eq!(location("B.org:80"), "https://b.org");
        assert_eq!(location("evil"), "https://a.org");
        about.port = 8443;
        assert_eq!(about.origin(b"GET / HTTP/1.1\r\nhost:b.org\r\n"), "https://b.org:8443");
    }
}
