//! IPv4 fragmentation (RFC 791 §3.2), for packets that permit it and do not fit the tunnel.

use crate::checksum;
use crate::packet::PacketView;

/// The smallest MTU fragments are made for: what every IPv4 link carries (RFC 791).
pub const MIN_MTU: usize = 68;

/// The longest IPv4 header, in bytes.
const MAX_HEADER: usize = 60;

/// Splits an IPv4 packet without DF into fragments of at most `mtu` bytes and hands each on.
/// Returns how many there were, or `None` (and hands nothing on) for what may not or cannot be
/// split: IPv6, DF, an MTU below [`MIN_MTU`], no IP packet at all.
pub fn fragment_v4(packet: &[u8], mtu: usize, mut each: impl FnMut(&mut [u8])) -> Option<usize> {
    let view = PacketView::parse(packet).ok()?;
    if view.dont_fragment() || mtu < MIN_MTU {
        return None;
    }
    let (first, payload) = packet.split_at(view.upper_offset());
    let mut later = [0; MAX_HEADER];
    let later_len = copied_header(first, &mut later);
    let mut buffer = Vec::with_capacity(mtu);
    let (mut at, mut count) = (0, 0);
    while at < payload.len() || count == 0 {
        let header = if at == 0 { first } else { &later[..later_len] };
        let room = (mtu - header.len()) & !7;
        let take = match payload.len() - at {
            rest if header.len() + rest <= mtu => rest,
            _ => room,
        };
        let more = at + take < payload.len() || view.more_fragments();
        buffer.clear();
        buffer.extend_from_slice(header);
        buffer.extend_from_slice(&payload[at..at + take]);
        let offset = (usize::from(view.fragment_offset()) + at) / 8;
        let word = offset as u16 & 0x1fff | u16::from(more) << 13;
        let total = buffer.len() as u16;
        buffer[2..4].copy_from_slice(&total.to_be_bytes());
        buffer[6..8].copy_from_slice(&word.to_be_bytes());
        buffer[10..12].fill(0);
        let sum = checksum::checksum(&buffer[..header.len()]);
        buffer[10..12].copy_from_slice(&sum.to_be_bytes());
        each(&mut buffer);
        at += take;
        count += 1;
    }
    Some(count)
}

/// The header of all fragments but the first: only options with the copied flag stay.
fn copied_header(header: &[u8], out: &mut [u8; MAX_HEADER]) -> usize {
    out[..20].copy_from_slice(&header[..20]);
    let mut len = 20;
    let mut options = &header[20..];
    while let [kind, rest @ ..] = options {
        let size = match kind {
            0 => break,
            1 => 1,
            _ => match rest.first() {
                Some(&n) if n >= 2 && usize::from(n) <= options.len() => usize::from(n),
                _ => break,
            },
        };
        if kind & 0x80 != 0 {
            out[len..len + size].copy_from_slice(&options[..size]);
            len += size;
        }
        options = &options[size..];
    }
    let padded = len.next_multiple_of(4);
    out[len..padded].fill(0);
    out[0] = 0x40 | (padded / 4) as u8;
    padded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::{fix_v4, v4, v6};
    use proptest::prelude::*;

    #[test]
    fn what_may_not_be_split_is_left_alone() {
        let mut df = v4("192.0.2.1", "192.0.2.2", 17, &[0; 2000]);
        df[6] = 0x40;
        assert_eq!(fragment_v4(&df, 1000, |_| panic!()), None);
        assert_eq!(fragment_v4(&v6("::1", "::2", 17, &[0; 2000]), 1500, |_| panic!()), None);
        let small = v4("192.0.2.1", "192.0.2.2", 17, &[0; 2000]);
        assert_eq!(fragment_v4(&small, 67, |_| panic!()), None);
    }

    #[test]
    fn only_copied_options_are_in_later_fragments() {
        // Record route (not copied), then router alert (copied).
        let mut p = v4("192.0.2.1", "192.0.2.2", 17, &[7; 208]);
        let options = [7, 3, 4, 1, 148, 4, 0, 0];
        p.splice(20..20, options);
        p[0] = 0x47;
        p[2..4].copy_from_slice(&236u16.to_be_bytes());
        fix_v4(&mut p);
        let mut headers = Vec::new();
        fragment_v4(&p, 100, |f| headers.push(f[..usize::from(f[0] & 15) * 4][20..].to_vec()));
        assert_eq!(headers[0], options);
        assert!(headers.len() > 2 && headers[1..].iter().all(|h| h == &[148, 4, 0, 0]));
    }

    proptest! {
        #[test]
        fn fragments_fit_and_join_to_the_original(
            payload in prop::collection::vec(any::<u8>(), 0..4000), mtu in MIN_MTU..1500
        ) {
            let p = v4("192.0.2.1", "192.0.2.2", 17, &payload);
            let mut joined = Vec::new();
            let mut last = true;
            let count = fragment_v4(&p, mtu, |f| {
                assert!(f.len() <= mtu);
                assert_eq!(checksum::checksum(&f[..20]), 0);
                let view = PacketView::parse(f).unwrap();
                assert_eq!(usize::from(view.fragment_offset()), joined.len());
                joined.extend_from_slice(view.upper());
                last = !view.more_fragments();
            });
            prop_assert!(count >= Some(1) && last);
            prop_assert_eq!(joined, payload);
        }
    }
}
