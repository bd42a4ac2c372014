//! The learned descriptor and its bank, and the score.

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, LevelSpec, Scorer, Scores};
use masf_memory::{ExactSearch, PatchEmbedding, PrototypeSearch};
use rayon::prelude::*;

use super::params::CfaParams;
use crate::training::{image_by_image, values};
use crate::{BaselineError, Result};

/// Inputs of the descriptor beside the features: row, column, and the constant 1 of its bias.
pub(super) const EXTRA: usize = 3;
/// Positions of one task.
const GROUP: usize = 64;

/// Patches as the descriptor takes them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patches {
    pub(super) embedding: PatchEmbedding,
    /// `(height, width)` of the grid.
    pub(super) grid: (usize, usize),
    /// What the features of every level are multiplied with.
    pub(super) scales: Vec<f32>,
}

impl Patches {
    pub(super) fn positions(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// Values of a patch: features, row and column from -1 to 1, and 1.
    pub(super) fn dimensions(&self) -> usize {
        self.embedding.dimensions() + EXTRA
    }

    /// The patches of all images `[B positions, dimensions]`, row-major.
    pub(super) fn rows(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Vec<f32>> {
        let maps = self.embedding.open(pyramid)?;
        if maps.grid() != self.grid {
            let (height, width) = self.grid;
            let found = format!("{} x {}", maps.grid().0, maps.grid().1);
            return Err(BaselineError::Levels { expected: format!("a grid of {height} x {width}"), found }.into());
        }
        let (features, dimensions, positions) = (self.embedding.dimensions(), self.dimensions(), self.positions());
        let mut rows = vec![0f32; maps.batch_size() * positions * dimensions];
        for (image, rows) in rows.chunks_exact_mut(positions * dimensions).enumerate() {
            rows.par_chunks_mut(GROUP * dimensions).enumerate().try_for_each(
                |(group, rows)| -> masf_memory::Result<()> {
                    let group: Vec<usize> = (group * GROUP..).take(rows.len() / dimensions).collect();
                    let mut described = vec![0f32; group.len() * features];
                    maps.describe(image, &group, &mut described)?;
                    let described = described.chunks_exact(features);
                    for ((row, described), position) in rows.chunks_exact_mut(dimensions).zip(described).zip(group) {
                        row[..features].copy_from_slice(described);
                        self.complete(row, position);
                    }
                    Ok(())
                },
            )?;
        }
        Ok(rows)
    }

    /// Scales the features of a row and adds what stands beside them.
    pub(super) fn complete(&self, row: &mut [f32], position: usize) {
        let mut rest = &mut *row;
        for (level, scale) in self.embedding.levels().iter().zip(&self.scales) {
            let (own, others) = rest.split_at_mut(level.channels);
            own.iter_mut().for_each(|value| *value *= scale);
            rest = others;
        }
        let along = |index: usize, count: usize| index as f32 / (count.max(2) - 1) as f32 * 2.0 - 1.0;
        let place = [along(position / self.grid.1, self.grid.0), along(position % self.grid.1, self.grid.1), 1.0];
        rest.copy_from_slice(&place);
    }
}

/// A learned CFA model.
///
/// One map named `cfa` on the grid of the finest level, `[B, h, w]`: the distance to the nearest centre times the softmin of the
/// nearest distances, 0 or more.
#[derive(Debug)]
pub struct Cfa {
    params: CfaParams,
    patches: Patches,
    /// `[dimensions of a patch, channels of a descriptor]`, the last row the bias.
    weight: Tensor,
    bank: ExactSearch,
}

impl Cfa {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.cfa";
    /// The name of the score map.
    pub const MAP: &'static str = "cfa";

    pub(super) fn new(params: CfaParams, patches: Patches, weight: Tensor, bank: ExactSearch) -> Self {
        Self { params, patches, weight, bank }
    }

    /// The number of centres.
    pub fn centres(&self) -> usize {
        self.bank.count()
    }

    /// The scores of one image, position by position.
    fn distances(&self, image: &FeaturePyramid) -> masf_core::Result<Vec<f32>> {
        let rows = self.patches.rows(image)?;
        let rows = Tensor::from_vec(rows, (self.patches.positions(), self.patches.dimensions()), &Device::Cpu)?;
        let descriptors = values(&rows.matmul(&self.weight)?)?;
        let count = self.params.nearest.min(self.bank.count());
        let found = self.bank.nearest(&descriptors, count)?;
        Ok(found.distances.chunks_exact(count).map(softmin_score).collect())
    }
}

/// The first of ascending distances times its softmin.
fn softmin_score(distances: &[f32]) -> f32 {
    let first = distances.first().copied().unwrap_or(0.0);
    first / distances.iter().map(|distance| (first - distance).exp()).sum::<f32>()
}

impl Scorer for Cfa {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let (height, width) = self.patches.grid;
        image_by_image(Self::MAP, (height, width), pyramid, |image| {
            Ok(Tensor::from_vec(self.distances(image)?, (1, height, width), &Device::Cpu)?)
        })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    params: CfaParams,
    levels: Vec<LevelSpec>,
    grid: (usize, usize),
    scales: Vec<f32>,
}

impl Artifact for Cfa {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings {
            params: self.params.clone(),
            levels: self.patches.embedding.levels().to_vec(),
            grid: self.patches.grid,
            scales: self.patches.scales.clone(),
        })?;
        writer.tensor("weight", &self.weight)?;
        let shape = (self.bank.count(), self.bank.dimensions());
        writer.tensor("centres", &Tensor::from_slice(self.bank.prototypes(), shape, &Device::Cpu)?)
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let Settings { params, levels, grid, scales } = reader.section()?;
        let read = || -> Result<PatchEmbedding> {
            params.checked()?;
            let sides = (1..=1 << 14).contains(&grid.0) && (1..=1 << 14).contains(&grid.1);
            let scaled = scales.len() == levels.len() && scales.iter().all(|scale| *scale > 0.0 && scale.is_finite());
            let channels = levels.iter().all(|level| level.channels <= 1 << 24);
            if !sides || !scaled || !channels {
                return Err(BaselineError::parameter(
                    "grid, scales or levels",
                    format!("{grid:?}, {scales:?}, {levels:?}"),
                    "those of a model",
                ));
            }
            PatchEmbedding::new(levels.clone(), params.neighbourhood)
                .map_err(|error| BaselineError::parameter("levels", format!("{levels:?}"), error.to_string()))
        };
        let embedding = read().map_err(|error| reader.invalid(error.to_string()))?;
        let patches = Patches { embedding, grid, scales };
        let weight = reader.tensor("weight", DType::F32, &[Some(patches.dimensions()), None])?;
        let channels = weight.dim(1)?;
        let centres = reader.tensor("centres", DType::F32, &[None, Some(channels)])?;
        let bank = ExactSearch::new(values(&centres)?, channels).map_err(|error| reader.invalid(error.to_string()))?;
        Ok(Self::new(params, patches, weight, bank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_distance_times_its_softmin() {
        let (a, b) = ((-1f32).exp(), (-2f32).exp());
        assert!((softmin_score(&[1.0, 2.0]) - a / (a + b)).abs() < 1e-6);
        assert_eq!(softmin_score(&[3.0]), 3.0);
        assert_eq!(softmin_score(&[0.0, 0.0, 5.0]), 0.0);
        // Far away, where exp(-d) is 0.
        assert!((softmin_score(&[1000.0, 1000.0]) - 500.0).abs() < 1e-3);
    }
}
