//! [`Rules`] as a classic BPF program on a UDP socket: no privilege to attach it, nothing to load.
//!
//! What it sees begins with the UDP header; the IP header is reached by `SKF_NET_OFF`. A read beyond
//! the end of a packet drops it, which no packet that begins a connection is short enough for. Of a
//! train that the kernel merged it sees the first datagram.

use nix::libc;
use socket2::SockFilter;

use super::{BUCKET_BITS, Rules, TOKENS, WORDS};

/// Of the UDP header.
const PAYLOAD: u32 = 8;
/// What a program returns to let a packet pass, in bytes of it at most.
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;
/// The first byte of the IP header, and of the source in either version.
const IP: u32 = libc::SKF_NET_OFF as u32;
const V4_SOURCE: u32 = IP + 12;
const V6_SOURCE: u32 = IP + 8;
/// A random number of 32 bits.
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

// Words of memory that a program has.
const BIT: u32 = 0;
const BUCKET: u32 = 1;
const SHARE: u32 = 2;

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD: u32 = libc::BPF_LD | libc::BPF_IMM;
const RECALL: u32 = libc::BPF_LD | libc::BPF_MEM;
const RECALL_X: u32 = libc::BPF_LDX | libc::BPF_MEM;
const STORE: u32 = libc::BPF_ST;
const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const ADD_X: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const SHIFT_LEFT_X: u32 = libc::BPF_ALU | libc::BPF_LSH | libc::BPF_X;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ;
const IF_ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT;
const IF_ABOVE_X: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_X;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE;
const IF_ANY_SET: u32 = libc::BPF_JMP | libc::BPF_JSET;
const RETURN: u32 = libc::BPF_RET;

/// Instructions of a word of buckets, and of the choice between two halves of them.
const LEAF: usize = 8;
const FORK: usize = 2;

/// The program for `rules`.
pub(crate) fn assemble(rules: &Rules) -> Vec<SockFilter> {
    let longest = quiche::MAX_CONN_ID_LEN as u32;
    // Jumps are counted in instructions to skip.
    let mut program = vec![
        op(LOAD_BYTE, PAYLOAD),
        jump(IF_ANY_SET, 0x80, 1, 0),
        op(RETURN, PASS),
        op(LOAD, rules.shares[0]),
        op(STORE, SHARE),
        op(LOAD_WORD, PAYLOAD + 1),
        jump(IF_EQUAL, 1, 0, 17), // not version 1: to the source
        op(LOAD_BYTE, PAYLOAD),
        op(AND, 0x30),
        jump(IF_EQUAL, 0x20, 0, 1),
        op(RETURN, PASS), // a Handshake packet
        jump(IF_EQUAL, 0, 0, 12),
        op(LOAD_BYTE, PAYLOAD + 5),
        jump(IF_ABOVE, longest, 10, 0),
        op(TO_X, 0),
        op(LOAD_BYTE_AT_X, PAYLOAD + 6),
        jump(IF_ABOVE, longest, 7, 0),
        op(ADD_X, 0),
        op(TO_X, 0),
        op(LOAD_BYTE_AT_X, PAYLOAD + 7),
        jump(IF_AT_LEAST, (*TOKENS.start()).into(), 0, 3),
        jump(IF_ABOVE, (*TOKENS.end()).into(), 2, 0),
        op(LOAD, rules.shares[1]),
        op(STORE, SHARE),
        // The source's bucket.
        op(LOAD_BYTE, IP),
        op(AND, 0xf0),
        jump(IF_EQUAL, 0x60, 2, 0),
        op(LOAD_WORD, V4_SOURCE),
        op(JUMP, 5),
        op(LOAD_WORD, V6_SOURCE),
        op(MULTIPLY, rules.keys[1]),
        op(TO_X, 0),
        op(LOAD_WORD, V6_SOURCE + 4),
        op(XOR_X, 0),
        op(MULTIPLY, rules.keys[0]),
        op(SHIFT_RIGHT, u32::BITS - BUCKET_BITS),
        op(STORE, BUCKET),
        op(AND, 31),
        op(TO_X, 0),
        op(LOAD, 1),
        op(SHIFT_LEFT_X, 0),
        op(STORE, BIT),
        op(RECALL, BUCKET),
        op(SHIFT_RIGHT, 5),
    ];
    choose(&mut program, &rules.loud, 0);
    program
}

/// Finds the word of `words`, the first of which is number `first`, by halves.
fn choose(program: &mut Vec<SockFilter>, words: &[u32], first: usize) {
    if let [word] = words {
        program.extend([
            op(RECALL, BIT),
            jump(IF_ANY_SET, *word, 1, 0),
            op(RETURN, PASS),
            op(RECALL_X, SHARE),
            op(LOAD_WORD, RANDOM),
            jump(IF_ABOVE_X, 0, 1, 0),
            op(RETURN, PASS),
            op(RETURN, DROP),
        ]);
        return;
    }
    let (low, high) = words.split_at(words.len() / 2);
    program.push(jump(IF_AT_LEAST, (first + low.len()) as u32, 0, 1));
    program.push(op(JUMP, length(low.len()) as u32));
    choose(program, low, first);
    choose(program, high, first + low.len());
}

/// Instructions for so many words.
const fn length(words: usize) -> usize {
    words * LEAF + (words - 1) * FORK
}

// `BPF_MAXINSNS`.
const _: () = assert!(44 + length(WORDS) <= 4096);

fn op(code: u32, k: u32) -> SockFilter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}
