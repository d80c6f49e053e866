//! Choices by their names in the configuration and on the command line.

use bauta_masque::{bond::Policy, shape::Shape};
use serde::Deserialize;

/// How packets are spread over several paths.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PolicyName {
    /// By what is measured, never worse than the better path.
    Auto,
    /// All paths carry packets.
    Aggregate,
    /// The best path carries packets, the others are kept warm.
    Failover,
    /// Every packet goes over the two best paths.
    Redundant,
}

impl From<PolicyName> for Policy {
    fn from(name: PolicyName) -> Policy {
        match name {
            PolicyName::Auto => Policy::Auto,
            PolicyName::Aggregate => Policy::Aggregate,
            PolicyName::Failover => Policy::Failover,
            PolicyName::Redundant => Policy::Redundant,
        }
    }
}

/// How much of what is sent looks like a browser's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ShapeName {
    /// None: not a byte is added.
    None,
    /// A visit to the gateway's website first, then the request and the first packets up.
    #[default]
    Start,
    /// Every packet up: small ones have a request's size, none is beyond a browser's; and pages of the
    /// website now and then for half a minute.
    Web,
}

impl From<ShapeName> for Shape {
    fn from(name: ShapeName) -> Shape {
        match name {
            ShapeName::None => Shape::None,
            ShapeName::Start => Shape::Start,
            ShapeName::Web => Shape::Web,
        }
    }
}
