//! The memory bank: prototypes of normal patches, and the distance to the nearest as anomaly score.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use masf_core::{Artifact, ArtifactReader, ArtifactWriter, FeaturePyramid, LevelSpec, ScoreMap, Scorer, Scores};
use rayon::prelude::*;

use crate::coreset::{MOST_SQUARED_NORM, check_rows};
use crate::params::check_neighbours;
use crate::reweight::weighed;
use crate::search::{QUERIES_PER_CHUNK, Scratch};
use crate::standardise::Standardiser;
use crate::{ExactSearch, LinearMap, Neighbours, PatchEmbedding, PatchMaps, PrototypeSearch, Result};

/// A bank of normal patch descriptors (PatchCore, Roth et al., CVPR 2022), learned by
/// [`MemoryBankFit`](crate::MemoryBankFit).
///
/// As a [`Scorer`] it gives one map named `memory` on the grid of the finest level: the Euclidean distance of each
/// position's standardised descriptor to the nearest prototype. Image scores of its own exist where
/// [`reweight_neighbours`](crate::MemoryBankParams::reweight_neighbours) is not 0.
#[derive(Debug)]
pub struct MemoryBank {
    embedding: PatchEmbedding,
    standardiser: Option<Standardiser>,
    reduction: Option<LinearMap>,
    search: ExactSearch,
    reweight_neighbours: usize,
}

impl MemoryBank {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.memory-bank";
    /// The name of the score map.
    pub const MAP: &'static str = "memory";

    pub(crate) fn new(
        embedding: PatchEmbedding,
        standardiser: Option<Standardiser>,
        reduction: Option<LinearMap>,
        search: ExactSearch,
        reweight_neighbours: usize,
    ) -> Self {
        Self { embedding, standardiser, reduction, search, reweight_neighbours }
    }

    /// How descriptors are made.
    pub fn embedding(&self) -> &PatchEmbedding {
        &self.embedding
    }

    /// The search over the prototypes, which are standardised (and reduced).
    pub fn search(&self) -> &dyn PrototypeSearch {
        &self.search
    }

    /// Standardised (and reduced) descriptors of consecutive positions of an image.
    fn describe(&self, maps: &PatchMaps, image: usize, positions: Range<usize>, rows: &mut Vec<f32>) -> Result<()> {
        let first = positions.start;
        let positions: Vec<usize> = positions.collect();
        rows.resize(positions.len() * self.embedding.dimensions(), 0.0);
        maps.describe(image, &positions, rows)?;
        if let Some(standardiser) = &self.standardiser {
            standardiser.apply(rows);
        }
        if let Some(reduction) = &self.reduction {
            let mut reduced = vec![0.0; positions.len() * reduction.output()];
            check_rows("the descriptor at position", rows, self.embedding.dimensions(), first)?;
            reduction.apply_to(rows, &mut reduced)?;
            *rows = reduced;
        }
        check_rows("the descriptor at position", rows, self.search.dimensions(), first)
    }

    /// The nearest prototype of every position of the batch, image after image.
    fn nearest(&self, maps: &PatchMaps) -> Result<Neighbours> {
        let positions = maps.positions();
        let chunks = positions.div_ceil(QUERIES_PER_CHUNK);
        let parts: Vec<Neighbours> = (0..maps.batch_size() * chunks)
            .into_par_iter()
            .map_init(
                || (Scratch::default(), Vec::new()),
                |(scratch, rows), task| {
                    let start = task % chunks * QUERIES_PER_CHUNK;
                    let end = (start + QUERIES_PER_CHUNK).min(positions);
                    self.describe(maps, task / chunks, start..end, rows)?;
                    self.search.nearest_of_chunk(rows, 1, scratch)
                },
            )
            .collect::<Result<_>>()?;
        let mut all = Neighbours { k: 1, ..Neighbours::default() };
        for part in parts {
            all.indices.extend(part.indices);
            all.distances.extend(part.distances);
        }
        Ok(all)
    }

    /// The re-weighted score of every image.
    fn image_scores(&self, maps: &PatchMaps, nearest: &Neighbours) -> Result<Vec<f32>> {
        let positions = maps.positions();
        let mut row = Vec::new();
        let images = nearest.distances.chunks_exact(positions).zip(nearest.indices.chunks_exact(positions));
        images
            .enumerate()
            .map(|(image, (distances, indices))| {
                let mut farthest = (0, f32::NEG_INFINITY);
                for (position, distance) in distances.iter().enumerate() {
                    if *distance > farthest.1 {
                        farthest = (position, *distance);
                    }
                }
                let (position, distance) = farthest;
                self.describe(maps, image, position..position + 1, &mut row)?;
                weighed(&self.search, &row, indices[position], distance, self.reweight_neighbours)
            })
            .collect()
    }
}

