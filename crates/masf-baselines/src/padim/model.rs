//! The learned Gaussians, and the distance from them.

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, ScoreMap, Scorer, Scores};
use rayon::prelude::*;

use super::cholesky::{packed_len, solved_norm};
use super::embedding::Embedding;
use crate::{BaselineError, Result};

/// A learned PaDiM model.
///
/// One map named `padim` on the grid of the finest level: the Mahalanobis distance of every position, `[B, h, w]`.
#[derive(Debug)]
pub struct Padim {
    embedding: Embedding,
    /// `[positions, d]`.
    means: Vec<f32>,
    /// `[positions, d (d + 1) / 2]`: Cholesky factors, the rows of the lower triangle.
    factors: Vec<f32>,
}

impl Padim {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.padim";
    /// The name of the score map.
    pub const MAP: &'static str = "padim";

    pub(super) fn new(embedding: Embedding, means: Vec<f32>, factors: Vec<f32>) -> Result<Self> {
        let dimensions = embedding.channels.len();
        for (position, factor) in factors.chunks_exact(packed_len(dimensions)).enumerate() {
            let width = embedding.grid().1;
            let (row, column) = (position / width, position % width);
            for pivot in 0..dimensions {
                let value = factor[packed_len(pivot) + pivot];
                if !(value > 0.0 && value.is_finite()) {
                    return Err(BaselineError::Covariance { row, column, pivot, value: f64::from(value) });
                }
            }
        }
        Ok(Self { embedding, means, factors })
    }

    /// The channels in use, counted through all levels, ascending.
    pub fn channels(&self) -> &[usize] {
        &self.embedding.channels
    }
}

impl Scorer for Padim {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let mut rows = self.embedding.rows(pyramid)?;
        let (height, width) = self.embedding.grid();
        let (positions, dimensions) = (height * width, self.embedding.channels.len());
        let packed = packed_len(dimensions);
        let score = |(index, row): (usize, &mut [f32])| {
            let position = index % positions;
            for (value, mean) in row.iter_mut().zip(&self.means[position * dimensions..]) {
                *value -= mean;
            }
            solved_norm(&self.factors[position * packed..][..packed], row)
        };
        let scores: Vec<f32> = rows.par_chunks_exact_mut(dimensions).enumerate().map(score).collect();
        if let Some(index) = scores.iter().position(|value| !value.is_finite()) {
            let (image, position) = (index / positions, index % positions);
            let (row, column) = (position / width, position % width);
            return Err(BaselineError::NonFinite { image, row, column, value: scores[index] }.into());
        }
        let values = Tensor::from_vec(scores, (pyramid.batch_size(), height, width), &Device::Cpu)?;
        Ok(Scores { maps: vec![ScoreMap { name: Self::MAP.to_owned(), values }], image: None })
    }
}

impl Artifact for Padim {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&self.embedding)?;
        let (height, width) = self.embedding.grid();
        let dimensions = self.embedding.channels.len();
        let tensor = |values: &[f32], columns| Tensor::from_slice(values, (height * width, columns), &Device::Cpu);
        writer.tensor("mean", &tensor(&self.means, dimensions)?)?;
        writer.tensor("factor", &tensor(&self.factors, packed_len(dimensions))?)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let embedding: Embedding = reader.section()?;
        let invalid = |error: BaselineError| reader.invalid(error.to_string());
        embedding.check().map_err(invalid)?;
        let dimensions = embedding.channels.len();
        let (height, width) = embedding.grid();
        let tensor = |name, columns| -> masf_core::Result<Vec<f32>> {
            let tensor = reader.tensor(name, DType::F32, &[Some(height * width), Some(columns)])?;
            Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
        };
        let (means, factors) = (tensor("mean", dimensions)?, tensor("factor", packed_len(dimensions))?);
        Self::new(embedding, means, factors).map_err(invalid)
    }
}
