//! The student, one step after the other.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{D, Device, Tensor};
use masf_core::artifact::check_shape;

use super::network::Network;
use super::optimiser::Optimiser;
use crate::networks::blueprint;
use crate::weights::read_file;
use crate::{BackboneError, Result};

/// Gradients longer than this are shortened.
const CLIP: f64 = 5.0;
/// Weights of the levels in the loss, finest first.
const LEVEL_WEIGHTS: [f64; 3] = [0.5, 1.0, 1.0];
/// Weight of the cosine part of the loss beside the squared error.
const COSINE: f64 = 0.5;

/// The learning rate over the steps: a linear warm-up, then constant, then down to a hundredth along a cosine.
///
/// The constant stretch can be continued at will: a checkpoint from it is a start for a longer training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The constant rate.
    pub rate: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// The step at which the descent begins.
    pub descent: u64,
    /// The last step.
    pub end: u64,
}

impl Schedule {
    /// The rate at a step.
    pub fn at(&self, step: u64) -> f64 {
        let warm = (step + 1) as f64 / self.warmup.max(1) as f64;
        if step < self.descent {
            return self.rate * warm.min(1.0);
        }
        let done = (step - self.descent) as f64 / self.end.saturating_sub(self.descent).max(1) as f64;
        self.rate * warm.min(1.0) * (0.505 + 0.495 * (std::f64::consts::PI * done.min(1.0)).cos())
    }
}

/// The student in training.
pub struct Trainer {
    network: Network,
    optimiser: Optimiser,
}

impl Trainer {
    /// A student with fresh weights: the network of a name of the registry, such as `masf-nano`.
    ///
    /// # Errors
    /// Unknown names, and networks that cannot be trained here.
    pub fn new(name: &str, seed: u64) -> Result<Self> {
        let network = masf_models::find(name).and_then(|model| blueprint(model.architecture));
        let network = network.ok_or_else(|| BackboneError::argument("network to train", name, "`masf-nano`"))?;
        let network = Network::new(&network, seed)?;
        Ok(Self { optimiser: Optimiser::new(network.variables())?, network })
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.optimiser.step
    }

    /// One step on normalised images `[B, 3, H, W]` towards targets `[B, h, w, C]`, finest first; each level's share of the targets'
    /// variance that is not explained yet.
    ///
    /// # Errors
    /// Shapes that do not fit; values that are not finite, if the rate is too high.
    pub fn step(&mut self, images: &Tensor, targets: &[Tensor], rate: f64) -> Result<Vec<f32>> {
        let (loss, errors) = Self::loss(&self.network, images, targets)?;
        let gradients = loss.backward()?;
        self.optimiser.step(&gradients, rate, CLIP)?;
        Ok(errors)
    }

