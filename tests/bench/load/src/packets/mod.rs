//! A UDP load that keeps itself within a window, and its other end.
//!
//! A generator without feedback measures its own queue: on shared cores it takes the time away from whom it loads and most of what it
//! sends is dropped before the tunnel. So the sender keeps a window of packets under way, as any QUIC would, and the receiver says how
//! far it has come once a batch. What is measured is the rate at which packets arrive.

mod flow;
mod port;
mod run;
mod serve;
mod wire;

pub use flow::{Incoming, Outgoing};
pub use port::Port;
pub use run::{Direction, Report, run};
pub use serve::serve;
pub use wire::{HELLO_LEN, Message, Plan};
