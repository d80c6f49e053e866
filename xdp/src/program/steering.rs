//! The program that chooses a TUN queue by the destination of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::asm::{Assembler, Instruction, Register, Width};

const V4_DESTINATION: i32 = 16;
/// The last word of IPv6's destination: pools are numbered there.
const V6_DESTINATION: i32 = 36;

const PACKET: Register = Register(0);
const TABLE: Register = Register(1);
const CONTEXT: Register = Register(6);

/// The program for hosts numbered from `v4` and `v6` on, each with a byte in the first `hosts` bytes
/// of the value of `table`: 0 for none, else one more than its queue. What is for nobody goes to
/// queue 0, whose worker drops and counts it.
pub(crate) fn steering(
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    hosts: u32,
    table: BorrowedFd<'_>,
) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let [nobody, is_v6, found] = std::array::from_fn(|_| asm.label());
    asm.copy(CONTEXT, Register(1));
    asm.load_packet(Width::Byte, 0);
    asm.shift_right(PACKET, 4);
    if v6.is_some() {
        asm.jump_equal(PACKET, 6, is_v6);
    }
    if let Some(first) = v4 {
        asm.jump_unequal(PACKET, 4, nobody);
        asm.load_packet(Width::Word, V4_DESTINATION);
        asm.subtract_word(PACKET, first.to_bits().cast_signed());
        asm.jump(found);
    } else {
        asm.jump(nobody);
    }
    if let Some(first) = v6 {
        asm.bind(is_v6);
        asm.load_packet(Width::Word, V6_DESTINATION);
        asm.subtract_word(PACKET, (first.to_bits() as u32).cast_signed());
    }
    asm.bind(found);
    asm.jump_at_least(PACKET, hosts, nobody);
    asm.set_map_value(TABLE, table.as_raw_fd());
    asm.add_register(TABLE, PACKET);
    asm.load(Width::Byte, PACKET, TABLE, 0);
    asm.jump_equal(PACKET, 0, nobody);
    asm.add(PACKET, -1);
    asm.exit();
    asm.bind(nobody);
    asm.set(PACKET, 0);
    asm.exit();
    asm.finish()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys;

    /// A packet to `to`, behind the Ethernet header that the kernel's test run wants and removes.
    fn packet(to: &str) -> Vec<u8> {
        let mut frame = vec![0; 12];
        match to.parse().unwrap() {
            std::net::IpAddr::V4(to) => {
                frame.extend([0x08, 0x00, 0x45]);
                frame.resize(14 + 16, 0);
                frame.extend(to.octets());
            }
            std::net::IpAddr::V6(to) => {
                frame.extend([0x86, 0xdd, 0x60]);
                frame.resize(14 + 24, 0);
                frame.extend(to.octets());
            }
        }
        frame.resize(14 + 60, 0);
        frame
    }

    #[test]
    fn each_host_has_the_queue_its_byte_says_in_both_families() {
        // The pools' first addresses have the sign bit set, or not, and cross a byte.
        for (v4, v6) in [("10.77.0.0", "fd62:6175::"), ("203.0.112.0", "fd00::ffff:0:0")] {
            let (first_v4, first_v6): (Ipv4Addr, Ipv6Addr) =
                (v4.parse().unwrap(), v6.parse().unwrap());
            let table = sys::table(1000).unwrap();
            let code = steering(Some(first_v4), Some(first_v6), 1000, table.as_fd());
            let program = sys::load(sys::STEERING, &code, None).unwrap();
            let mapped = crate::ring::Mapping::of(table.as_fd(), 1000, 0).unwrap();
            let steering = crate::Steering::of(mapped, 1000);
            steering.set(2, Some(0));
            steering.set(3, Some(1));
            steering.set(258, Some(3));
            steering.set(999, Some(253));
            steering.set(1000, Some(1));
            let v4 = |n: u32| Ipv4Addr::from_bits(first_v4.to_bits() + n).to_string();
            let v6 = |n: u32| Ipv6Addr::from_bits(first_v6.to_bits() + u128::from(n)).to_string();
            let queue = |to: &str| sys::test_run(program.as_fd(), &packet(to)).unwrap();
            for (host, wanted) in [(2, 0), (3, 1), (4, 0), (258, 3), (999, 253), (1000, 0)] {
                assert_eq!(queue(&v4(host)), wanted, "{}", v4(host));
                assert_eq!(queue(&v6(host)), wanted, "{}", v6(host));
            }
            assert_eq!(queue("1.1.1.1"), 0, "nobody's");
            steering.set(3, None);
            assert_eq!(queue(&v4(3)), 0, "gone");
        }
    }

    #[test]
    fn one_family_alone_is_enough() {
        let table = sys::table(10).unwrap();
        let (v4, v6) = (Ipv4Addr::new(10, 0, 0, 0), Ipv6Addr::LOCALHOST);
        for (v4, v6) in [(Some(v4), None), (None, Some(v6))] {
            let code = steering(v4, v6, 10, table.as_fd());
            let program = sys::load(sys::STEERING, &code, None).unwrap();
            for to in ["10.0.0.3", "::4"] {
                assert_eq!(sys::test_run(program.as_fd(), &packet(to)).unwrap(), 0);
            }
        }
    }
}
