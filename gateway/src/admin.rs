//! `/metrics`, `/healthz`, `/sessions` and `/certificate`, on an address of their own that is nobody's business.
//!
//! A few lines of HTTP/1.1: one request a connection, no keep-alive, everything bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request longer than this is none of ours.
const MAX_REQUEST: usize = 8 * 1024;

/// Time for a whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections looked after at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 16;

/// Where the answers come from.
pub trait Source: Send + Sync + 'static {
    /// The body of `/metrics`, in OpenMetrics text.
    fn metrics(&self) -> String;
    /// The body of `/certificate`, in JSON.
    fn certificate(&self) -> String;
    /// The body of `/sessions`, in JSON.
    fn sessions(&self) -> impl Future<Output = String> + Send;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, source: Arc<impl Source>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let source = source.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, exchange(stream, &*source)).await;
                    drop(slot);
                });
            }
            // Out of descriptors, most likely; they come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(mut stream: TcpStream, source: &impl Source) -> std::io::Result<()> {
    let Some(request) = read_head(&mut stream).await? else { return Ok(()) };
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        (b"GET" | b"HEAD", b"/metrics") => ("200 OK", open_metrics, source.metrics()),
        (b"GET" | b"HEAD", b"/healthz") => ("200 OK", "text/plain", "ok\n".to_owned()),
        (b"GET" | b"HEAD", b"/certificate") => ("200 OK", "application/json", source.certificate()),
        (b"GET" | b"HEAD", b"/sessions") => ("200 OK", "application/json", source.sessions().await),
        (b"GET" | b"HEAD", _) => (
            "404 Not Found",
            "text/plain",
            "/metrics, /healthz, /sessions, /certificate\n".to_owned(),
        ),
        _ => ("405 Method Not Allowed", "text/plain", "GET only\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != b"HEAD" {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

/// A request's head, up to the empty line; `None` if it is too long or breaks off.
pub(crate) async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut buffer).await?;
        if n == 0 || head.len() + n > MAX_REQUEST {
            return Ok(None);
        }
        head.extend_from_slice(&buffer[..n]);
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Source for Fixed {
        fn metrics(&self) -> String {
            "# EOF\n".into()
        }

        fn certificate(&self) -> String {
            "{}".into()
        }

        async fn sessions(&self) -> String {
            "[]".into()
        }
    }

    async fn ask(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Fixed)));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn each_path_answers() {
        for (path, wanted) in
            [("/metrics", "# EOF\n"), ("/healthz", "ok\n"), ("/sessions", "[]"), ("/x", "healthz")]
        {
            let answer = ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            assert!(answer.contains(wanted), "{path}: {answer}");
            assert_eq!(answer.contains(" 200 "), path != "/x");
        }
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").await.contains(" 405 "));
        assert!(ask(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000))).await.is_empty());
    }
}
