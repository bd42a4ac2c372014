//! The memory bank: prototypes of normal patches, and the distance to the nearest as anomaly score.

use candle_core::{Device, Tensor};
use masf_core::{FeaturePyramid, Progress, ScoreMap, Scorer, Scores, in_pool};
use rayon::prelude::*;

use crate::keys::KeyMaps;
use crate::patches::Space;
use crate::reweight::weighed;
use crate::search::{Backend, Search, queries_per_task};
use crate::spare::Spare;
use crate::{MemoryBankParams, Neighbours, PatchEmbedding, PatchMaps, PrototypeSearch, Result};

/// Height and width of a block of positions, whose patches overlap and are alike.
const BLOCK: usize = 2;
/// Positions of a block.
const POSITIONS: usize = BLOCK * BLOCK;

/// A bank of normal patch descriptors (PatchCore, Roth et al., CVPR 2022), learned by
/// [`MemoryBankFit`](crate::MemoryBankFit).
///
/// As a [`Scorer`] it gives one map named `memory` on the grid of the finest level: the Euclidean distance of each
/// position's standardised descriptor to the nearest prototype (that its [`search`](Self::search) finds); with an
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
    /// Where a shortlist's keys can be had from feature maps.
    keys: Option<KeyMaps>,
    /// Rows of patches.
    rows: Spare<Vec<f32>>,
}

impl MemoryBank {
    /// The type tag in model files.
    pub const TAG: &'static str = "masf.memory-bank";
    /// The name of the score map.
    pub const MAP: &'static str = "memory";

    /// The bank of some rows, searched and scored as the parameters say.
    pub(crate) fn of_rows(
        space: Space,
        rows: Vec<f32>,
        params: &MemoryBankParams,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let search = Backend::build(rows, space.columns(), params.search, params.seed, None, progress)?;
        Self::new(space, search, params.search, params.reweight_neighbours)
    }

    /// The bank of a search that was made by `choice`.
    pub(crate) fn new(space: Space, search: Backend, choice: Search, reweight_neighbours: usize) -> Result<Self> {
        let keys = match search.keys() {
            Some((directions, origin)) => KeyMaps::new(&space, directions, origin)?,
            None => None,
        };
        Ok(Self { space, search, choice, reweight_neighbours, keys, rows: Spare::default() })
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

    /// Rows of some positions of an image, with their part of the image's anchors.
    fn describe(
        &self,
        maps: &PatchMaps,
        anchors: &[f32],
        image: usize,
        positions: &[usize],
        rows: &mut Vec<f32>,
    ) -> Result<()> {
        self.space.describe(maps, image, positions, rows)?;
        let columns = self.space.columns();
        if columns.anchor > 0 {
            let anchors = positions.iter().map(|position| &anchors[position * columns.anchor..][..columns.anchor]);
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

    /// The nearest prototype of every position of an image. A task describes and searches for some blocks of positions, whose patches are alike.
    fn nearest(&self, maps: &PatchMaps, anchors: &[f32], image: usize) -> Result<Neighbours> {
        let search = self.search();
        let projected = self.keys.as_ref().map(|keys| keys.project(maps, image)).transpose()?;
        let blocks = blocks(maps.grid());
        // Whole blocks, no more than a thread takes at once.
        let most = (search.queries_per_task() / POSITIONS).max(1) * POSITIONS;
        let per_task = queries_per_task(maps.positions(), most).div_ceil(POSITIONS);
        let tasks = blocks.par_chunks(per_task).map(|blocks| {
            let (positions, lengths) = (blocks.concat(), blocks.iter().map(Vec::len).collect::<Vec<_>>());
            self.rows.with(|rows| match (&self.search, &self.keys, &projected) {
                (Backend::Shortlist(search), Some(keys), Some(projected)) => search.nearest_alike_with(
                    &lengths,
                    1,
                    |out| keys.describe(projected, &positions, out),
                    |range, action| {
                        self.describe(maps, anchors, image, &positions[range], rows)?;
                        action(rows);
                        Ok(())
                    },
                ),
                _ => {
                    self.describe(maps, anchors, image, &positions, rows)?;
                    search.nearest_alike(rows, &lengths, 1)
                }
            })
        });
        // All results first: of several errors the first of the image, not of the fastest thread.
        let parts: Vec<Result<Neighbours>> = tasks.collect();
        let found = Neighbours::join(1, parts.into_iter().collect::<Result<_>>()?);
        let mut nearest = found.clone();
        for (place, position) in blocks.into_iter().flatten().enumerate() {
            nearest.indices[position] = found.indices[place];
            nearest.distances[position] = found.distances[place];
        }
        Ok(nearest)
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
        self.describe(maps, anchors, image, &[position], &mut row)?;
        let measured = self.space.columns().measured();
        weighed(self.search(), measured, &row, nearest.indices[position], distance, self.reweight_neighbours)
    }
}

/// The positions of a grid, block after block; those at its edge may be smaller.
fn blocks((height, width): (usize, usize)) -> Vec<Vec<usize>> {
    let corners = (0..height).step_by(BLOCK).flat_map(|top| (0..width).step_by(BLOCK).map(move |left| (top, left)));
    let of = |(top, left): (usize, usize)| {
        let rows = top..(top + BLOCK).min(height);
        rows.flat_map(|row| (left..(left + BLOCK).min(width)).map(move |column| row * width + column)).collect()
    };
    corners.map(of).collect()
}

impl Scorer for MemoryBank {
    fn score(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        in_pool(|| self.scores(pyramid))
    }
}

impl MemoryBank {
    fn scores(&self, pyramid: &FeaturePyramid) -> masf_core::Result<Scores> {
        let maps = self.embedding().open(pyramid)?;
        let (height, width) = maps.grid();
        let batch = maps.batch_size();
        let mut distances = Vec::with_capacity(batch * height * width);
        let mut scores = Vec::new();
        for image in 0..batch {
            let anchors = self.space.describe_anchors(&maps, image)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_every_position_once() {
        assert_eq!(blocks((3, 3)), [vec![0, 1, 3, 4], vec![2, 5], vec![6, 7], vec![8]]);
        for grid in [(1, 1), (1, 7), (6, 1), (8, 5)] {
            let mut positions = blocks(grid).concat();
            positions.sort_unstable();
            assert!(positions.into_iter().eq(0..grid.0 * grid.1), "{grid:?}");
        }
    }
}
