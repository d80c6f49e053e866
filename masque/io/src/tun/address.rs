//! Addresses of an interface, by rtnetlink: four fields and an answer.

use std::io::{self, Read};
use std::net::IpAddr;

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Adds the address, or changes its prefix length when the interface has it.
pub(super) fn add(interface: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    request(libc::RTM_NEWADDR, flags, interface, address, prefix)
}

/// Removes the address.
pub(super) fn remove(interface: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    request(libc::RTM_DELADDR, 0, interface, address, prefix)
}

fn request(
    kind: u16,
    flags: libc::c_int,
    interface: &str,
    address: IpAddr,
    prefix: u8,
) -> io::Result<()> {
    let message = message(kind, flags, nix::net::if_::if_nametoindex(interface)?, address, prefix);
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    socket.send(&message)?;
    let mut answer = [0; 256];
    let read = socket.read(&mut answer)?;
    // `struct nlmsgerr`: a negative errno, zero for success.
    match answer[..read].get(HEADER..).and_then(<[u8]>::first_chunk) {
        Some(code) => match i32::from_ne_bytes(*code) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        },
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn message(kind: u16, flags: libc::c_int, index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
    };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let attribute = (4 + bytes.len()) as u16;
    let mut m = Vec::with_capacity(64);
    m.extend([0; 4]); // the length, set below
    m.extend(kind.to_ne_bytes());
    m.extend(flags.to_ne_bytes());
    m.extend([0; 8]); // sequence number and port
    // A TUN has no neighbours to ask for duplicates, so an address need not be tentative.
    m.extend([family as u8, prefix, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE]);
    m.extend(index.to_ne_bytes());
    for name in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        m.extend(attribute.to_ne_bytes());
        m.extend(name.to_ne_bytes());
        m.extend(&bytes);
    }
    let len = m.len() as u32;
    m[..4].copy_from_slice(&len.to_ne_bytes());
    m
}
