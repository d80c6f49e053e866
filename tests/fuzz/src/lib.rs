//! One body for each parser and session: any bytes in, no panic, and what holds of all inputs.

mod bond;
mod codecs;
mod sessions;
mod wire;

pub use bond::{bond, bond_control, bond_wire};
pub use codecs::codecs;
pub use sessions::{connect_ip, connect_udp};
pub use wire::{
    addresses, capsule, concealed, datagram, dns, fragment, icmp, packet, request, routes,
    template, varint,
};

/// A body and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("varint", varint),
    ("datagram", datagram),
    ("capsule", capsule),
    ("concealed", concealed),
    ("addresses", addresses),
    ("routes", routes),
    ("dns", dns),
    ("template", template),
    ("request", request),
    ("packet", packet),
    ("icmp", icmp),
    ("fragment", fragment),
    ("connect_ip", connect_ip),
    ("connect_udp", connect_udp),
    ("codecs", codecs),
    ("bond", bond),
    ("bond_wire", bond_wire),
    ("bond_control", bond_control),
];
