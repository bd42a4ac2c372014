//! The networks of the registry before their weights are known, and which of them a file of weights belongs to.

mod blueprint;
mod mobilenet_v2;
mod nano;
mod network;
mod resnet;
mod resnet_v2;

pub(crate) use blueprint::Blueprint;
#[cfg(feature = "train")]
pub(crate) use blueprint::{ConvSpec, Offset, Step};
pub(crate) use network::{Layer, Network};

use masf_models::{Architecture, MODELS, Model, PaddingRule};

use crate::graph::Padding;
use crate::weights::{Weights, check};
use crate::{BackboneError, Result};

/// The model of a name, with its network; fails for unknown names and for those that are not networks.
pub(crate) fn find(name: &str) -> Result<(&'static Model, Network)> {
    let is_network = |model: &&Model| model.architecture != Architecture::Scattering;
    let model = masf_models::find(name).filter(is_network).ok_or_else(|| {
        let known: Vec<_> = MODELS.iter().filter(is_network).map(|m| m.name).collect();
        BackboneError::argument("backbone", format!("`{name}`"), format!("one of {}", known.join(", ")))
    })?;
    let network = network(model.architecture).ok_or_else(|| {
        BackboneError::argument("backbone", format!("`{name}`"), "a build with the feature `vit`, or another backbone")
    })?;
    Ok((model, network))
}

/// The network of an architecture; none for those that are computed otherwise or are not built in.
fn network(architecture: Architecture) -> Option<Network> {
    #[cfg(feature = "vit")]
    if let Architecture::DinoV2 { width, registers } = architecture {
        return Some(Network::Transformer(crate::vit::Blueprint::dinov2(width, registers)));
    }
    blueprint(architecture).map(Network::Convolutional)
}

/// The convolutional network of an architecture; none for other kinds.
pub(crate) fn blueprint(architecture: Architecture) -> Option<Blueprint> {
    match architecture {
        Architecture::MobileNetV2 { padding: PaddingRule::Same } => Some(mobilenet_v2::blueprint(Padding::Same)),
        Architecture::MobileNetV2 { .. } => Some(mobilenet_v2::blueprint(Padding::Symmetric(1))),
        Architecture::Nano => Some(nano::blueprint()),
        Architecture::ResNet50V2 => Some(resnet_v2::blueprint()),
        Architecture::ResNet { blocks, block } => Some(resnet::blueprint(blocks, block)),
        _ => None,
    }
}

/// The model that weights belong to: by the hash of their file, else the first one whose tensors they are.
pub(crate) fn identify(weights: &Weights) -> Option<&'static Model> {
    by_hash(weights).or_else(|| {
        MODELS.iter().find(|model| {
            network(model.architecture)
                .is_some_and(|network| check(weights, &network.requirements(), |name| network.ignores(name)).is_empty())
        })
    })
}

/// The model whose file this is, byte for byte.
pub(crate) fn by_hash(weights: &Weights) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.weights.and_then(|known| known.sha256) == Some(weights.sha256()))
}
