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

    /// Projects the features of a batch.
    pub(crate) fn project(&self, maps: &PatchMaps) -> Result<PatchMaps> {
        maps.projected(&self.projections)
    }

    /// The keys of some positions of an image, from projected features.
    pub(crate) fn describe(
        &self,
        projected: &PatchMaps,
        image: usize,
        positions: &[usize],
        keys: &mut Vec<f32>,
    ) -> Result<()> {
        let (width, levels) = (self.offset.len(), self.projections.len());
        let mut parts = vec![0.0; positions.len() * levels * width];
        projected.describe(image, positions, &mut parts)?;
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
