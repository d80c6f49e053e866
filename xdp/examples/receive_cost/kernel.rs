//! The kernel's own way: `recvmmsg` into buffers prepared once, with and without UDP GRO.
#![expect(unsafe_code, reason = "recvmmsg without anything between it and the clock")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

/// Room for one control message of four bytes, aligned as the kernel wants it.
type Control = [u64; 4];

pub(crate) struct KernelSocket {
    socket: UdpSocket,
    // Boxed: `headers` points into the others, which never move or grow.
    headers: Box<[libc::mmsghdr]>,
    buffers: Box<[u8]>,
    buffer: usize,
    _vectors: Box<[libc::iovec]>,
    _sources: Box<[libc::sockaddr_storage]>,
    _controls: Box<[Control]>,
}

impl KernelSocket {
    pub(crate) fn bind(address: &str, gro: bool) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
        // As many bytes are ready in both.
        let (batch, buffer) = if gro { (8, 1 << 16) } else { (64, 1 << 11) };
        if gro {
            setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        }
        let mut buffers = vec![0u8; batch * buffer].into_boxed_slice();
        let mut controls = vec![[0; 4]; batch].into_boxed_slice();
        // SAFETY: all zeroes is a valid value of each of these C structures.
        let (mut sources, mut headers): (Box<[libc::sockaddr_storage]>, Box<[libc::mmsghdr]>) = unsafe {
            (vec![std::mem::zeroed(); batch].into(), vec![std::mem::zeroed(); batch].into())
        };
        let mut vectors: Box<[libc::iovec]> = buffers
            .chunks_mut(buffer)
            .map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() })
            .collect();
        for (at, libc::mmsghdr { msg_hdr, .. }) in headers.iter_mut().enumerate() {
            msg_hdr.msg_name = (&raw mut sources[at]).cast();
            msg_hdr.msg_iov = &raw mut vectors[at];
            msg_hdr.msg_iovlen = 1;
            msg_hdr.msg_control = (&raw mut controls[at]).cast();
        }
        Ok(Self {
            socket,
            headers,
            buffers,
            buffer,
            _vectors: vectors,
            _sources: sources,
            _controls: controls,
        })
    }

    /// Hands the datagrams of one call to `each`; returns how many there were, 0 if none
    /// waited.
    pub(crate) fn poll_batch(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        for libc::mmsghdr { msg_hdr, .. } in &mut self.headers {
            msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            msg_hdr.msg_controllen = size_of::<Control>();
        }
        let count = self.headers.len() as u32;
        // SAFETY: `bind` made every header point at memory of the length it says, which lives as
        // long as `self` and which nothing else touches during the call.
        let received = unsafe {
            let (fd, headers) = (self.socket.as_raw_fd(), self.headers.as_mut_ptr());
            libc::recvmmsg(fd, headers, count, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        let received = match usize::try_from(received) {
            Ok(received) => received,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => 0,
                error => return Err(error),
            },
        };
        let mut datagrams = 0;
        for (header, buffer) in
            self.headers[..received].iter().zip(self.buffers.chunks(self.buffer))
        {
            let length = header.msg_len as usize;
            for datagram in buffer[..length].chunks(segment(header).unwrap_or(length).max(1)) {
                each(datagram);
                datagrams += 1;
            }
        }
        Ok(datagrams)
    }
}

/// The length of the datagrams that were merged into one.
fn segment(header: &libc::mmsghdr) -> Option<usize> {
    // SAFETY: the kernel has filled in the control buffer and its length.
    let control = unsafe { libc::CMSG_FIRSTHDR(&raw const header.msg_hdr).as_ref() }?;
    if (control.cmsg_level, control.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
        return None;
    }
    // SAFETY: this kind of message carries an int.
    let size = unsafe { libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned() };
    usize::try_from(size).ok()
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