impl Scorer for MemoryBank {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let maps = self.embedding.open(pyramid)?;
        let nearest = self.nearest(&maps)?;
        let image = match self.reweight_neighbours {
            0 => None,
            _ => Some(Tensor::from_vec(self.image_scores(&maps, &nearest)?, maps.batch_size(), &Device::Cpu)?),
        };
        let (height, width) = maps.grid();
        let values = Tensor::from_vec(nearest.distances, (maps.batch_size(), height, width), &Device::Cpu)?;
        Ok(Scores { maps: vec![ScoreMap { name: Self::MAP.to_owned(), values }], image })
    }
}

/// What a model file says of a bank beside its tensors.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    levels: Vec<LevelSpec>,
    neighbourhood: usize,
    standardised: bool,
    reduced: Option<usize>,
    reweight_neighbours: usize,
}

impl Artifact for MemoryBank {
    fn tag(&self) -> &'static str {
        Self::TAG
    }

    fn write(&self, writer: &mut ArtifactWriter) -> masf_core::Result<()> {
        writer.section(&Settings {
            levels: self.embedding.levels().to_vec(),
            neighbourhood: self.embedding.neighbourhood(),
            standardised: self.standardiser.is_some(),
            reduced: self.reduction.as_ref().map(LinearMap::output),
            reweight_neighbours: self.reweight_neighbours,
        })?;
        let shape = (self.search.count(), self.search.dimensions());
        writer.tensor("prototypes", &Tensor::from_slice(self.search.prototypes(), shape, &Device::Cpu)?)?;
        if let Some(reduction) = &self.reduction {
            let shape = (reduction.input(), reduction.output());
            writer.tensor("reduction", &Tensor::from_slice(reduction.matrix(), shape, &Device::Cpu)?)?;
        }
        if let Some(Standardiser { mean, factor }) = &self.standardiser {
            writer.tensor("mean", &Tensor::from_slice(mean, mean.len(), &Device::Cpu)?)?;
            writer.tensor("factor", &Tensor::from_slice(factor, factor.len(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    fn read(reader: &ArtifactReader<'_>) -> masf_core::Result<Self> {
        let settings: Settings = reader.section()?;
        let invalid = |error: crate::MemoryError| reader.invalid(error.to_string());
        let embedding = PatchEmbedding::new(settings.levels, settings.neighbourhood).map_err(invalid)?;
        check_neighbours(settings.reweight_neighbours).map_err(invalid)?;
        let dimensions = embedding.dimensions();
        let vector = |name| -> masf_core::Result<Vec<f32>> {
            Ok(reader.tensor(name, DType::F32, &[Some(dimensions)])?.to_vec1::<f32>()?)
        };
        let standardiser = match settings.standardised {
            true => Some(Standardiser { mean: vector("mean")?, factor: vector("factor")? }),
            false => None,
        };
        if let Some(standardiser) = &standardiser {
            if standardiser.factor.iter().any(|factor| *factor <= 0.0) {
                return Err(reader.invalid("a factor of the standardisation is not positive"));
            }
            if standardiser.mean.iter().any(|mean| mean.abs() > MOST_SQUARED_NORM) {
                return Err(reader.invalid("a mean of the standardisation is out of range"));
            }
        }
        let reduction = match settings.reduced {
            Some(output) => {
                let matrix = reader.tensor("reduction", DType::F32, &[Some(dimensions), Some(output)])?;
                let matrix = matrix.flatten_all()?.to_vec1::<f32>()?;
                Some(LinearMap::new(matrix, dimensions, output).map_err(invalid)?)
            }
            None => None,
        };
        let kept = settings.reduced.unwrap_or(dimensions);
        let prototypes = reader.tensor("prototypes", DType::F32, &[None, Some(kept)])?;
        let search = ExactSearch::new(prototypes.flatten_all()?.to_vec1::<f32>()?, kept).map_err(invalid)?;
        Ok(Self::new(embedding, standardiser, reduction, search, settings.reweight_neighbours))
    }
}
