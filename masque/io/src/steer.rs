//! Which worker a QUIC datagram belongs to.
//!
//! Every worker owns a socket on the same port (`SO_REUSEPORT`). The kernel hands a datagram to the
//! worker that the first four bytes of its destination connection id name, modulo the number of
//! workers; ids are drawn until they name their worker, so nothing of it shows on the wire. A
//! client's first Initial carries an id of the client's choice and is spread the same way.
//!
//! A closed socket renumbers its siblings: the sockets of a group live and die together.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

use crate::udp::{self, BindOptions};

/// Length in bytes of the connection ids we choose.
pub const CID_LEN: usize = 8;

/// Offset of the destination connection id in a long header: first byte, version, length
/// (RFC 9000 §17.2).
const LONG_DCID: u32 = 6;
/// And in a short header (RFC 9000 §17.3.1).
const SHORT_DCID: u32 = 1;
/// The bit of the first byte that tells them apart.
const LONG_HEADER: u32 = 0x80;

/// Binds one socket for each worker to `addr`, in the order of the workers, and steers them. With
/// port 0 all share the port that the first was given.
///
/// # Errors
/// As [`udp::open`], or a kernel that refuses the program.
pub fn bind_group(
    mut addr: SocketAddr,
    workers: usize,
    o: &BindOptions,
) -> io::Result<Vec<std::net::UdpSocket>> {
    let o = BindOptions { reuse_port: workers > 1, ..o.clone() };
    let mut group = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = udp::open(addr, &o)?;
        addr.set_port(socket.local_addr()?.port());
        group.push(socket);
    }
    if workers > 1 {
        attach(&group[0], workers)?;
    }
    Ok(group)
}

/// Gives the whole `SO_REUSEPORT` group of `socket` the steering program. Sockets are numbered in
/// the order they were bound. A datagram too short for the program goes to worker 0.
///
/// # Errors
/// What `setsockopt` says, or more workers than the program can number.
pub fn attach(socket: &impl AsFd, workers: usize) -> io::Result<()> {
    let workers = u32::try_from(workers.max(1)).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut program = [
        op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, LONG_HEADER, 0, 2),
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, LONG_DCID),
        jump(libc::BPF_JMP | libc::BPF_JA, 1, 0, 0),
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, SHORT_DCID),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program =
        libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // SAFETY: the descriptor is open while borrowed; the option's value is a `sock_fprog` of the
    // size given, which points to `len` instructions that outlive the call. The kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn op(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The worker a destination connection id names. One shorter than four bytes is none of ours: the
/// kernel, which does not look at lengths, may have seen something else, and worker 0 takes it.
pub fn worker_of(dcid: &[u8], workers: usize) -> usize {
    dcid.first_chunk().map_or(0, |head| u32::from_be_bytes(*head) as usize % workers.max(1))
}

/// Draws a connection id that names `worker`. `random` fills a buffer; with a good source the
/// expected number of draws is the number of workers.
pub fn pick_cid(
    worker: usize,
    workers: usize,
    random: &mut impl FnMut(&mut [u8]),
) -> [u8; CID_LEN] {
    debug_assert!(worker < workers.max(1), "no such worker");
    let mut cid = [0; CID_LEN];
    loop {
        random(&mut cid);
        if worker_of(&cid, workers) == worker {
            return cid;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;

    const WORKERS: usize = 4;

    fn long(dcid: &[u8]) -> Vec<u8> {
        [&[0xc3, 0, 0, 0, 1, dcid.len() as u8], dcid, &[0; 1180]].concat()
    }

    fn short(dcid: &[u8]) -> Vec<u8> {
        [&[0x43], dcid, &[0; 40]].concat()
    }

    /// Sends each packet from a port of its own and returns which sockets of the group got it.
    fn landing(group: &[UdpSocket], to: SocketAddr, packet: &[u8]) -> Vec<usize> {
        let sender = match to {
            SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
        };
        sender.send_to(packet, to).unwrap();
        let mut buffer = [0; 2048];
        let got = |s: &UdpSocket| s.recv_from(&mut buffer).is_ok_and(|(n, _)| n == packet.len());
        group.iter().map(got).enumerate().filter_map(|(i, got)| got.then_some(i)).collect()
    }

    fn every_packet_lands_where_its_id_says(bind: SocketAddr, ip: std::net::IpAddr) {
        let group = bind_group(bind, WORKERS, &BindOptions::default()).unwrap();
        let to = (ip, group[0].local_addr().unwrap().port()).into();
        let mut random = |b: &mut [u8]| getrandom::fill(b).unwrap();
        for worker in (0..WORKERS).cycle().take(64) {
            let cid = pick_cid(worker, WORKERS, &mut random);
            assert_eq!(worker_of(&cid, WORKERS), worker);
            assert_eq!(landing(&group, to, &short(&cid)), [worker]);
            assert_eq!(landing(&group, to, &long(&cid)), [worker]);
        }
    }

    #[test]
    fn both_header_forms_land_on_the_worker_the_id_names_over_ipv4() {
        every_packet_lands_where_its_id_says(
            (Ipv4Addr::LOCALHOST, 0).into(),
            Ipv4Addr::LOCALHOST.into(),
        );
    }

    #[test]
    fn both_header_forms_land_on_the_worker_the_id_names_on_a_dual_stack_socket() {
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            every_packet_lands_where_its_id_says((Ipv6Addr::UNSPECIFIED, 0).into(), ip);
        }
    }

    #[test]
    fn a_datagram_too_short_to_steer_goes_to_the_first_worker() {
        let group =
            bind_group((Ipv4Addr::LOCALHOST, 0).into(), WORKERS, &BindOptions::default()).unwrap();
        let to = group[0].local_addr().unwrap();
        for packet in [&[0x43u8, 1][..], &[0xc0, 0, 0], &[]] {
            assert_eq!(landing(&group, to, packet), [0]);
        }
        assert_eq!(worker_of(&[1, 2, 3], WORKERS), 0);
    }

    #[test]
    fn one_worker_owns_everything() {
        assert_eq!(worker_of(&[0xff; 8], 1), 0);
        assert_eq!(pick_cid(0, 1, &mut |b| b.fill(9)), [9; 8]);
    }
}
