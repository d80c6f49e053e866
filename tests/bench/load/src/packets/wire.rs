//! The five messages between generator and sink. All numbers are big-endian.

/// Length of the longest message that is not padded, bytes.
pub const HELLO_LEN: usize = 1 + 8 + 8 + 8 + 1;
/// The smallest payload a packet may have, bytes: its kind and its number.
pub(super) const MIN_SIZE: usize = 9;
/// The largest payload, bytes: a UDP datagram in an Ethernet frame.
pub(super) const MAX_SIZE: usize = 1472;

/// What a flow sends and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// UDP payload of each packet, bytes.
    pub size: usize,
    /// Packets under way at most.
    pub window: u64,
    /// Milliseconds from the first packet to the last.
    pub millis: u64,
    /// One system call a batch, but each packet by itself through the kernel, instead of trains (GSO).
    pub single: bool,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A packet of the load.
    Data {
        /// From 0.
        number: u64,
    },
    /// Says how far the receiver has come.
    Ack {
        /// The highest number seen, and one.
        next: u64,
        /// Packets that arrived.
        received: u64,
    },
    /// Asks the other end to send.
    Hello(Plan),
    /// A packet to be sent back as it is.
    Echo,
}

impl Message {
    /// Reads a datagram; `None` for what is none of ours.
    pub fn parse(datagram: &[u8]) -> Option<Message> {
        let number = |at: usize| datagram.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes);
        match datagram.first()? {
            1 => Some(Message::Data { number: number(1)? }),
            2 => Some(Message::Ack { next: number(1)?, received: number(9)? }),
            3 => {
                let size = usize::try_from(number(1)?).ok()?;
                let single = *datagram.get(25)? != 0;
                let plan = Plan { size, window: number(9)?, millis: number(17)?, single };
                (MIN_SIZE..=MAX_SIZE).contains(&size).then_some(Message::Hello(plan))
            }
            4 => Some(Message::Echo),
            _ => None,
        }
    }

    /// Writes it over the beginning of `out`; what is longer is padding. Returns the message's length.
    pub fn write(self, out: &mut [u8]) -> usize {
        let (kind, numbers, tail): (u8, &[u64], Option<u8>) = match self {
            Message::Data { number } => (1, &[number], None),
            Message::Ack { next, received } => (2, &[next, received], None),
            Message::Hello(p) => (3, &[p.size as u64, p.window, p.millis], Some(p.single.into())),
            Message::Echo => (4, &[], None),
        };
        let bytes = numbers.iter().flat_map(|n| n.to_be_bytes());
        let mut length = 0;
        for (to, byte) in out.iter_mut().zip([kind].into_iter().chain(bytes).chain(tail)) {
            *to = byte;
            length += 1;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let plan = Plan { size: 1200, window: 256, millis: 4000, single: true };
        let all = [
            Message::Data { number: 1 << 40 },
            Message::Ack { next: 7, received: 5 },
            Message::Hello(plan),
            Message::Echo,
        ];
        for message in all {
            let mut out = [0; HELLO_LEN];
            let length = message.write(&mut out);
            assert_eq!(Message::parse(&out[..length]), Some(message));
        }
    }

    #[test]
    fn strange_datagrams_are_nothing() {
        for datagram in [&[][..], &[9; 40], &[1, 2], &[2; 16], &[3; 26]] {
            assert_eq!(Message::parse(datagram), None, "{datagram:?}");
        }
    }
}
