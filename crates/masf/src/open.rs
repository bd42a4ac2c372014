//! Backbones by name.

use std::path::Path;

use masf_backbone::{Backbone, Precision, ScatteringBackbone};
use masf_core::{Error, FeatureExtractor, Progress, Result};

use crate::BackboneConfig;

/// Opens the backbone of a configuration, on its device.
///
/// `weights` is a safetensors file. Without one, `masf-nano` takes the weights that are part of the library (feature `embedded`, on
/// by default), and for networks that the registry knows on the hub they are fetched from there if the feature `hub` is on (and
/// kept in its cache). `mobilenet-v2`, `mobilenet-v2-tf` and `resnet50-v2` are on no hub and always need the file. The
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
    name: &str,
    builder: masf_backbone::BackboneBuilder,
    progress: &dyn Progress,
) -> Result<Box<dyn FeatureExtractor>> {
    if !is_on_hub(name) {
        return Err(no_weights(name));
    }
    Ok(Box::new(builder.download(&masf_backbone::hub::Hub::default(), progress)?))
}

#[cfg(not(feature = "hub"))]
fn download(
    name: &str,
    _builder: masf_backbone::BackboneBuilder,
    _progress: &dyn Progress,
) -> Result<Box<dyn FeatureExtractor>> {
    Err(no_weights(name))
}

/// Whether the registry says where the weights can be downloaded.
fn is_on_hub(name: &str) -> bool {
    masf_models::find(name).and_then(|model| model.weights).is_some_and(|weights| weights.hub.is_some())
}

/// Weights that were not given, and how to have them.
fn no_weights(name: &str) -> Error {
    let otherwise = if name == BackboneConfig::default().name {
        " (or the feature `embedded`, which has them)"
    } else if is_on_hub(name) {
        " (or the feature `hub`, which downloads them)"
    } else {
        ""
    };
    Error::argument("weights", "missing", format!("a file of weights for `{name}`{otherwise}"))
}

#[cfg(test)]
mod tests {
    use masf_core::Silent;

    use super::*;

    #[test]
    fn advice_on_missing_weights_works() {
        for name in ["mobilenet-v2", "mobilenet-v2-tf", "resnet50-v2"] {
            let config = BackboneConfig { name: name.into(), ..BackboneConfig::default() };
            let error = open_backbone(&config, None, &Silent).err().expect("there are no weights").to_string();
            assert!(error.ends_with(&format!("a file of weights for `{name}`")), "{error}");
        }
        assert!(no_weights("resnet18").to_string().contains("the feature `hub`"));
        assert!(no_weights("masf-nano").to_string().contains("the feature `embedded`"));
    }
}
