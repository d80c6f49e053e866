//! The program on an interface, for as long as somebody holds it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::ingress::Mode;
use crate::program::{self, Instruction};
use crate::ring::XskRing;
use crate::sys;

/// Room for the verifier's words about a refused program.
const LOG_SIZE: usize = 64 << 10;
/// How much of their end an error quotes.
const LOG_LINES: usize = 12;

/// How often something is tried while it is busy: what an earlier process held (this interface's
/// program, a queue's socket) is free some milliseconds after it ended.
const ATTEMPTS: u32 = 100;
/// The pause in between; with [`ATTEMPTS`] a second in all.
const PAUSE: Duration = Duration::from_millis(10);

// `linux/if_link.h`.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The program, attached by a BPF link: the kernel detaches it when the last descriptor of the
/// link is closed, however the process ends.
#[derive(Debug)]
pub struct Attachment {
    /// Held to stay attached; it keeps the program, and the program the map.
    link: OwnedFd,
    map: OwnedFd,
    interface: u32,
    queues: u32,
    mode: Mode,
}

impl Attachment {
    /// Attaches the program for `filter` to `interface`, in the caller's network namespace. Blocks
    /// for up to a second while another program is there. Everything passes until a
    /// [`ring`](Self::ring) is bound.
    pub fn attach(interface: &str, filter: &Filter, mode: Mode) -> Result<Self> {
        let queues = queue_count(interface)?;
        let index = index_of(interface)?;
        let map = sys::xsk_map(queues).map_err(|e| system("make the map of sockets", e))?;
        let program = load(sys::XDP, &program::assemble(filter, map.as_fd()))?;
        let flags = match mode {
            Mode::Native => XDP_FLAGS_DRV_MODE,
            Mode::Skb => XDP_FLAGS_SKB_MODE,
        };
        let link = sys::link(program.as_fd(), index, flags).map_err(|e| system("attach it", e))?;
        Ok(Self { link, map, interface: index, queues, mode })
    }

    /// Binds a ring to receive queue `queue` and sends the queue's matching frames there. Blocks
    /// for up to a second while an earlier socket on that queue is being closed.
    pub fn ring(&self, queue: u32) -> Result<XskRing> {
        if queue >= self.queues {
            let source = io::Error::from_raw_os_error(libc::ENXIO);
            return Err(Error::System { what: "bind a ring", source, hint: "" });
        }
        let mut ring = XskRing::bind(self.interface, queue, self.mode)?;
        self.map
            .try_clone()
            .and_then(|map| ring.enter(map))
            .map_err(|e| system("put the socket into the map", e))?;
        Ok(ring)
    }

    /// Where the program runs.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The index of the interface.
    #[must_use]
    pub fn interface(&self) -> u32 {
        self.interface
    }
}

impl Drop for Attachment {
    /// Closing the link would do, if no child being started held a copy of it for a moment.
    fn drop(&mut self) {
        let _ = sys::detach(self.link.as_fd());
    }
}

/// How many receive queues `interface` has; 1 if its driver does not say. Fails for an interface
/// that carries no Ethernet frames.
pub fn queue_count(interface: &str) -> Result<u32> {
    index_of(interface)?;
    let failed = |source| Error::Interface { name: interface.into(), source };
    if !sys::is_ethernet(interface).map_err(failed)? {
        return Err(Error::NotEthernet { name: interface.into() });
    }
    sys::receive_queues(interface).map_err(failed)
}

fn index_of(interface: &str) -> Result<u32> {
    if_nametoindex(interface)
        .map_err(|e| Error::Interface { name: interface.into(), source: e.into() })
}

/// Loads a program; if the verifier refuses it, with its reason.
pub(crate) fn load(purpose: sys::Purpose, program: &[Instruction]) -> Result<OwnedFd> {
    match sys::load(purpose, program, None) {
        Ok(loaded) => Ok(loaded),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Err(system("load the program", e)),
        Err(_) => {
            // Once more, to hear why.
            let mut log = vec![0; LOG_SIZE];
            sys::load(purpose, program, Some(&mut log))
                .map_err(|source| Error::Verifier { source, log: tail(&log) })
        }
    }
}

/// Does `work` until it is no longer refused with EBUSY, for a second at most.
pub(crate) fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match work() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    work()
}

/// The last lines of a text that ends at a zero byte.
fn tail(log: &[u8]) -> String {
    let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// A failed system call, with what to do where that is known.
pub(crate) fn system(what: &'static str, source: io::Error) -> Error {
    let hint = match source.raw_os_error() {
        Some(libc::EPERM) => " (it takes CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF)",
        Some(libc::EBUSY | libc::EEXIST) => {
            " (is another XDP program or AF_XDP socket on this interface?)"
        }
        Some(libc::EOPNOTSUPP) => " (the driver cannot)",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            " (raise RLIMIT_MEMLOCK, in systemd LimitMEMLOCK=, or give CAP_IPC_LOCK)"
        }
        Some(libc::ENETDOWN) => " (bring the interface up first)",
        _ => "",
    };
    Error::System { what, source, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_program_is_quoted_with_the_verifiers_reason() {
        // No instruction at all ends the program.
        let nothing = vec![];
        assert!(matches!(load(sys::XDP, &nothing), Err(Error::Verifier { .. })));
        let filter = Filter::listening(&["[::]:443".parse().unwrap()]).unwrap();
        let map = sys::xsk_map(1).unwrap();
        let mut cut = program::assemble(&filter, map.as_fd());
        cut.truncate(6);
        let error = load(sys::XDP, &cut).unwrap_err().to_string();
        assert!(error.contains("jump out of range"), "{error}");
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = queue_count("no-such-device").unwrap_err().to_string();
        assert!(error.starts_with("interface `no-such-device`: "), "{error}");
    }
}
