//! Learning the Gaussians: one pass for the means, one for the covariances.

use masf_core::{Fit, Progress, PyramidSource, random_stream};
use rand::seq::index::sample;
use rayon::prelude::*;

use super::cholesky::{factorise, packed_len};
use super::embedding::Embedding;
use crate::training::{check, each_batch, levels_of};
use crate::{BaselineError, Padim, Result};

/// Most dimensions of a Gaussian.
pub(super) const MOST_DIMENSIONS: usize = 1024;

/// Hyper-parameters of [`Padim`], not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// ```
/// use masf_baselines::PadimParams;
/// assert!(PadimParams::default().check().is_ok());
/// assert!(PadimParams { regularisation: 0.0, ..PadimParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PadimParams {
    /// Strides of the pyramid levels that are used, ascending; the first gives the grid. Default `[4, 8, 16]`, as in the
    /// paper.
    pub levels: Vec<usize>,
    /// Channels that are kept, drawn at random from those of all levels; all where there are no more. 1 to 1024; the paper has
    /// 100 for ResNet-18 and 550 for Wide-ResNet-50-2. Default 100.
    pub dimensions: usize,
    /// What is added to the diagonal of every covariance, positive. Default 0.01, as in the paper.
    pub regularisation: f64,
    /// Most bytes that learning may hold for means and covariances. Default 512 MiB.
    pub memory_budget: usize,
    /// The seed of the choice of channels.
    pub seed: u64,
}

impl Default for PadimParams {
    fn default() -> Self {
        Self { levels: vec![4, 8, 16], dimensions: 100, regularisation: 0.01, memory_budget: 512 << 20, seed: 0 }
    }
}

impl PadimParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<PadimFit> {
        check::levels(&self.levels)?;
        check::whole("dimensions", self.dimensions, 1, MOST_DIMENSIONS)?;
        if !(self.regularisation > 0.0 && self.regularisation.is_finite()) {
            return Err(BaselineError::parameter("regularisation", self.regularisation, "a positive number"));
        }
        Ok(PadimFit { params: self, channels: None })
    }
}

/// Learns a [`Padim`]; made by [`PadimParams::check`].
///
/// Reads the images twice. The result depends on the images, their order and the hyper-parameters, not on the number of
/// threads.
#[derive(Debug, Clone, PartialEq)]
pub struct PadimFit {
    params: PadimParams,
    channels: Option<Vec<usize>>,
}

impl PadimFit {
    /// Uses these channels, counted through all levels, instead of random ones; 1 to 1024 in any order, each at most once.
    #[must_use]
    pub fn with_channels(mut self, channels: impl Into<Vec<usize>>) -> Self {
        self.channels = Some(channels.into());
        self
    }

    fn embedding(&self, source: &dyn PyramidSource) -> masf_core::Result<Embedding> {
        let levels = levels_of(source, &self.params.levels)?;
        let mut embedding = Embedding { levels, channels: Vec::new() };
        let total = embedding.total();
        let mut channels = match &self.channels {
            Some(channels) => channels.clone(),
            None if self.params.dimensions >= total => (0..total).collect(),
            None => {
                let mut random = random_stream(self.params.seed, "padim.channels");
                sample(&mut random, total, self.params.dimensions).into_vec()
            }
        };
        channels.sort_unstable();
        embedding.channels = channels;
        embedding.check()?;
        Ok(embedding)
    }

    /// Refuses what would not fit: means and covariances in 64 bits, and the finished factors.
    fn check_budget(&self, embedding: &Embedding) -> Result<()> {
        let (height, width) = embedding.grid();
        let (positions, dimensions) = (height * width, embedding.channels.len());
        let values = packed_len(dimensions).saturating_add(dimensions);
        let needed = positions.saturating_mul(values).saturating_mul(size_of::<f64>() + size_of::<f32>());
        if needed > self.params.memory_budget {
            return Err(BaselineError::Budget { budget: self.params.memory_budget, needed, positions, dimensions });
        }
        Ok(())
    }
}

impl Fit for PadimFit {
    type Scorer = Padim;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<Padim> {
        let embedding = self.embedding(source)?;
        self.check_budget(&embedding)?;
        let (height, width) = embedding.grid();
        let (positions, dimensions) = (height * width, embedding.channels.len());
        let images = source.len();

        let mut means = vec![0f64; positions * dimensions];
        each_batch(source, "means", progress, |pyramid| {
            let rows = embedding.rows(pyramid)?;
            means.par_chunks_mut(dimensions).enumerate().for_each(|(position, mean)| {
                for image in rows.chunks_exact(positions * dimensions) {
                    for (sum, value) in mean.iter_mut().zip(&image[position * dimensions..]) {
                        *sum += f64::from(*value);
                    }
                }
            });
            Ok(())
        })?;
        means.iter_mut().for_each(|sum| *sum /= images as f64);

        let packed = packed_len(dimensions);
        let mut covariances = vec![0f64; positions * packed];
        each_batch(source, "covariances", progress, |pyramid| {
            let rows = embedding.rows(pyramid)?;
            covariances.par_chunks_mut(packed).enumerate().for_each(|(position, covariance)| {
                let mean = &means[position * dimensions..][..dimensions];
                let mut centred = vec![0f64; dimensions];
                for image in rows.chunks_exact(positions * dimensions) {
                    for ((centred, value), mean) in centred.iter_mut().zip(&image[position * dimensions..]).zip(mean) {
                        *centred = f64::from(*value) - mean;
                    }
                    add_outer(covariance, &centred);
                }
            });
            Ok(())
        })?;

        let divisor = images.saturating_sub(1).max(1) as f64;
        // The first position without a factor, whichever thread finds one first.
        let refused = covariances.par_chunks_mut(packed).enumerate().find_map_first(|(position, covariance)| {
            covariance.iter_mut().for_each(|sum| *sum /= divisor);
            for i in 0..dimensions {
                covariance[packed_len(i) + i] += self.params.regularisation;
            }
            let (pivot, value) = factorise(covariance, dimensions).err()?;
            Some(BaselineError::Covariance { row: position / width, column: position % width, pivot, value })
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        let means = means.into_iter().map(|value| value as f32).collect();
        let factors = covariances.into_iter().map(|value| value as f32).collect();
        Ok(Padim::new(embedding, means, factors)?)
    }
}

/// Adds the outer product of a vector with itself to a packed lower triangle.
fn add_outer(packed: &mut [f64], vector: &[f64]) {
    let mut rest = packed;
    for (i, a) in vector.iter().enumerate() {
        let (row, tail) = rest.split_at_mut(i + 1);
        for (sum, b) in row.iter_mut().zip(vector) {
            *sum += a * b;
        }
        rest = tail;
    }
}
