//! From a name, weights and choices to a [`Backbone`].

use std::path::Path;

use candle_core::Device;
use masf_core::{LevelSpec, Normalisation};
use masf_models::Model;

use super::Backbone;
use super::executor::Executor;
use crate::networks::{self, Blueprint};
use crate::weights::{Problem, Problems, Weights, check};
use crate::{BackboneError, Result};

/// Which maps a backbone gives.
#[derive(Debug, Clone)]
enum Maps {
    All,
    Strides(Vec<usize>),
    Layers(Vec<String>),
}

/// Makes a [`Backbone`]: choose maps, device and normalisation, then give the weights.
#[derive(Debug, Clone)]
pub struct BackboneBuilder {
    model: &'static Model,
    network: Blueprint,
    maps: Maps,
    normalisation: Normalisation,
    device: Device,
}

impl BackboneBuilder {
    pub(super) fn new(name: &str) -> Result<Self> {
        let (model, network) = networks::find(name)?;
        let normalisation = Normalisation { mean: model.mean, std: model.std };
        Ok(Self { model, network, maps: Maps::All, normalisation, device: Device::Cpu })
    }

    /// Gives the network's default maps at these strides, such as `[8, 16]`; all that it has by default.
    #[must_use]
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.maps = Maps::Strides(strides.to_vec());
        self
    }

    /// Gives the maps of named layers, such as `["layer2", "layer3"]`; their strides must differ.
    ///
    /// ResNets: `maxpool`, `layer{L}` and `layer{L}.{block}`. ResNet-50 v2: `stem`, `layer{L}.{block}` (the residual sum, signed) and
    /// `layer{L}.out` (the sum after the next activation; the default). MobileNetV2: `features.{N}`, and within a block
    /// `features.{N}.expand` and `.depthwise`.
    #[must_use]
    pub fn layers(mut self, layers: &[&str]) -> Self {
        self.maps = Maps::Layers(layers.iter().map(|&layer| layer.to_owned()).collect());
        self
    }

    /// Computes on this device; the CPU by default.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The normalisation that images get, for weights trained with another one than the registry says.
    #[must_use]
    pub fn normalisation(mut self, normalisation: Normalisation) -> Self {
        self.normalisation = normalisation;
        self
    }

    /// Reads the weights from a safetensors file (`f32`, `f16` or `bf16`).
    ///
    /// # Errors
    /// As [`Weights::read`] and [`build`](Self::build).
    pub fn load(self, path: &Path) -> Result<Backbone> {
        self.check_choices()?;
        self.build(Weights::read(path)?)
    }

    /// Takes the weights that are part of `masf-models`.
    ///
    /// ```
    /// # #[cfg(feature = "embedded")] {
    /// let backbone = masf_backbone::Backbone::builder("masf-nano")?.strides(&[8, 16]).embedded()?;
    /// # }
    /// # Ok::<(), masf_backbone::BackboneError>(())
    /// ```
    ///
    /// # Errors
    /// [`BackboneError::Argument`] for a model whose weights are not embedded, and as [`build`](Self::build).
    pub fn embedded(self) -> Result<Backbone> {
        self.check_choices()?;
        let name = self.model.name;
        let weights = Weights::embedded(name)?.ok_or_else(|| {
            BackboneError::argument("weights", format!("missing for `{name}`"), "a file of weights; none are embedded")
        })?;
        self.build(weights)
    }

    /// Downloads the weights from the hub, or takes them from the cache.
    ///
    /// # Errors
    /// As [`Hub::fetch`](crate::hub::Hub::fetch) and [`build`](Self::build).
    #[cfg(feature = "hub")]
    pub fn download(self, hub: &crate::hub::Hub, progress: &dyn masf_core::Progress) -> Result<Backbone> {
        self.check_choices()?;
        let fetched = hub.fetch(self.model, progress)?;
        self.build(fetched.weights)
    }

    /// Makes the backbone from weights.
    ///
    /// # Errors
    /// [`BackboneError::Argument`] for maps that the network does not have, [`BackboneError::Weights`] names every tensor that is
    /// missing, unknown, of another shape or not finite, and the network that the weights do belong to.
    pub fn build(self, weights: Weights) -> Result<Backbone> {
        let layers = self.check_choices()?;
        let required = self.network.requirements();
        let mut problems = check(&weights, &required, |name| self.network.ignores(name));
        let values = |problem: &Problem| matches!(problem, Problem::NotFinite { .. } | Problem::Negative { .. });
        // Some files have the tensors of another network and differ in padding or input only: the hash tells.
        let other = match networks::by_hash(&weights) {
            None if !problems.iter().all(values) => networks::identify(&weights),
            known => known.filter(|known| known.name != self.model.name),
        };
        if problems.is_empty() && other.is_none() {
            return self.assemble(layers, weights);
        }
        let hint = other.map(|other| format!("; these are the weights of `{}`", other.name));
        if problems.is_empty() {
            problems.push(Problem::OtherNetwork);
        }
        Err(BackboneError::Weights {
            origin: weights.origin().into(),
            network: self.model.name.into(),
            problems: Problems(problems),
            hint,
        })
    }

    /// As [`build`](Self::build), from the tensors that a model file holds: those that the layers need and no others.
    pub(super) fn restore(self, weights: Weights) -> Result<Backbone> {
        let layers = self.check_choices()?;
        let problems = check(&weights, &self.network.select(&layers).requirements(), |_| false);
        if problems.is_empty() {
            return self.assemble(layers, weights);
        }
        Err(BackboneError::Weights {
            origin: weights.origin().into(),
            network: self.model.name.into(),
            problems: Problems(problems),
            hint: None,
        })
    }

    /// The names of the tensors that the chosen maps need.
    pub(super) fn needed(&self) -> Result<Vec<String>> {
        let layers = self.check_choices()?;
        Ok(self.network.select(&layers).requirements().into_iter().map(|needed| needed.name).collect())
    }

    fn assemble(self, layers: Vec<String>, mut weights: Weights) -> Result<Backbone> {
        let network = self.network.select(&layers);
        let needed: std::collections::BTreeSet<_> = network.requirements().into_iter().map(|r| r.name).collect();
        weights.retain(|name| needed.contains(name));
        let graph = network.assemble(&weights, &self.device)?;
        let levels = graph.taps.iter().map(|tap| LevelSpec { stride: tap.stride, channels: tap.channels }).collect();
        let executor = Executor::new(graph, &self.device)?;
        let Self { model, normalisation, device, .. } = self;
        Ok(Backbone { model, layers, levels, normalisation, device, weights, executor })
    }

    /// The layers of the chosen maps, finest first.
    fn check_choices(&self) -> Result<Vec<String>> {
        let Normalisation { mean, std } = self.normalisation;
        if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_finite() && *std > 0.0) {
            let expected = "finite means and positive standard deviations";
            return Err(BackboneError::argument("normalisation", format!("{:?}", self.normalisation), expected));
        }
        let mut chosen: Vec<(usize, &str)> = match &self.maps {
            Maps::All => self.network.maps().map(|(name, stride)| (stride, name)).collect(),
            Maps::Strides(strides) => strides.iter().map(|&stride| self.at_stride(stride)).collect::<Result<_>>()?,
            Maps::Layers(layers) => layers.iter().map(|layer| self.layer(layer)).collect::<Result<_>>()?,
        };
        chosen.sort_unstable();
        if chosen.is_empty() {
            return Err(BackboneError::argument("strides", "empty", "at least one, such as [8, 16]"));
        }
        if let Some([(stride, _), _]) = chosen.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(BackboneError::argument("strides", format!("{stride} twice"), "one map for each stride"));
        }
        Ok(chosen.into_iter().map(|(_, name)| name.to_owned()).collect())
    }

    fn at_stride(&self, stride: usize) -> Result<(usize, &str)> {
        let found = self.network.maps().find(|(_, offered)| *offered == stride);
        let (name, stride) = found.ok_or_else(|| {
            let offered: Vec<_> = self.network.maps().map(|(_, stride)| stride).collect();
            BackboneError::argument("stride", stride, format!("one of {offered:?}, which `{}` has", self.model.name))
        })?;
        Ok((stride, name))
    }

    fn layer<'a>(&self, layer: &'a str) -> Result<(usize, &'a str)> {
        let map = self.network.map(layer).ok_or_else(|| {
            let known: Vec<_> = self.network.names().collect();
            BackboneError::argument("layer", format!("`{layer}`"), format!("one of {}", known.join(", ")))
        })?;
        Ok((map.stride, layer))
    }
}
