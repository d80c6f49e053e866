//! The way down from the fastest ingress to the ordinary one, each step told.

use std::fmt;

use crate::error::Result;
#[cfg(not(target_os = "linux"))]
use crate::{Attachment, XskRing};
#[cfg(target_os = "linux")]
use crate::{
    filter::Filter,
    load::{Attachment, queue_count},
    ring::XskRing,
};

/// Where in the kernel the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before the kernel has made a packet of the frame.
    Native,
    /// After it, on any interface: it costs more than it saves, but it works the same.
    Skb,
}

/// Both modes, as [`open`](crate::open) is best given them.
pub const FASTEST_FIRST: [Mode; 2] = [Mode::Native, Mode::Skb];

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Skb => "SKB",
        })
    }
}

/// A program on an interface, and a ring for each of its receive queues.
#[derive(Debug)]
pub struct Ingress {
    /// Keeps the program attached; dropping it sends everything the kernel's way again.
    pub attachment: Attachment,
    /// One per receive queue, in order; workers take them. A queue whose ring is dropped passes
    /// everything to the kernel.
    pub rings: Vec<XskRing>,
}

/// What [`open`](crate::open) came to.
#[derive(Debug)]
pub struct Opened {
    /// `None` when nothing could be had: the UDP socket receives everything, as without XDP.
    pub ingress: Option<Ingress>,
    /// What was attempted, in order, for the log.
    pub steps: Vec<Step>,
}

/// One thing attempted on the way, and its outcome.
#[derive(Debug)]
pub struct Step {
    /// What was attempted.
    pub stage: Stage,
    /// Whether it worked, or why not.
    pub outcome: Result<()>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(()) => write!(f, "{}: done", self.stage),
            Err(error) => write!(f, "{}: {error}", self.stage),
        }
    }
}

/// What a [`Step`] attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding the interface and its queues.
    Interface,
    /// Loading the program and attaching it.
    Attach(Mode),
    /// Binding the ring of a queue.
    Ring(Mode, u32),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface => f.write_str("look at the interface"),
            Self::Attach(mode) => write!(f, "attach the XDP program in {mode} mode"),
            Self::Ring(mode, queue) => write!(f, "bind a ring to queue {queue} in {mode} mode"),
        }
    }
}

/// Attaches the program for `filter` to `interface` (in the network namespace of the caller) and
/// binds a ring to every receive queue, in the first of `modes` that works, or not at all: by
/// [`FASTEST_FIRST`] in native mode, else in SKB mode. All rings are bound or none. Blocks for up
/// to a second per mode while an earlier process's program or socket is still going away.
///
/// Needs `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF`, and memory that may be locked
/// (`RLIMIT_MEMLOCK`, or `CAP_IPC_LOCK`): [`FRAME_COUNT`](crate::FRAME_COUNT) ×
/// [`FRAME_SIZE`](crate::FRAME_SIZE) bytes a ring. None of them is needed once it is open.
#[cfg(target_os = "linux")]
#[must_use]
pub fn open(interface: &str, filter: &Filter, modes: &[Mode]) -> Opened {
    let mut steps = Vec::new();
    let ingress = descend(interface, filter, modes, &mut steps);
    Opened { ingress, steps }
}

#[cfg(target_os = "linux")]
fn descend(
    interface: &str,
    filter: &Filter,
    modes: &[Mode],
    steps: &mut Vec<Step>,
) -> Option<Ingress> {
    let mut attempt = Attempt(steps);
    let queues = attempt.step(Stage::Interface, queue_count(interface))?;
    modes.iter().find_map(|&mode| {
        let attached = Attachment::attach(interface, filter, mode);
        let attachment = attempt.step(Stage::Attach(mode), attached)?;
        let rings = (0..queues)
            .map(|queue| attempt.step(Stage::Ring(mode, queue), attachment.ring(queue)))
            .collect::<Option<_>>()?;
        Some(Ingress { attachment, rings })
    })
}

#[cfg(target_os = "linux")]
struct Attempt<'a>(&'a mut Vec<Step>);

#[cfg(target_os = "linux")]
impl Attempt<'_> {
    fn step<T>(&mut self, stage: Stage, outcome: Result<T>) -> Option<T> {
        let (value, outcome) = match outcome {
            Ok(value) => (Some(value), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.0.push(Step { stage, outcome });
        value
    }
}
