//! Captures of what a device really carried.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::Result;
use crate::net::Namespace;
use crate::process::{self, Process};

/// How long tcpdump may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kernel's buffer, in KiB, so that a fast link is captured whole.
const BUFFER_KIB: &str = "32768";

/// A capture by tcpdump into a file, until it is stopped or dropped.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures a device (or `any`) in a namespace; returns once packets are being captured.
    /// `filter` is a pcap filter, empty for everything. The file is in the network's folder.
    pub fn start(namespace: &Namespace, device: &str, filter: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = namespace.folder().join(format!("capture-{count}-{device}.pcap"));
        Self::start_into(namespace, device, filter, &file)
    }

    /// Captures into a file of the caller's choice.
    pub fn start_into(
        namespace: &Namespace,
        device: &str,
        filter: &str,
        file: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command.args(["-i", device, "-U", "--immediate-mode", "-n", "-Z", "root"]);
        command.args(["-B", BUFFER_KIB, "-w"]).arg(file).args(filter.split_whitespace());
        let mut tcpdump = namespace.spawn(command)?;
        tcpdump.wait_for_line("listening on", PATIENCE)?;
        Ok(Self { tcpdump, file: file.into() })
    }

    /// Ends the capture, the packets seen so far written, and returns the file for reading.
    pub fn stop(mut self) -> Result<Captured> {
        // What was sent just now may still be on its way into the ring.
        std::thread::sleep(Duration::from_millis(100));
        self.tcpdump.signal(Signal::SIGINT);
        self.tcpdump.finish(PATIENCE)?;
        Ok(Captured { file: self.file.clone() })
    }
}

/// A finished capture.
#[derive(Debug, Clone)]
pub struct Captured {
    file: PathBuf,
}

impl Captured {
    /// The pcap file; it goes with the network unless it was placed elsewhere.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// One line of tcpdump's for each packet that matches the filter (empty: all).
    pub fn lines(&self, filter: &str) -> Result<Vec<String>> {
        let mut command = Command::new("tcpdump");
        command.args(["-n", "-r"]).arg(&self.file).args(filter.split_whitespace());
        Ok(process::output_of(&mut command)?.lines().map(str::to_owned).collect())
    }

    /// How many packets match the filter (empty: all).
    pub fn count(&self, filter: &str) -> Result<usize> {
        Ok(self.lines(filter)?.len())
    }
}
