//! Backbones by name.

use std::path::Path;

use masf_backbone::{Backbone, Precision, ScatteringBackbone};
use masf_core::{Error, FeatureExtractor, Progress, Result};

use crate::BackboneConfig;

/// Opens the backbone of a configuration, on its device.
///
/// `weights` is a safetensors file. Without one, `masf-nano` takes the weights that are part of the library (feature `embedded`, on
/// by default), and for other networks they are fetched from the hub if the feature `hub` is on (and kept in its cache). The
/// scattering backbone needs none.
///
/// # Errors
/// An unknown name, levels that the network does not have, a device that is not built in, weights that are missing, unreadable or of another network.
pub fn open_backbone(
    config: &BackboneConfig,
    weights: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Box<dyn FeatureExtractor>> {
    if config.name == ScatteringBackbone::NAME {
        if config.precision != Precision::F32 {
            return Err(Error::argument(
                "backbone.precision",
                "bf16",
                "f32, as the backbone `scattering` has no products to round",
            ));
        }
        if let Some(path) = weights {
            return Err(Error::argument(
                "weights",
                path.display(),
                "none, as the backbone `scattering` has no weights",
            ));
        }
        return Ok(Box::new(ScatteringBackbone::new(&config.strides)?.to_device(config.device.open()?)));
    }
    let builder = Backbone::builder(&config.name)?.strides(&config.strides).device(config.device.open()?);
    let builder = builder.precision(config.precision);
    match weights {
        Some(path) => Ok(Box::new(builder.load(path)?)),
        None if masf_models::embedded(&config.name).is_some() => Ok(Box::new(builder.embedded()?)),
        None => download(&config.name, builder, progress),
    }
}

#[cfg(feature = "hub")]
fn download(
    _name: &str,
    builder: masf_backbone::BackboneBuilder,
    progress: &dyn Progress,
) -> Result<Box<dyn FeatureExtractor>> {
    Ok(Box::new(builder.download(&masf_backbone::hub::Hub::default(), progress)?))
}

#[cfg(not(feature = "hub"))]
fn download(
    name: &str,
    _builder: masf_backbone::BackboneBuilder,
    _progress: &dyn Progress,
) -> Result<Box<dyn FeatureExtractor>> {
    let expected = format!("a file of weights for `{name}` (or the feature `hub`, which downloads them)");
    Err(Error::argument("weights", "missing", expected))
}
