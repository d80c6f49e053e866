//! How much of the traffic looks like a browser's, by its name in the configuration.

use bauta_masque::shape::Shape;
use serde::Deserialize;

/// Which packets are as large as a browser's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ShapeName {
    /// None: not a byte is added.
    None,
    /// The request and the first packets up.
    #[default]
    Start,
    /// Every packet up: small ones have a request's size, others are full.
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
