//! A backbone in the model file: its weights as they were stored, or only their hash.

use std::collections::BTreeMap;

use masf_core::artifact::ModelFileError;
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, Normalisation};

use super::{Backbone, BackboneBuilder};
use crate::engine::Precision;
use crate::weights::Weights;

/// The settings.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    name: String,
    layers: Vec<String>,
    normalisation: Normalisation,
    weights_sha256: String,
    /// Written where it is not the default.
    #[serde(default, skip_serializing_if = "is_default")]
    precision: Precision,
    /// Whether the tensors are in the model file.
    embedded: bool,
}

fn is_default(precision: &Precision) -> bool {
    *precision == Precision::default()
}

impl Artifact for Backbone {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        let embedded = !writer.options().reference_weights;
        writer.section(&Settings {
            name: self.model.name.into(),
            layers: self.layers.clone(),
            normalisation: self.normalisation,
            weights_sha256: self.weights.sha256().into(),
            precision: self.precision,
            embedded,
        })?;
        if embedded {
            for (name, tensor) in self.weights.tensors() {
                writer.tensor(name, tensor)?;
            }
        }
        Ok(())
    }

    /// The backbone computes where the options of the reader say. A file of weights that they name must be the one that the model was
    /// fitted with, also where the model holds its weights.
    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let settings: Settings = reader.section()?;
        let invalid = |error: crate::BackboneError| reader.invalid(error.to_string());
        let layers: Vec<&str> = settings.layers.iter().map(String::as_str).collect();
        let builder = BackboneBuilder::new(&settings.name).map_err(invalid)?;
        let builder = builder.layers(&layers).normalisation(settings.normalisation);
        let builder = builder.precision(settings.precision);
        let needed = builder.needed().map_err(invalid)?;
        // What the device cannot do is no fault of the file.
        let builder = builder.device(reader.options().device.open()?);
        builder.needed()?;
        let weights = match &reader.options().weights {
            Some(path) => Some(Weights::read(path)?),
            None if settings.embedded => None,
            // Other weights of the same network are no wrong file, as nobody gave them.
            None => Weights::embedded(&settings.name)?.filter(|weights| weights.sha256() == settings.weights_sha256),
        };
        // A file that is given must be the right one, whether it is needed or not.
        if let Some(weights) = &weights
            && weights.sha256() != settings.weights_sha256
        {
            return Err(ModelFileError::Weights(format!(
                "{}: SHA-256 is {}, but the model was fitted with weights of `{}` whose SHA-256 is {}{}",
                weights.origin(),
                weights.sha256(),
                settings.name,
                settings.weights_sha256,
                if settings.embedded { "; it holds them, so leave the file out" } else { "" }
            ))
            .into());
        }
        if settings.embedded {
            let tensors = needed.into_iter().map(|name| Ok((name.clone(), reader.any_tensor(&name)?)));
            let tensors = tensors.collect::<masf_core::Result<BTreeMap<_, _>>>()?;
            let weights = Weights::from_parts(tensors, settings.weights_sha256, "the model file".into());
            return Ok(builder.restore(weights)?);
        }
        let Some(weights) = weights else {
            return Err(ModelFileError::Weights(format!(
                "the model was saved without the weights of `{}`; give their file (SHA-256 {})",
                settings.name, settings.weights_sha256
            ))
            .into());
        };
        Ok(builder.build(weights)?)
    }
}
