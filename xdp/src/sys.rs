//! The kernel's doors: `bpf(2)`, and below some `ioctl`s. Structures are `linux/bpf.h`'s, cut after
//! the last field we use.
#![expect(unsafe_code, reason = "the kernel is met here")]

mod interface;
mod tun;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

use crate::program::Instruction;

pub(crate) use interface::{is_ethernet, receive_queues};
pub(crate) use tun::set_steering;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
#[cfg(test)]
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_XSKMAP: u32 = 17;
const MAP_MMAPABLE: u32 = 1 << 10;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;

/// What a program is for: its type, how it will be attached, its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose(u32, u32, &'static str);

/// Deciding what becomes of an interface's frames.
pub(crate) const XDP: Purpose = Purpose(PROG_TYPE_XDP, ATTACH_XDP, "bauta_ingress");
/// Choosing a TUN queue for a packet.
pub(crate) const STEERING: Purpose = Purpose(PROG_TYPE_SOCKET_FILTER, 0, "bauta_steering");

/// A `union bpf_attr` of one command.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every pointer in it is valid for that command.
unsafe trait Attribute {}

/// Makes one `bpf(2)` call.
fn bpf<T: Attribute>(command: libc::c_long, attribute: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes at `attribute`, which is
    // exclusively ours, and follows its pointers, which the maker of an `Attribute` vouches for.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: `fd` was just returned by a call that makes a new descriptor, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A name as the kernel keeps it: 15 bytes and a zero.
fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (slot, byte) in name[..15].iter_mut().zip(text.bytes()) {
        *slot = byte;
    }
    name
}

/// A pointer as `bpf(2)` takes it: 64 bits on every machine.
fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// An empty XSKMAP called `xsks_map`, with room for a socket for each of `queues` queues.
pub(crate) fn xsk_map(queues: u32) -> io::Result<OwnedFd> {
    map("xsks_map", MAP_TYPE_XSKMAP, 4, queues, 0)
}

/// A table of `bytes` bytes, all zero, that can be mapped into memory.
pub(crate) fn table(bytes: u32) -> io::Result<OwnedFd> {
    map("bauta_queues", MAP_TYPE_ARRAY, bytes, 1, MAP_MMAPABLE)
}

fn map(
    map_name: &str,
    map_type: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: [u8; 16],
    }
    // SAFETY: no padding, no pointers.
    unsafe impl Attribute for Create {}
    bpf(
        MAP_CREATE,
        &mut Create {
            map_type,
            key_size: 4,
            value_size,
            max_entries,
            map_flags,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: name(map_name),
        },
    )
    .map(own)
}

/// Puts `socket` into `map` for `queue`. It leaves the map when it is closed, at the latest.
pub(crate) fn map_socket(
    map: BorrowedFd<'_>,
    queue: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    map_element(MAP_UPDATE_ELEM, map, queue, Some(&number(socket)))
}

/// Takes the socket of `queue` out of `map`.
pub(crate) fn unmap_socket(map: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    map_element(MAP_DELETE_ELEM, map, queue, None)
}

fn map_element(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    key: u32,
    value: Option<&u32>,
) -> io::Result<()> {
    #[repr(C)]
    struct Element {
        map_fd: u32,
        zero: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    // SAFETY: the only maker, below, points at values of the map's key and value size.
    unsafe impl Attribute for Element {}
    let (key, value) = (address(&raw const key), value.map_or(0, |value| address(value)));
    bpf(command, &mut Element { map_fd: number(map), zero: 0, key, value, flags: 0 }).map(drop)
}

/// Loads a program. The verifier's words go to `log` if there is one.
pub(crate) fn load(
    Purpose(prog_type, expected_attach_type, prog_name): Purpose,
    program: &[Instruction],
    log: Option<&mut [u8]>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log_buf: u64,
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    // SAFETY: the only maker, below, takes the pointers and their lengths from slices.
    unsafe impl Attribute for Load {}
    const LICENSE: &CStr = c"Apache-2.0";
    let (log_level, log_size, log_buf) = match log {
        Some(log) => (1, u32::try_from(log.len()).unwrap_or(u32::MAX), address(log.as_mut_ptr())),
        None => (0, 0, 0),
    };
    let mut load = Load {
        prog_type,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: address(program.as_ptr()),
        license: address(LICENSE.as_ptr()),
        log_level,
        log_size,
        log_buf,
        kern_version: 0,
        prog_flags: 0,
        prog_name: name(prog_name),
        prog_ifindex: 0,
        expected_attach_type,
    };
    bpf(PROG_LOAD, &mut load).map(own)
}

/// Attaches `program` to an interface for as long as the returned link is open.
pub(crate) fn link(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    // SAFETY: no padding, no pointers.
    unsafe impl Attribute for Create {}
    let mut create = Create {
        prog_fd: number(program),
        target_ifindex: interface,
        attach_type: ATTACH_XDP,
        flags,
    };
    bpf(LINK_CREATE, &mut create).map(own)
}

/// Detaches a link at once, whoever else has its descriptor.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Detach {
        link_fd: u32,
    }
    // SAFETY: no padding, no pointers.
    unsafe impl Attribute for Detach {}
    bpf(LINK_DETACH, &mut Detach { link_fd: number(link) }).map(drop)
}

/// What `program` returns for `frame`, without an interface.
#[cfg(test)]
pub(crate) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    #[repr(C)]
    struct Run {
        prog_fd: u32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    // SAFETY: the only maker, below, takes the pointer and its length from a slice.
    unsafe impl Attribute for Run {}
    let mut run = Run {
        prog_fd: number(program),
        retval: 0,
        data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        data_size_out: 0,
        data_in: address(frame.as_ptr()),
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    bpf(PROG_TEST_RUN, &mut run)?;
    Ok(run.retval)
}
