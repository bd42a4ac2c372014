//! What the builder of a backbone asks of a network, whatever it is made of.

use masf_core::LevelSpec;

use super::Blueprint;
use crate::weights::Requirement;

/// A network before its weights are known.
#[derive(Debug, Clone)]
pub(crate) enum Network {
    /// Runs on the engine, or on Candle's operations.
    Convolutional(Blueprint),
    /// Runs on Candle's operations.
    #[cfg(feature = "vit")]
    Transformer(crate::vit::Blueprint),
}

/// Runs `$body` with the blueprint of either kind.
macro_rules! each {
    ($network:expr, $blueprint:ident => $body:expr) => {
        match $network {
            Network::Convolutional($blueprint) => $body,
            #[cfg(feature = "vit")]
            Network::Transformer($blueprint) => $body,
        }
    };
}

/// A layer that can be chosen as a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Layer {
    /// Image pixels per step.
    pub(crate) stride: usize,
    /// Its place among the network's layers.
    pub(crate) order: usize,
    pub(crate) channels: usize,
}

impl Network {
    /// The names of the maps that are given by default, in the order of their layers.
    pub(crate) fn maps(&self) -> &[String] {
        each!(self, blueprint => blueprint.maps())
    }

    /// The layer of a name.
    pub(crate) fn layer(&self, name: &str) -> Option<Layer> {
        each!(self, blueprint => blueprint.layer(name))
    }

    /// The names of all layers that can be chosen.
    pub(crate) fn names(&self) -> Vec<String> {
        each!(self, blueprint => blueprint.names())
    }

    /// The levels of the default maps.
    pub(crate) fn levels(&self) -> Vec<LevelSpec> {
        let layers = self.maps().iter().filter_map(|name| self.layer(name));
        layers.map(|Layer { stride, channels, .. }| LevelSpec { stride, channels }).collect()
    }

    /// The part that these layers need, with them as its default maps. Unknown names are left out.
    pub(crate) fn select(&self, layers: &[String]) -> Self {
        match self {
            Self::Convolutional(blueprint) => Self::Convolutional(blueprint.select(layers)),
            #[cfg(feature = "vit")]
            Self::Transformer(blueprint) => Self::Transformer(blueprint.select(layers)),
        }
    }

    /// The tensors that are needed.
    pub(crate) fn requirements(&self) -> Vec<Requirement> {
        each!(self, blueprint => blueprint.requirements())
    }

    /// Whether a tensor may be in a file although it is not used.
    pub(crate) fn ignores(&self, name: &str) -> bool {
        each!(self, blueprint => blueprint.ignores(name))
    }

    /// The number that the sides of images must be multiples of, in pixels.
    pub(crate) fn granularity(&self) -> usize {
        match self {
            Self::Convolutional(_) => 1,
            #[cfg(feature = "vit")]
            Self::Transformer(blueprint) => blueprint.patch(),
        }
    }
}
