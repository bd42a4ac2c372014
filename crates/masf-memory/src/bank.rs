//! The memory bank: prototypes of normal patches, and the distance to the nearest as anomaly score.

use std::ops::Range;

use candle_core::{Device, Tensor};
use masf_core::{FeaturePyramid, ScoreMap, Scorer, Scores};
use rayon::prelude::*;

use crate::patches::Space;
use crate::reweight::weighed;
use crate::search::{Backend, Search, queries_per_task};
use crate::{MemoryBankParams, Neighbours, PatchEmbedding, PatchMaps, PrototypeSearch, Result};

/// A bank of normal patch descriptors (PatchCore, Roth et al., CVPR 2022), learned by
/// [`MemoryBankFit`](crate::MemoryBankFit).
///
/// As a [`Scorer`] it gives one map named `memory` on the grid of the finest level: the Euclidean distance of each
/// position's standardised descriptor to the nearest prototype; with an
/// [`anchor_weight`](crate::MemoryBankParams::anchor_weight) `w` the root of `d^2 + w a^2`, with `d` and `a` the distances
/// of descriptors and of spectral anchors. Image scores of its own exist where
/// [`reweight_neighbours`](crate::MemoryBankParams::reweight_neighbours) is not 0.
#[derive(Debug)]
pub struct MemoryBank {
    pub(crate) space: Space,
    pub(crate) search: Backend,
    /// How the search was made, so that another one can be made of other prototypes.
    pub(crate) choice: Search,
    pub(crate) reweight_neighbours: usize,
}

impl MemoryBank {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.memory-bank";
    /// The name of the score map.
    pub const MAP: &'static str = "memory";

    /// The bank of some rows, searched and scored as the parameters say.
    pub(crate) fn of_rows(space: Space, rows: Vec<f32>, params: &MemoryBankParams) -> Result<Self> {
        let search = Backend::build(rows, space.columns(), params.search, params.seed, None)?;
        Ok(Self { space, search, choice: params.search, reweight_neighbours: params.reweight_neighbours })
    }

    /// How descriptors are made.
    pub fn embedding(&self) -> &PatchEmbedding {
        &self.space.embedding
    }

    /// The search over the prototypes, which are standardised (and reduced), with their anchors behind them where the
    /// bank has some.
    pub fn search(&self) -> &dyn PrototypeSearch {
        self.search.get()
    }

    /// Rows of consecutive positions of an image, with their part of the image's anchors.
    fn describe(
        &self,
        maps: &PatchMaps,
        anchors: &[f32],
        image: usize,
        positions: Range<usize>,
        rows: &mut Vec<f32>,
    ) -> Result<()> {
        let chosen: Vec<usize> = positions.clone().collect();
        self.space.describe(maps, image, &chosen, rows)?;
        let columns = self.space.columns();
        if columns.anchor > 0 {
            let anchors =
                anchors[positions.start * columns.anchor..positions.end * columns.anchor].chunks_exact(columns.anchor);
            *rows = rows
                .chunks_exact(columns.descriptor)
                .zip(anchors)
                .flat_map(|(row, anchor)| [row, anchor])
                .flatten()
                .copied()
                .collect();
        }
        Ok(())
    }

    /// The nearest prototype of every position of an image. A task describes and searches for so few positions that their descriptors stay in
    /// the cache.
    fn nearest(&self, maps: &PatchMaps, anchors: &[f32], image: usize) -> Result<Neighbours> {
        let (positions, search) = (maps.positions(), self.search());
        let per_task = queries_per_task(positions, search.queries_per_task());
        let parts = (0..positions.div_ceil(per_task)).into_par_iter().map_init(Vec::new, |rows, task| {
            let start = task * per_task;
            self.describe(maps, anchors, image, start..(start + per_task).min(positions), rows)?;
            search.nearest(rows, 1)
        });
        Ok(Neighbours::join(1, parts.collect::<Result<_>>()?))
    }

    /// The re-weighted score of an image.
    fn image_score(&self, maps: &PatchMaps, anchors: &[f32], image: usize, nearest: &Neighbours) -> Result<f32> {
        let mut farthest = (0, f32::NEG_INFINITY);
        for (position, distance) in nearest.distances.iter().enumerate() {
            if *distance > farthest.1 {
                farthest = (position, *distance);
            }
        }
        let (position, distance) = farthest;
        let mut row = Vec::new();
        self.describe(maps, anchors, image, position..position + 1, &mut row)?;
        let measured = self.space.columns().measured();
        weighed(self.search(), measured, &row, nearest.indices[position], distance, self.reweight_neighbours)
    }
}

impl Scorer for MemoryBank {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let maps = self.embedding().open(pyramid)?;
        let (height, width) = maps.grid();
        let batch = maps.batch_size();
        let mut distances = Vec::with_capacity(batch * height * width);
        let mut scores = Vec::new();
        for image in 0..batch {
            let anchors = self.space.describe_anchors(pyramid, image)?;
            let nearest = self.nearest(&maps, &anchors, image)?;
            if self.reweight_neighbours > 0 {
                scores.push(self.image_score(&maps, &anchors, image, &nearest)?);
            }
            distances.extend(nearest.distances);
        }
        let image = match self.reweight_neighbours {
            0 => None,
            _ => Some(Tensor::from_vec(scores, batch, &Device::Cpu)?),
        };
        let values = Tensor::from_vec(distances, (batch, height, width), &Device::Cpu)?;
        Ok(Scores { maps: vec![ScoreMap { name: Self::MAP.to_owned(), values }], image })
    }
}
