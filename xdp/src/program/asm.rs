//! An assembler for the few eBPF instructions the programs need (RFC 9669).

use std::os::fd::RawFd;

/// One instruction as the kernel takes it (RFC 9669 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Register(pub(super) u8);

/// How much a load reads; the rest of the register is zeroed.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Width {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// A place to jump to, later in the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label(usize);

// Instruction classes, and the source bit.
const LD_ABS: u8 = 0x20;
const LDX_MEM: u8 = 0x61;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU32: u8 = 0x04;
const ALU64: u8 = 0x07;
const BY_REGISTER: u8 = 0x08;
// Operations.
const ADD: u8 = 0x00;
const SUB: u8 = 0x10;
const RSH: u8 = 0x70;
const AND: u8 = 0x50;
const MOV: u8 = 0xb0;
const JA: u8 = 0x00;
const JEQ: u8 = 0x10;
const JGT: u8 = 0x20;
const JGE: u8 = 0x30;
const JSET: u8 = 0x40;
const JNE: u8 = 0x50;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The load of a 64-bit constant, two instructions long.
const LD_IMM64: u8 = 0x18;
/// The source register that makes that constant a map.
const PSEUDO_MAP_FD: u8 = 1;
/// The source register that makes it the address of a map's first value.
const PSEUDO_MAP_VALUE: u8 = 2;

const NONE: Register = Register(0);

/// Collects instructions; jumps go forward only, and are resolved at the end.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    /// Where each label is, once bound.
    labels: Vec<usize>,
    /// Which instruction jumps to which label.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, opcode: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        let registers =
            if cfg!(target_endian = "little") { from.0 << 4 | to.0 } else { to.0 << 4 | from.0 };
        self.code.push(Instruction { opcode, registers, offset, immediate });
    }

    fn emit_jump(&mut self, opcode: u8, a: Register, b: Register, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(opcode, a, b, 0, value);
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(0);
        Label(self.labels.len() - 1)
    }

    /// Places a label before the next instruction.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0] = self.code.len();
    }

    pub(super) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.emit(LDX_MEM | width as u8, to, base, offset, 0);
    }

    /// Reads the packet of a socket filter at `offset`, in the network's order, into register 0. The
    /// context has to be in register 6; registers 1 to 5 are lost. Past the packet's end the program
    /// returns 0.
    pub(super) fn load_packet(&mut self, width: Width, offset: i32) {
        self.emit(LD_ABS | width as u8, NONE, NONE, 0, offset);
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.emit(ALU64 | MOV | BY_REGISTER, to, from, 0, 0);
    }

    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | MOV, to, NONE, 0, value);
    }

    pub(super) fn set_map(&mut self, to: Register, map: RawFd) {
        self.emit(LD_IMM64, to, Register(PSEUDO_MAP_FD), 0, map);
        self.emit(0, NONE, NONE, 0, 0);
    }

    /// The address of the only value of `map`, an array.
    pub(super) fn set_map_value(&mut self, to: Register, map: RawFd) {
        self.emit(LD_IMM64, to, Register(PSEUDO_MAP_VALUE), 0, map);
        self.emit(0, NONE, NONE, 0, 0);
    }

    pub(super) fn add_register(&mut self, to: Register, from: Register) {
        self.emit(ALU64 | ADD | BY_REGISTER, to, from, 0, 0);
    }

    /// Subtracts modulo 2^32 and zeroes the upper half.
    pub(super) fn subtract_word(&mut self, to: Register, value: i32) {
        self.emit(ALU32 | SUB, to, NONE, 0, value);
    }

    pub(super) fn shift_right(&mut self, to: Register, bits: i32) {
        self.emit(ALU64 | RSH, to, NONE, 0, bits);
    }

    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | ADD, to, NONE, 0, value);
    }

    pub(super) fn and(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | AND, to, NONE, 0, value);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.emit_jump(JMP | JA, NONE, NONE, 0, to);
    }

    /// Jumps if `a > b`: both whole registers, so also pointers.
    pub(super) fn jump_greater(&mut self, a: Register, b: Register, to: Label) {
        self.emit_jump(JMP | JGT | BY_REGISTER, a, b, 0, to);
    }

    // The rest compares 32 bits: a 64-bit comparison would extend the sign of `value`.

    pub(super) fn jump_equal(&mut self, a: Register, value: i32, to: Label) {
        self.emit_jump(JMP32 | JEQ, a, NONE, value, to);
    }

    pub(super) fn jump_unequal(&mut self, a: Register, value: i32, to: Label) {
        self.emit_jump(JMP32 | JNE, a, NONE, value, to);
    }

    /// Jumps if `a >= value`, both without a sign.
    pub(super) fn jump_at_least(&mut self, a: Register, value: u32, to: Label) {
        self.emit_jump(JMP32 | JGE, a, NONE, value.cast_signed(), to);
    }

    /// Jumps if any bit of `mask` is set.
    pub(super) fn jump_any_set(&mut self, a: Register, mask: i32, to: Label) {
        self.emit_jump(JMP32 | JSET, a, NONE, mask, to);
    }

    pub(super) fn call(&mut self, helper: i32) {
        self.emit(JMP | CALL, NONE, NONE, 0, helper);
    }

    pub(super) fn exit(&mut self) {
        self.emit(JMP | EXIT, NONE, NONE, 0, 0);
    }

    /// The finished program. Jumps count from the instruction behind them; the bound on listeners
    /// keeps them far below what the field holds, and the verifier would refuse a wrong one.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, Label(label)) in self.jumps {
            let distance = self.labels[label].wrapping_sub(at + 1);
            self.code[at].offset = i16::try_from(distance).unwrap_or(i16::MAX);
        }
        self.code
    }
}
