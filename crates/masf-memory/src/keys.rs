//! The keys of a shortlist straight from feature maps.
//!
//! A key is a linear map of a descriptor, which is a linear map of features: means over neighbourhoods, a change of size, scales. The order of
//! linear maps may change. Features are projected first, which coarse levels have fewer of than the grid has positions, and only
//! short rows are averaged and resized.

use crate::patches::Space;
use crate::{LinearMap, PatchMaps, Result};

/// From feature maps to keys.
#[derive(Debug)]
pub(crate) struct KeyMaps {
    /// One for each level.
    projections: Vec<LinearMap>,
    /// What is added to the sum over the levels.
    offset: Vec<f32>,
}

impl KeyMaps {
    /// For keys `(row - mean of the prototypes) directions` of the rows of a space, where `origin` is the mean along the directions; `None` where rows
    /// are more than scaled descriptors.
    pub(crate) fn new(space: &Space, directions: &LinearMap, origin: &[f32]) -> Result<Option<Self>> {
        let levels = space.embedding.levels();
        if space.reduction.is_some() || directions.input() != space.embedding.dimensions() {
            return Ok(None);
        }
        let width = directions.output();
        let mut matrix = directions.matrix().to_vec();
        let mut offset: Vec<f64> = origin.iter().map(|origin| -f64::from(*origin)).collect();
        if let Some(standardiser) = &space.standardiser {
            let scales = standardiser.mean.iter().zip(&standardiser.factor);
            for (row, (mean, factor)) in matrix.chunks_exact_mut(width).zip(scales) {
                for (value, offset) in row.iter_mut().zip(&mut offset) {
                    *value *= factor;
                    *offset -= f64::from(*value) * f64::from(*mean);
                }
            }
        }
        let mut rest = matrix.as_slice();
        let mut projections = Vec::with_capacity(levels.len());
        for level in levels {
            let (own, others) = rest.split_at(level.channels * width);
            projections.push(LinearMap::new(own.to_vec(), level.channels, width)?);
            rest = others;
        }
        Ok(Some(Self { projections, offset: offset.into_iter().map(|value| value as f32).collect() }))
    }

    /// Projects the features of an image of a batch.
    pub(crate) fn project(&self, maps: &PatchMaps, image: usize) -> Result<PatchMaps> {
        maps.projected(&self.projections, image)
    }

    /// The keys of some positions of an image, from its projected features.
    pub(crate) fn describe(&self, projected: &PatchMaps, positions: &[usize], keys: &mut Vec<f32>) -> Result<()> {
        let (width, levels) = (self.offset.len(), self.projections.len());
        let mut parts = vec![0.0; positions.len() * levels * width];
        projected.describe(0, positions, &mut parts)?;
        keys.clear();
        for parts in parts.chunks_exact(levels * width) {
            let start = keys.len();
            keys.extend_from_slice(&self.offset);
            for part in parts.chunks_exact(width) {
                keys[start..].iter_mut().zip(part).for_each(|(key, part)| *key += part);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use masf_core::{FeatureLevel, FeaturePyramid, random_stream};
    use rand::Rng;

    use super::*;
    use crate::PatchEmbedding;
    use crate::standardise::Standardiser;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut random = random_stream(seed, "test.keys");
        (0..count).map(|_| random.random_range(-1f32..1.0)).collect()
    }

    #[test]
    fn they_are_the_directions_of_described_rows() -> Result<()> {
        let level = |stride: usize, channels: usize, side: usize| -> Result<FeatureLevel> {
            let values = random(2 * channels * side * (side + 1), stride as u64);
            let map = Tensor::from_vec(values, (2, channels, side, side + 1), &Device::Cpu)?;
            Ok(FeatureLevel { spec: masf_core::LevelSpec { stride, channels }, map })
        };
        let pyramid = FeaturePyramid::new(vec![level(8, 5, 6)?, level(16, 9, 3)?], (48, 56)).unwrap();
        let embedding = PatchEmbedding::of_pyramid(&pyramid, &[8, 16], 3)?;
        let maps = embedding.open(&pyramid)?;
        let (directions, origin) = (LinearMap::new(random(14 * 4, 1), 14, 4)?, random(4, 2));
        let scales = Standardiser { mean: random(14, 3), factor: random(14, 4) };
        let positions = [0, 1, 7, 8, 41, 20];
        for standardiser in [None, Some(scales)] {
            let space = Space { embedding: embedding.clone(), standardiser, reduction: None, anchors: None };
            let keys = KeyMaps::new(&space, &directions, &origin)?.expect("rows are scaled descriptors");
            for image in 0..2 {
                let projected = keys.project(&maps, image)?;
                let (mut rows, mut found) = (Vec::new(), Vec::new());
                space.describe(&maps, image, &positions, &mut rows)?;
                keys.describe(&projected, &positions, &mut found)?;
                let expected = directions.apply(&rows)?;
                for (found, expected) in found.chunks(4).zip(expected.chunks(4)) {
                    for ((found, expected), origin) in found.iter().zip(expected).zip(&origin) {
                        assert!((found - (expected - origin)).abs() < 1e-5, "{found}, expected {}", expected - origin);
                    }
                }
            }
        }
        let reduction = Some(LinearMap::new(random(14 * 4, 5), 14, 4)?);
        let space = Space { embedding, standardiser: None, reduction, anchors: None };
        assert!(KeyMaps::new(&space, &directions, &origin)?.is_none());
        Ok(())
    }
}
