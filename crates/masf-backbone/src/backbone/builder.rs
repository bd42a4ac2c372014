//! From a name, weights and choices to a [`Backbone`].

use std::path::Path;

use candle_core::Device;
use masf_core::Normalisation;
use masf_models::Model;

use super::Backbone;
use super::executor::Prepared;
use crate::engine::Precision;
use crate::networks::{self, Layer, Network};
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
    network: Network,
    maps: Maps,
    normalisation: Normalisation,
    device: Device,
    precision: Precision,
}

impl BackboneBuilder {
    pub(super) fn new(name: &str) -> Result<Self> {
        let (model, network) = networks::find(name)?;
        let normalisation = Normalisation { mean: model.mean, std: model.std };
        Ok(Self { model, network, maps: Maps::All, normalisation, device: Device::Cpu, precision: Precision::F32 })
    }

    /// Gives the network's default maps at these strides, such as `[8, 16]`; all that it has by default. Vision transformers have
    /// several at one stride.
    #[must_use]
    pub fn strides(mut self, strides: &[usize]) -> Self {
        self.maps = Maps::Strides(strides.to_vec());
        self
    }

    /// Gives the maps of named layers, such as `["layer2", "layer3"]`, finest first, and in the network's order at one stride.
    ///
    /// `masf-nano`: `stage{N}`, and `map{N}` (its linear projection; the default), 1 to 3. ResNets: `maxpool`, `layer{L}` and
    /// `layer{L}.{block}`. ResNet-50 v2: `stem`, `layer{L}.{block}` (the residual sum, signed) and `layer{L}.out` (the sum after the next
    /// activation; the default). MobileNetV2: `features.{N}`, and within a block `features.{N}.expand`, `.depthwise` and, where
    /// no residual sum follows, `.project`. Vision transformers: `blocks.{N}` (the residual sum) and `blocks.{N}.norm` (the sum after the
    /// network's last layer norm; the default), 0 to 11.
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

    /// Multiplies with this precision; `f32` by default. `bf16` is for convolutional networks on the CPU.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
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

    /// Downloads the weights from the hub, or takes them from the cache. A first download that does not fit the network is not kept.
    ///
    /// # Errors
    /// As [`Hub::fetch`](crate::hub::Hub::fetch) and [`build`](Self::build).
    #[cfg(feature = "hub")]
    pub fn download(self, hub: &crate::hub::Hub, progress: &dyn masf_core::Progress) -> Result<Backbone> {
        self.check_choices()?;
        let crate::hub::Fetched { path, weights, trust, downloaded } = hub.fetch(self.model, progress)?;
        self.build(weights).map_err(|mut error| {
            // The hash of a first file that does not fit is none to hold on to.
            if trust == crate::hub::Trust::FirstUse
                && let BackboneError::Weights { hint, .. } = &mut error
            {
                crate::hub::forget(&path, downloaded);
                let left = if downloaded { "; it was not kept" } else { "; delete it to download the published file" };
                hint.get_or_insert_default().push_str(left);
            }
            error
        })
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
        let levels = network.levels();
        let granularity = network.granularity();
        let executor = Prepared::new(network, &weights, &self.device, self.precision)?;
        let Self { model, normalisation, device, precision, .. } = self;
        Ok(Backbone { model, layers, levels, granularity, normalisation, device, precision, weights, executor })
    }

    /// The layers of the chosen maps, finest first.
    fn check_choices(&self) -> Result<Vec<String>> {
        let Normalisation { mean, std } = self.normalisation;
        if !mean.iter().all(|mean| mean.is_finite()) || !std.iter().all(|std| std.is_finite() && *std > 0.0) {
            let expected = "finite means and positive standard deviations";
            return Err(BackboneError::argument("normalisation", format!("{:?}", self.normalisation), expected));
        }
        let engine = self.device.is_cpu() && matches!(self.network, Network::Convolutional(_));
        if self.precision != Precision::F32 && !engine {
            let expected = "f32; bf16 is for convolutional networks on the CPU";
            return Err(BackboneError::argument("precision", format!("{:?}", self.precision), expected));
        }
        let mut chosen: Vec<(Layer, &str)> = Vec::new();
        match &self.maps {
            Maps::All => chosen.extend(self.offered()),
            Maps::Strides(strides) => {
                for &stride in strides {
                    chosen.extend(self.at_stride(stride)?);
                }
            }
            Maps::Layers(layers) => {
                for layer in layers {
                    chosen.push((self.layer(layer)?, layer));
                }
            }
        }
        chosen.sort_unstable();
        let what = if matches!(self.maps, Maps::Layers(_)) { "layers" } else { "strides" };
        if chosen.is_empty() {
            return Err(BackboneError::argument(what, "empty", "at least one"));
        }
        if let Some([(_, name), _]) = chosen.array_windows().find(|[a, b]| a == b) {
            return Err(BackboneError::argument(what, format!("`{name}` twice"), "each once"));
        }
        Ok(chosen.into_iter().map(|(_, name)| name.to_owned()).collect())
    }

    /// The default maps.
    fn offered(&self) -> impl Iterator<Item = (Layer, &str)> {
        self.network.maps().iter().filter_map(|name| Some((self.network.layer(name)?, name.as_str())))
    }

    fn at_stride(&self, stride: usize) -> Result<Vec<(Layer, &str)>> {
        let found: Vec<_> = self.offered().filter(|(layer, _)| layer.stride == stride).collect();
        if found.is_empty() {
            let mut offered: Vec<_> = self.offered().map(|(layer, _)| layer.stride).collect();
            offered.dedup();
            let expected = format!("one of {offered:?}, which `{}` has", self.model.name);
            return Err(BackboneError::argument("stride", stride, expected));
        }
        Ok(found)
    }

    fn layer(&self, name: &str) -> Result<Layer> {
        self.network.layer(name).ok_or_else(|| {
            let known = self.network.names().join(", ");
            BackboneError::argument("layer", format!("`{name}`"), format!("one of {known}"))
        })
    }
}
