//! The loss on band amplitudes: the share by which a predicted map has too little or too much of a band of frequencies.
//!
//! For a few channels, drawn anew at every step, `a_k = sqrt(sum_f B_k(f) |X(f)|^2)` with the smooth radial bands `B_k` of masf-spectral; the
//! loss is the mean over bands of `mean (a_k - a_k')^2 / mean a_k'^2`, `a'` of the target. Cosines alone leave
//! amplitudes free, and a blurred prediction costs them little.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use masf_spectral::{DecompositionConfig, Norm, SpectralDecomposition, rfft2};

use crate::grid::{Grid, LevelGrid};
use crate::ops::LevelTargets;

/// Channels that are compared at a step.
pub(crate) const CHANNELS: usize = 16;
/// Keeps roots differentiable.
const EPSILON: f64 = 1e-4;

/// The band responses of one level, made once.
#[derive(Clone)]
pub(crate) struct Bands {
    /// Squared-amplitude weights `[frequencies, bands]`: responses, times two where a column stands for two frequencies.
    responses: Tensor,
    /// Where position `p` of token `n` lies in the map, `[N P]`.
    positions: Arc<Vec<Option<usize>>>,
    size: (usize, usize),
}

/// The loss at one step.
pub(crate) struct BandLoss {
    pub(crate) bands: Bands,
    pub(crate) weight: f32,
    /// The first of the channels compared.
    pub(crate) first: usize,
    /// How many are compared.
    pub(crate) count: usize,
}

impl Bands {
    pub(crate) fn new(grid: &Grid, level: &LevelGrid) -> crate::Result<Self> {
        let (height, width) = (level.height, level.width);
        let split = SpectralDecomposition::fixed(DecompositionConfig::default(), &Device::Cpu)?;
        let responses = split.responses(height, width, DType::F32)?;
        let weights =
            rfft2(&Tensor::zeros((height, width), DType::F32, &Device::Cpu)?, Norm::Ortho)?.column_weights()?;
        let count = responses.dim(0)?;
        let responses = responses.broadcast_mul(&weights)?.reshape((count, ()))?.t()?.contiguous()?;
        Ok(Self { responses, positions: Arc::new(grid.positions(level)), size: (height, width) })
    }

    /// The loss of maps `[M, h, w]` against those of the targets.
    pub(crate) fn loss(&self, maps: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let amplitude = |maps: &Tensor| -> Result<Tensor> {
            let power =
                rfft2(maps, Norm::Ortho).and_then(|spectrum| spectrum.power()).map_err(candle_core::Error::wrap)?;
            let energy = power.reshape((maps.dim(0)?, ()))?.matmul(&self.responses.to_dtype(maps.dtype())?)?;
            (energy + EPSILON)?.sqrt()
        };
        let (found, wanted) = (amplitude(maps)?, amplitude(targets)?.detach());
        let error = (found - &wanted)?.sqr()?.mean(0)?;
        error.div(&wanted.sqr()?.mean(0)?)?.mean_all()
    }
}

impl BandLoss {
    /// The loss times its weight, and the gradient in the predictions of the chosen channels, `[B, count, h w]`.
    pub(crate) fn value_and_gradient(&self, predictions: &[f32], targets: &LevelTargets) -> Result<(f32, Vec<f32>)> {
        let statistics = &targets.statistics;
        let channels = statistics.mean.len();
        let maps = Var::from_tensor(&self.maps(predictions, channels, |value, _| value)?)?;
        let standardise =
            |value: f32, channel: usize| (value - statistics.mean[channel]) / statistics.deviation[channel];
        let wanted = self.maps(&targets.features, channels, standardise)?;
        let loss = (self.bands.loss(&maps, &wanted)? * f64::from(self.weight))?;
        let gradient = match loss.backward()?.remove(&maps) {
            Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>()?,
            None => vec![0.0; wanted.elem_count()],
        };
        Ok((loss.to_scalar::<f32>()?, gradient))
    }

    /// The same in plain operations, for predictions and targets `[B, N P, C]`.
    pub(crate) fn plain(&self, predictions: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (height, width) = self.bands.size;
        let mut order = vec![0u32; height * width];
        for (index, position) in self.bands.positions.iter().enumerate() {
            if let Some(position) = position {
                order[*position] = index as u32;
            }
        }
        let order = Tensor::new(order, predictions.device())?;
        let maps = |values: &Tensor| {
            let chosen = values.narrow(2, self.first, self.count)?.contiguous()?.index_select(&order, 1)?;
            chosen.transpose(1, 2)?.contiguous()?.reshape(((), height, width))
        };
        self.bands.loss(&maps(predictions)?, &maps(targets)?)? * f64::from(self.weight)
    }

    /// The chosen channels of values `[B N, P C]` as maps `[B count, h, w]`.
    fn maps(&self, values: &[f32], channels: usize, change: impl Fn(f32, usize) -> f32) -> Result<Tensor> {
        let positions = &self.bands.positions;
        let (height, width) = self.bands.size;
        let images = values.len() / (positions.len() * channels);
        let mut maps = vec![0f32; images * self.count * height * width];
        for (image, values) in
            maps.chunks_exact_mut(self.count * height * width).zip(values.chunks_exact(positions.len() * channels))
        {
            for (position, row) in positions.iter().zip(values.chunks_exact(channels)) {
                let Some(position) = position else { continue };
                for (index, value) in row[self.first..self.first + self.count].iter().enumerate() {
                    image[index * height * width + position] = change(*value, self.first + index);
                }
            }
        }
        Tensor::from_vec(maps, (images * self.count, height, width), &Device::Cpu)
    }

    /// Adds `scale` times the gradient of the chosen channels to that of all predictions.
    pub(crate) fn add_gradient(&self, out: &mut [f32], gradient: &[f32], scale: f32, channels: usize) {
        let positions = &self.bands.positions;
        let (height, width) = self.bands.size;
        let images = out.chunks_exact_mut(positions.len() * channels);
        for (out, gradient) in images.zip(gradient.chunks_exact(self.count * height * width)) {
            for (position, row) in positions.iter().zip(out.chunks_exact_mut(channels)) {
                let Some(position) = position else { continue };
                for (index, value) in row[self.first..self.first + self.count].iter_mut().enumerate() {
                    *value += scale * gradient[index * height * width + position];
                }
            }
        }
    }
}
