//! The socket by which `status` and `down` talk to a running tunnel: one word a connection, JSON back.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::status::Status;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer read, in bytes: routes are bounded by the protocol.
const MAX_ANSWER: u64 = 1 << 20;
/// Questions that may wait.
const QUEUE: usize = 16;

/// A question to the running tunnel.
#[derive(Debug)]
pub enum Question {
    /// How is it?
    Status(oneshot::Sender<Status>),
    /// Go down.
    Down,
}

/// Listens, and hands the questions over until the receiver is dropped.
pub fn serve(path: &Path) -> io::Result<mpsc::Receiver<Question>> {
    // Only the holder of the folder's lock comes here: what is left there is of a dead process.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let (questions, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = questions.closed() => return,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { return };
                    tokio::spawn(timeout(PATIENCE, answer(stream, questions.clone())));
                }
            }
        }
    });
    Ok(receiver)
}

async fn answer(mut stream: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    let mut word = [0; 16];
    let n = stream.read(&mut word).await?;
    let reply = match word[..n].trim_ascii() {
        b"status" => {
            let (tell, told) = oneshot::channel();
            if questions.send(Question::Status(tell)).await.is_err() {
                return Ok(());
            }
            let Ok(status) = told.await else { return Ok(()) };
            serde_json::to_vec(&status)?
        }
        b"down" => {
            let _ = questions.send(Question::Down).await;
            b"{}".to_vec()
        }
        _ => b"{\"error\":\"status or down\"}".to_vec(),
    };
    stream.write_all(&reply).await
}

/// Asks a running tunnel how it is.
pub async fn status(path: &Path) -> io::Result<Status> {
    Ok(serde_json::from_slice(&ask(path, "status").await?)?)
}

/// Asks a running tunnel to go down.
pub async fn down(path: &Path) -> io::Result<()> {
    ask(path, "down").await.map(drop)
}

async fn ask(path: &Path, word: &str) -> io::Result<Vec<u8>> {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    };
    timeout(PATIENCE, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn questions_reach_the_tunnel_and_answers_come_back() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            let mut questions = serve(&path).unwrap();
            let tunnel = async {
                let Some(Question::Status(tell)) = questions.recv().await else { panic!() };
                tell.send(Status { name: "bauta7".into(), ..Status::default() }).unwrap();
                assert!(matches!(questions.recv().await, Some(Question::Down)));
            };
            let asking = async {
                assert_eq!(status(&path).await.unwrap().name, "bauta7");
                down(&path).await.unwrap();
            };
            tokio::join!(tunnel, asking);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        });
    }

    #[test]
    fn a_dead_socket_is_an_error_and_is_replaced_by_the_next_tunnel() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("control.sock");
            assert!(status(&path).await.is_err());
            drop(serve(&path).unwrap());
            tokio::task::yield_now().await;
            assert!(status(&path).await.is_err());
            let _questions = serve(&path).unwrap();
        });
    }
}
