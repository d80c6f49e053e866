//! The same signatures where there is no AF_XDP: [`open`] says so, and nothing else can be had.
#![cfg_attr(test, expect(dead_code, unreachable_pub, reason = "on Linux compiled to be checked"))]

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
#[cfg(unix)]
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::ingress::{Mode, Stage, Step};
use crate::ring::{RingStats, RxRing};

/// Never exists here.
#[derive(Debug)]
pub struct Attachment(Infallible);

impl Attachment {
    /// Where the program runs.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.0 {}
    }

    /// The index of the interface.
    #[must_use]
    pub fn interface(&self) -> u32 {
        match self.0 {}
    }

    /// Fails.
    pub fn attach(_interface: &str, _filter: &Filter, _mode: Mode) -> Result<Self> {
        Err(Error::Unsupported)
    }

    /// Binds a ring to a receive queue.
    pub fn ring(&self, _queue: u32) -> Result<XskRing> {
        match self.0 {}
    }
}

/// Never exists here.
#[derive(Debug)]
pub struct XskRing(Infallible);

impl XskRing {
    /// The receive queue.
    #[must_use]
    pub fn queue(&self) -> u32 {
        match self.0 {}
    }

    /// The index of the interface.
    #[must_use]
    pub fn interface(&self) -> u32 {
        match self.0 {}
    }

    /// Whether frames wait.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        match self.0 {}
    }

    /// Whether the network card writes into our memory itself.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        match self.0 {}
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for XskRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl RxRing for XskRing {
    #[cfg(unix)]
    fn fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }

    fn poll_batch(&mut self, _each: &mut dyn FnMut(&mut [u8])) -> usize {
        match self.0 {}
    }

    fn stats(&self) -> RingStats {
        match self.0 {}
    }
}

/// Never exists here.
#[derive(Debug)]
pub struct AsyncRing(XskRing);

impl AsyncRing {
    /// Hands a ring to the reactor.
    pub fn new(ring: XskRing) -> io::Result<Self> {
        Ok(Self(ring))
    }

    /// Waits until frames wait.
    pub async fn readable(&self) -> io::Result<()> {
        match self.0.0 {}
    }

    /// Ready when frames wait.
    pub fn poll_readable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.0 {}
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &XskRing {
        &self.0
    }
}

impl RxRing for AsyncRing {
    #[cfg(unix)]
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn poll_batch(&mut self, each: &mut dyn FnMut(&mut [u8])) -> usize {
        self.0.poll_batch(each)
    }

    fn stats(&self) -> RingStats {
        self.0.stats()
    }
}

/// Never exists here.
#[derive(Debug)]
pub struct Steering(Infallible);

impl Steering {
    /// Fails.
    #[cfg(unix)]
    pub fn attach(
        _queue: BorrowedFd<'_>,
        _v4: Option<Ipv4Addr>,
        _v6: Option<Ipv6Addr>,
        _hosts: u32,
    ) -> Result<Self> {
        Err(Error::Unsupported)
    }

    /// Sends what is for a host to a queue.
    pub fn set(&self, _host: u32, _queue: Option<usize>) {
        match self.0 {}
    }
}

/// Fails.
pub fn queue_count(_interface: &str) -> Result<u32> {
    Err(Error::Unsupported)
}

/// Opens nothing, and says why.
#[must_use]
pub fn open(_interface: &str, _filter: &Filter, _modes: &[Mode]) -> crate::Opened {
    let step = Step { stage: Stage::Interface, outcome: Err(Error::Unsupported) };
    crate::Opened { ingress: None, steps: vec![step] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_af_xdp_the_only_step_says_why() {
        let filter = Filter::listening(&["192.0.2.1:443".parse().unwrap()]).unwrap();
        let opened = open("eth0", &filter, &crate::FASTEST_FIRST);
        assert!(opened.ingress.is_none());
        assert_eq!(
            opened.steps[0].to_string(),
            "look at the interface: AF_XDP exists on Linux only"
        );
    }
}
