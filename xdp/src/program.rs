//! The XDP program, written out instruction by instruction: no compiler for it, no file to load.
//!
//! It redirects a frame to the ring of its queue when all of this holds, and passes it to the
//! kernel otherwise:
//! - at most [`MAX_FRAME`] bytes, and not addressed to a group of hosts;
//! - IPv4 without options and not a fragment, or IPv6 without extension headers, without VLAN tag;
//! - UDP to an address and port of the [`Filter`].
//!
//! A queue without a ring passes too. Pointers are only ever compared, never subtracted, so that
//! the verifier asks no `CAP_PERFMON` of whoever loads it.

mod asm;
mod steering;

use std::os::fd::{AsRawFd, BorrowedFd};

use self::asm::{Assembler, Label, Register, Width};
use crate::filter::{Filter, Rule};
use crate::ring::MAX_FRAME;

pub(crate) use self::asm::Instruction;
pub(crate) use self::steering::steering;

/// `enum xdp_action`: on to the kernel's stack.
pub(crate) const XDP_PASS: i32 = 2;
/// `enum xdp_action`: to where the helper said.
#[cfg(test)]
pub(crate) const XDP_REDIRECT: i32 = 4;
/// The number of the helper `bpf_redirect_map`.
const REDIRECT_MAP: i32 = 51;

// Offsets into `struct xdp_md`, what the program is given.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE: i16 = 16;

// Offsets into the frame.
const ETHERTYPE: i16 = 12;
const V4_VERSION: i16 = 14;
const V4_FRAGMENT: i16 = 20;
const V4_PROTOCOL: i16 = 23;
const V4_DESTINATION: i16 = 30;
const V4_PORT: i16 = 36;
const V4_END: i32 = 42;
const V6_VERSION: i16 = 14;
const V6_NEXT_HEADER: i16 = 20;
const V6_DESTINATION: i16 = 38;
const V6_PORT: i16 = 56;
const V6_END: i32 = 62;

const UDP: i32 = 17;

const CONTEXT: Register = Register(6);
const DATA: Register = Register(2);
const DATA_END: Register = Register(3);
const LIMIT: Register = Register(4);
const VALUE: Register = Register(5);

/// The program for `filter`, its rings in `map` (an XSKMAP by queue number).
pub(crate) fn assemble(filter: &Filter, map: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let [pass, ours, v4, v6] = std::array::from_fn(|_| asm.label());

    asm.copy(CONTEXT, Register(1));
    asm.load(Width::Word, DATA, CONTEXT, MD_DATA);
    asm.load(Width::Word, DATA_END, CONTEXT, MD_DATA_END);
    asm.copy(LIMIT, DATA);
    asm.add(LIMIT, MAX_FRAME as i32);
    asm.jump_greater(DATA_END, LIMIT, pass);
    need(&mut asm, V4_END, pass);
    asm.load(Width::Byte, VALUE, DATA, 0);
    asm.jump_any_set(VALUE, 1, pass); // the group bit
    asm.load(Width::Half, VALUE, DATA, ETHERTYPE);
    asm.jump_equal(VALUE, be16(0x0800), v4);
    asm.jump_equal(VALUE, be16(0x86dd), v6);
    asm.jump(pass);

    asm.bind(v4);
    asm.load(Width::Byte, VALUE, DATA, V4_VERSION);
    asm.jump_unequal(VALUE, 0x45, pass); // version 4, no options
    asm.load(Width::Byte, VALUE, DATA, V4_PROTOCOL);
    asm.jump_unequal(VALUE, UDP, pass);
    asm.load(Width::Half, VALUE, DATA, V4_FRAGMENT);
    asm.jump_any_set(VALUE, be16(0x3fff), pass); // more fragments, or an offset
    for rule in filter.rules() {
        if let Rule::V4(address, port) = rule {
            let address = address.as_ref().map(<[u8; 4]>::as_slice);
            destination(&mut asm, (V4_DESTINATION, address), (V4_PORT, *port), ours);
        }
    }
    asm.jump(pass);

    asm.bind(v6);
    need(&mut asm, V6_END, pass);
    asm.load(Width::Byte, VALUE, DATA, V6_VERSION);
    asm.and(VALUE, 0xf0);
    asm.jump_unequal(VALUE, 0x60, pass);
    asm.load(Width::Byte, VALUE, DATA, V6_NEXT_HEADER);
    asm.jump_unequal(VALUE, UDP, pass);
    for rule in filter.rules() {
        if let Rule::V6(address, port) = rule {
            let address = address.as_ref().map(<[u8; 16]>::as_slice);
            destination(&mut asm, (V6_DESTINATION, address), (V6_PORT, *port), ours);
        }
    }

    asm.bind(pass);
    asm.set(Register(0), XDP_PASS);
    asm.exit();

    asm.bind(ours);
    asm.load(Width::Word, Register(2), CONTEXT, MD_RX_QUEUE);
    asm.set_map(Register(1), map.as_raw_fd());
    asm.set(Register(3), XDP_PASS); // what the helper returns for a queue without a ring
    asm.call(REDIRECT_MAP);
    asm.exit();
    asm.finish()
}

/// Leaves for `pass` unless the frame has `bytes` bytes.
fn need(asm: &mut Assembler, bytes: i32, pass: Label) {
    asm.copy(LIMIT, DATA);
    asm.add(LIMIT, bytes);
    asm.jump_greater(LIMIT, DATA_END, pass);
}

/// Leaves for `ours` if the frame has these at these offsets; `None` is any address.
fn destination(
    asm: &mut Assembler,
    (address_at, address): (i16, Option<&[u8]>),
    (port_at, port): (i16, u16),
    ours: Label,
) {
    let other = asm.label();
    let words = address.unwrap_or_default().as_chunks::<4>().0;
    for (at, word) in (address_at..).step_by(4).zip(words) {
        asm.load(Width::Word, VALUE, DATA, at);
        asm.jump_unequal(VALUE, i32::from_ne_bytes(*word), other);
    }
    asm.load(Width::Half, VALUE, DATA, port_at);
    asm.jump_equal(VALUE, be16(port), ours);
    asm.bind(other);
}

/// A 16-bit field of the network as a load of two bytes will see it.
fn be16(value: u16) -> i32 {
    i32::from(value.to_be())
}

#[cfg(test)]
mod tests;
