//! Requests and answers as large as a browser's.

use std::ops::RangeInclusive;

use bauta_masque::shape::{self, ANSWER, PADDING};
use quiche::h3::Header;
use quiche::h3::qpack::Encoder;

use crate::cid;

/// The largest field section that is looked at, bytes.
const MAX: usize = 4096;

/// Adds padding to a request, so that its field section has as many bytes as `range` says, unless it has
/// more.
pub(crate) fn pad_request(list: &mut Vec<Header>, range: &RangeInclusive<usize>) {
    let (wanted, seed) = (shape::draw(range, random()), random());
    list.push(Header::new(PADDING.as_bytes(), b""));
    let Some(missing) = encoded(list).and_then(|len| wanted.checked_sub(len)) else {
        list.pop();
        return;
    };
    // The length of the value takes up to two bytes more, which is seen once it is there.
    let mut value = shape::padding(missing, seed);
    list.pop();
    list.push(Header::new(PADDING.as_bytes(), value.as_bytes()));
    let excess = encoded(list).map_or(0, |len| len.saturating_sub(wanted));
    value.truncate(missing.saturating_sub(excess));
    list.pop();
    list.push(Header::new(PADDING.as_bytes(), value.as_bytes()));
}

/// Adds as much padding to an answer as a page has; for those who padded their request.
pub fn pad_answer(list: &mut Vec<Header>) {
    let value = shape::padding(shape::draw(&ANSWER, random()), random());
    list.push(Header::new(PADDING.as_bytes(), value.as_bytes()));
}

/// Bytes of a field section over HTTP/3; `None` if it is very large.
fn encoded(list: &[Header]) -> Option<usize> {
    Encoder::new().encode(list, &mut [0; MAX]).ok()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    cid::random(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use bauta_masque::shape::{REQUEST, visit};

    use super::*;

    #[test]
    fn requests_of_any_size_come_to_be_as_large_as_a_browsers_and_larger_ones_stay() {
        for len in [0, 1, 60, 120, 300] {
            let list = vec![Header::new(b"authorization", "X".repeat(len).as_bytes())];
            for range in [REQUEST, visit::PAGE, visit::PICTURE] {
                let mut list = list.clone();
                pad_request(&mut list, &range);
                let size = encoded(&list).unwrap();
                assert!(range.contains(&size), "{len}: {size}");
            }
        }
        let mut large = vec![Header::new(b"authorization", &[b'X'; 900])];
        pad_request(&mut large, &REQUEST);
        assert_eq!(large.len(), 1);
    }
}
