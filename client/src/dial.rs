//! TCP and UDP flows through the gateway, without an interface and without root.
//!
//! A [`Dialer`] is a handle to an actor that owns one HTTP/3 connection and makes it anew when it is lost or
//! worn out. TCP goes by classic CONNECT (RFC 9114 §4.4), UDP by CONNECT-UDP (RFC 9298). Where QUIC is silent, new
//! flows go the same way over TCP until QUIC answers again. All of it lives on one thread: run it inside a [`tokio::task::LocalSet`].

mod actor;
mod flows;
mod over_tcp;
mod packets;
mod pipe;
mod pump;
mod target;

use std::{io, rc::Rc};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{config::Settings, stage::Failure};
pub use packets::UdpFlow;
pub use pipe::TcpFlow;
pub use target::{Target, TargetError};

/// Flows that may wait to be opened; more are refused at once.
const MAX_WAITING: usize = 1024;

/// Why a flow was not opened.
#[derive(Clone, Debug, Error)]
pub enum DialError {
    /// The gateway cannot be reached, or is not what it should be.
    #[error("{0}")]
    Gateway(Failure),
    /// The gateway refused this target.
    #[error("the gateway refused (status {status}){}", details(.proxy_status.as_deref()))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its `proxy-status`, which says why.
        proxy_status: Option<String>,
    },
    /// The connection was lost before the answer came.
    #[error("the connection to the gateway was lost")]
    Lost,
    /// More flows wait than are allowed to.
    #[error("more than {MAX_WAITING} flows wait to be opened")]
    Busy,
    /// No answer.
    #[error("no answer from the gateway")]
    TimedOut,
}

fn details(proxy_status: Option<&str>) -> String {
    proxy_status.map(|p| format!(": {p}")).unwrap_or_default()
}

impl DialError {
    /// The nearest kind of I/O error.
    pub fn kind(&self) -> io::ErrorKind {
        let says = |what: &str| matches!(self, DialError::Refused { proxy_status: Some(p), .. } if p.contains(what));
        match self {
            _ if says("connection_refused") => io::ErrorKind::ConnectionRefused,
            _ if says("prohibited") || says("denied") => io::ErrorKind::PermissionDenied,
            DialError::Refused { .. } => io::ErrorKind::HostUnreachable,
            DialError::TimedOut => io::ErrorKind::TimedOut,
            DialError::Gateway(_) | DialError::Lost | DialError::Busy => {
                io::ErrorKind::NotConnected
            }
        }
    }
}

type Answer<T> = oneshot::Sender<Result<T, DialError>>;

/// What a flow is to be, and who waits for it.
enum Wanted {
    Tcp(Answer<TcpFlow>),
    Udp(Answer<UdpFlow>),
}

struct Open {
    target: Target,
    wanted: Wanted,
    /// A connection was lost under its request already.
    again: bool,
}

/// Opens flows. Cheap to clone; the connection goes with the last clone.
#[derive(Clone)]
pub struct Dialer {
    opens: mpsc::Sender<Open>,
}

impl Dialer {
    /// Starts the actor on the current [`tokio::task::LocalSet`]. Nothing is connected until a flow is opened.
    pub fn start(settings: Rc<Settings>) -> Dialer {
        let (opens, waiting) = mpsc::channel(MAX_WAITING);
        tokio::task::spawn_local(actor::run(settings, waiting));
        Dialer { opens }
    }

    /// A TCP connection to `target`, made by the gateway.
    pub async fn tcp(&self, target: &Target) -> Result<TcpFlow, DialError> {
        self.open(target, Wanted::Tcp).await
    }

    /// A UDP flow to `target`.
    pub async fn udp(&self, target: &Target) -> Result<UdpFlow, DialError> {
        self.open(target, Wanted::Udp).await
    }

    async fn open<T>(
        &self,
        target: &Target,
        wanted: impl FnOnce(Answer<T>) -> Wanted,
    ) -> Result<T, DialError> {
        let (answer, answered) = oneshot::channel();
        let open = Open { target: target.clone(), wanted: wanted(answer), again: false };
        self.opens.try_send(open).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => DialError::Busy,
            mpsc::error::TrySendError::Closed(_) => DialError::Lost,
        })?;
        answered.await.unwrap_or(Err(DialError::Lost))
    }
}
