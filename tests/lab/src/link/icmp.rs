//! The ICMP answer to a packet that is too long (RFC 792, RFC 1191, RFC 4443 §3.2).

/// The longest answer: IPv4 hosts need not take more than 576 bytes, IPv6 ones take 1,280.
const ANSWER_V4_MAX: usize = 576;
const ANSWER_V6_MAX: usize = 1280;
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const HOPS: u8 = 64;

/// Builds "fragmentation needed" or "packet too big" with this MTU, from the packet's own
/// destination; `None` for what must not be answered (not IP, an ICMP error).
pub(super) fn too_big(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => too_big_v4(packet, mtu),
        6 => too_big_v6(packet, mtu),
        _ => None,
    }
}

fn too_big_v4(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let (protocol, kind) = (*packet.get(9)?, packet.get(header));
    if protocol == 1 && !matches!(kind, Some(0 | 8)) {
        return None;
    }
    let quoted = &packet[..packet.len().min(ANSWER_V4_MAX - V4_HEADER - ICMP_HEADER)];
    let length = V4_HEADER + ICMP_HEADER + quoted.len();
    let mut answer = vec![0; V4_HEADER];
    answer[0] = 0x45;
    answer[2..4].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
    (answer[8], answer[9]) = (HOPS, 1);
    answer[12..16].copy_from_slice(packet.get(16..20)?);
    answer[16..20].copy_from_slice(packet.get(12..16)?);
    let sum = checksum(0, &answer);
    answer[10..12].copy_from_slice(&sum.to_be_bytes());
    answer.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
    answer.extend_from_slice(&u16::try_from(mtu).ok()?.to_be_bytes());
    answer.extend_from_slice(quoted);
    let sum = checksum(0, &answer[V4_HEADER..]);
    answer[V4_HEADER + 2..V4_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

fn too_big_v6(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let (next, kind) = (*packet.get(6)?, packet.get(V6_HEADER));
    if next == 58 && kind.is_none_or(|kind| *kind < 128) {
        return None;
    }
    let quoted = &packet[..packet.len().min(ANSWER_V6_MAX - V6_HEADER - ICMP_HEADER)];
    let payload = u16::try_from(ICMP_HEADER + quoted.len()).ok()?;
    let mut answer = vec![0; V6_HEADER];
    answer[0] = 0x60;
    answer[4..6].copy_from_slice(&payload.to_be_bytes());
    (answer[6], answer[7]) = (58, HOPS);
    answer[8..24].copy_from_slice(packet.get(24..40)?);
    answer[24..40].copy_from_slice(packet.get(8..24)?);
    answer.extend_from_slice(&[2, 0, 0, 0]);
    answer.extend_from_slice(&u32::try_from(mtu).ok()?.to_be_bytes());
    answer.extend_from_slice(quoted);
    // The pseudo-header: addresses, length and next header.
    let pseudo = u32::from(payload) + 58;
    let addresses = sum_words(pseudo, &answer[8..V6_HEADER]);
    let sum = checksum(addresses, &answer[V6_HEADER..]);
    answer[V6_HEADER + 2..V6_HEADER + 4].copy_from_slice(&sum.to_be_bytes());
    Some(answer)
}

fn sum_words(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    })
}

/// The Internet checksum (RFC 1071) of `bytes` after a partial sum.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum_words(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        (packet[0], packet[9]) = (0x45, 17);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet
    }

    #[test]
    fn the_answer_goes_back_with_the_mtu_and_right_checksums() {
        let answer = too_big(&udp_v4(1500), 1400).unwrap();
        assert_eq!(answer.len(), ANSWER_V4_MAX);
        assert_eq!(answer[12..20], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(answer[20..22], [3, 4]);
        assert_eq!(answer[26..28], 1400u16.to_be_bytes());
        assert_eq!(checksum(0, &answer[..20]), 0);
        assert_eq!(checksum(0, &answer[20..]), 0);
    }

    #[test]
    fn ipv6_gets_packet_too_big() {
        let mut packet = vec![0; 1500];
        (packet[0], packet[6], packet[39]) = (0x60, 17, 9);
        let answer = too_big(&packet, 1280).unwrap();
        assert_eq!((answer.len(), answer[23], answer[40]), (ANSWER_V6_MAX, 9, 2));
        assert_eq!(answer[44..48], 1280u32.to_be_bytes());
        let pseudo =
            sum_words(u32::from(answer[4]) * 256 + u32::from(answer[5]) + 58, &answer[8..40]);
        assert_eq!(checksum(pseudo, &answer[40..]), 0);
    }

    #[test]
    fn errors_and_fragments_of_packets_are_not_answered() {
        let mut error = udp_v4(1500);
        (error[9], error[20]) = (1, 3);
        assert_eq!(too_big(&error, 1400), None);
        for short in [&[][..], &[0x45], &[0x60; 30], &[0x10; 60]] {
            assert_eq!(too_big(short, 1400), None);
        }
    }
}