    /// As [`step`](Self::step) gives it, for the averaged weights, without learning.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn evaluate(&mut self, images: &Tensor, targets: &[Tensor]) -> Result<Vec<f32>> {
        let Self { network, optimiser } = self;
        optimiser.with_average(|| Ok(Self::loss(network, images, targets)?.1))
    }

    fn loss(network: &Network, images: &Tensor, targets: &[Tensor]) -> Result<(Tensor, Vec<f32>)> {
        let maps = network.forward(&images.permute((0, 2, 3, 1))?.contiguous()?)?;
        if maps.len() != targets.len() {
            return Err(BackboneError::argument("number of targets", targets.len(), format!("{}", maps.len())));
        }
        let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
        let mut errors = Vec::with_capacity(maps.len());
        for (index, (map, target)) in maps.iter().zip(targets).enumerate() {
            let error = (map - target)?.sqr()?.mean_all()?;
            let lengths = (map.sqr()?.sum(D::Minus1)? * target.sqr()?.sum(D::Minus1)?)?;
            let cosine = ((map * target)?.sum(D::Minus1)? / (lengths + 1e-6)?.sqrt()?)?.mean_all()?;
            errors.push(error.to_scalar::<f32>()? / target.sqr()?.mean_all()?.to_scalar::<f32>()?.max(1e-12));
            let part = (error + cosine.affine(-COSINE, COSINE)?)?;
            loss = (loss + (part * LEVEL_WEIGHTS.get(index).copied().unwrap_or(1.0))?)?;
        }
        Ok((loss, errors))
    }

    /// Writes a checkpoint with other tensors beside the trainer's own (whose names begin with `value.`, `first.`, `second.` and
    /// `average.`), in one step.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: &Path, others: BTreeMap<String, Tensor>) -> Result<()> {
        let mut tensors = self.optimiser.tensors()?;
        tensors.extend(others);
        write(path, &tensors, Some(HashMap::from([("step".to_owned(), self.optimiser.step.to_string())])))
    }

    /// Continues from a checkpoint; all of its tensors. After an error the trainer is as it was.
    ///
    /// # Errors
    /// A file that cannot be read or is no checkpoint of this network.
    pub fn resume(&mut self, path: &Path) -> Result<BTreeMap<String, Tensor>> {
        let bytes = read_file(path)?;
        let broken = |reason: String| BackboneError::Container { origin: path.display().to_string(), reason };
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let step = header.metadata().as_ref().and_then(|metadata| metadata.get("step")?.parse().ok());
        let step = step.ok_or_else(|| broken("it has no number of steps, so it is no checkpoint".into()))?;
        for (name, info) in header.tensors() {
            check_shape(&info.shape).map_err(|problem| broken(format!("tensor `{name}`: {problem}")))?;
        }
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        let tensors: BTreeMap<String, Tensor> =
            tensors.map_err(|error| broken(error.to_string()))?.into_iter().collect();
        self.optimiser.restore(&tensors, step).map_err(|error| broken(error.to_string()))?;
        Ok(tensors)
    }

    /// Writes the averaged weights as a file for [`Backbone::builder`](crate::Backbone::builder). The statistics of the norms are those of
    /// all batches of normalised images `[B, 3, H, W]` together, each image alike.
    ///
    /// # Errors
    /// No batches, or what the file system says.
    pub fn export(&mut self, path: &Path, batches: impl Iterator<Item = Result<Tensor>>) -> Result<()> {
        let Self { network, optimiser } = self;
        let tensors = optimiser.with_average(|| {
            // The statistics are those of the rounded weights, so that rounding shifts no channel.
            network.round_kernels()?;
            // Mean, and mean of squares: (variance + mean^2) averaged over images.
            let mut total: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
            let mut count = 0.0;
            for images in batches {
                let images = images?;
                network.forward(&images.permute((0, 2, 3, 1))?.contiguous()?)?;
                let statistics = network.statistics();
                let weight = images.dim(0)? as f64;
                count += weight;
                total.resize_with(statistics.len(), Default::default);
                for (total, (mean, variance)) in total.iter_mut().zip(statistics) {
                    total.0.resize(mean.len(), 0.0);
                    total.1.resize(mean.len(), 0.0);
                    for (c, (mean, variance)) in mean.iter().zip(variance).enumerate() {
                        total.0[c] += weight * mean;
                        total.1[c] += weight * (variance + mean * mean);
                    }
                }
            }
            if total.is_empty() {
                return Err(BackboneError::argument("number of batches", 0, "at least one"));
            }
            for (mean, square) in &mut total {
                for (mean, square) in mean.iter_mut().zip(square) {
                    *mean /= count;
                    *square = (*square / count - *mean * *mean).max(0.0);
                }
            }
            network.tensors(&total)
        })?;
        write(path, &tensors, None)
    }
}

/// Writes a safetensors file whole or not at all.
fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: Option<HashMap<String, String>>) -> Result<()> {
    let bytes = safetensors::serialize(tensors, metadata)
        .map_err(|error| BackboneError::Container { origin: path.display().to_string(), reason: error.to_string() })?;
    masf_core::replace_file(path, |temporary| std::fs::write(temporary, bytes))
        .map_err(|source| BackboneError::io(path, source))
}
