//! What TLS alone costs a server: full TLS 1.3 handshakes in memory by the library under QUIC, with the gateway's certificate and groups.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use boring::ssl::{
    HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslContextBuilder, SslFiletype,
    SslMethod, SslStream, SslVerifyMode, SslVersion,
};
use nix::time::{ClockId, clock_gettime};

/// Key exchange as the gateway and browsers prefer it.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";
/// Flights of a handshake at most; one needs three.
const MAX_FLIGHTS: usize = 16;

/// CPU time of the server's side of one full handshake, the mean over `rounds`.
///
/// # Errors
/// Files that cannot be read, or what TLS says.
pub fn server_cost(cert: &Path, key: &Path, rounds: u32) -> Result<Duration> {
    let mut server = context()?;
    server.set_certificate_chain_file(cert).context("the certificate")?;
    server.set_private_key_file(key, SslFiletype::PEM).context("the key")?;
    let server = server.build();
    let mut client = context()?;
    client.set_verify(SslVerifyMode::NONE);
    let client = client.build();
    one(&server, &client)?;
    let mut spent = Duration::ZERO;
    for _ in 0..rounds.max(1) {
        spent += one(&server, &client)?;
    }
    Ok(spent / rounds.max(1))
}

fn context() -> Result<SslContextBuilder> {
    let mut tls = SslContext::builder(SslMethod::tls())?;
    tls.set_min_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_max_proto_version(Some(SslVersion::TLS1_3))?;
    tls.set_curves_list(GROUPS)?;
    Ok(tls)
}

type Queue = Rc<RefCell<VecDeque<u8>>>;

/// One end of a connection in memory.
#[derive(Debug)]
struct Pipe {
    from: Queue,
    to: Queue,
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.from.borrow_mut().read(out)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.to.borrow_mut().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An end that is on its way.
enum End {
    Rising(MidHandshakeSslStream<Pipe>),
    Up,
}

impl End {
    fn of(outcome: Result<SslStream<Pipe>, HandshakeError<Pipe>>) -> Result<End> {
        match outcome {
            Ok(_) => Ok(End::Up),
            Err(HandshakeError::WouldBlock(rising)) => Ok(End::Rising(rising)),
            Err(HandshakeError::Failure(failed)) => bail!("handshake: {}", failed.error()),
            Err(HandshakeError::SetupFailure(error)) => bail!("handshake: {error}"),
        }
    }

    fn go_on(self) -> Result<End> {
        match self {
            End::Rising(rising) => End::of(rising.handshake()),
            End::Up => Ok(End::Up),
        }
    }
}

fn one(server: &SslContext, client: &SslContext) -> Result<Duration> {
    let (up, down) = (Queue::default(), Queue::default());
    let near = Pipe { from: down.clone(), to: up.clone() };
    let far = Pipe { from: up, to: down };
    let mut client = End::of(Ssl::new(client)?.connect(near))?;
    let start = cpu()?;
    let mut server = End::of(Ssl::new(server)?.accept(far))?;
    let mut spent = cpu()? - start;
    for _ in 0..MAX_FLIGHTS {
        if matches!((&server, &client), (End::Up, End::Up)) {
            return Ok(spent);
        }
        client = client.go_on()?;
        let start = cpu()?;
        server = server.go_on()?;
        spent += cpu()? - start;
    }
    bail!("a handshake in memory does not come to its end")
}

/// CPU time of this thread so far.
fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
