//! What the kernel knows of an interface, by `ioctl`. Structures are `linux/ethtool.h`'s.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// How many receive queues an interface has; 1 if its driver does not say.
pub(crate) fn receive_queues(interface: &str) -> io::Result<u32> {
    const GET_CHANNELS: u32 = 0x3c;
    const SIOCETHTOOL: u32 = 0x8946;
    /// `struct ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        cmd: u32,
        max: [u32; 4],
        rx: u32,
        tx: u32,
        other: u32,
        combined: u32,
    }
    let mut channels = Channels { cmd: GET_CHANNELS, ..Channels::default() };
    let mut request = request(interface);
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // What the kernel writes behind the pointer is, as the command in the first word says, a
    // `struct ethtool_channels`, which lives here.
    match ask(SIOCETHTOOL, &mut request) {
        Ok(()) => Ok((channels.rx + channels.combined).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

/// Whether what an interface carries begins with an Ethernet header: that of a tunnel or a modem
/// does not, and the program would read addresses as types.
pub(crate) fn is_ethernet(interface: &str) -> io::Result<bool> {
    const SIOCGIFHWADDR: u32 = 0x8927;
    let mut request = request(interface);
    ask(SIOCGIFHWADDR, &mut request)?;
    // SAFETY: this is the member that the kernel fills in for this question.
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    // Loopback prefixes a header of zeroes with the right type.
    Ok(matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain old data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(interface.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

fn ask(question: u32, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the kernel reads and writes an `ifreq`, and what the maker's pointer in it names.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), question.into(), std::ptr::from_mut(request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
