//! The way of features into the space of a bank that has a reduction: levels are reduced before they are averaged.
//!
//! Averaging sums over positions, standardisation and reduction over channels: `R F (sum_i w_i f_i - m) = sum_i w_i (R F f_i) - R F m`. On the
//! right every feature is mapped once on its own level, where a coarse level has fewer positions than the grid, and what is averaged has
//! the few dimensions of the bank. The same up to rounding; with two levels of 512 and 1024 channels and 256 components half of the work.

use crate::coreset::check_rows;
use crate::patches::Space;
use crate::{LinearMap, MemoryError, PatchMaps, Result};

/// Standardisation and reduction of descriptors, level by level.
#[derive(Debug, Clone)]
pub(crate) struct EarlyReduction {
    /// For every level, finest first: `[channels, reduced dimensions]`.
    levels: Vec<LinearMap>,
    /// What is added to every descriptor.
    constant: Vec<f32>,
}

impl EarlyReduction {
    /// That of a space; `None` where it has no reduction.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if factors and reduction together leave the range of `f32`.
    pub(crate) fn of(space: &Space) -> Result<Option<Self>> {
        let Some(reduction) = &space.reduction else { return Ok(None) };
        let output = reduction.output();
        let mut matrix = reduction.matrix().to_vec();
        let mut constant = vec![0f64; output];
        if let Some(standardiser) = &space.standardiser {
            let scales = standardiser.factor.iter().zip(&standardiser.mean);
            for (row, (factor, mean)) in matrix.chunks_exact_mut(output).zip(scales) {
                for (weight, sum) in row.iter_mut().zip(&mut constant) {
                    *weight *= factor;
                    *sum -= f64::from(*weight) * f64::from(*mean);
                }
            }
        }
        let constant: Vec<f32> = constant.into_iter().map(|sum| sum as f32).collect();
        if let Some(value) = constant.iter().find(|value| !value.is_finite()) {
            return Err(MemoryError::parameter("the reduced mean", value, "finite values"));
        }
        let mut rest = matrix.as_slice();
        let mut levels = Vec::new();
        for level in space.embedding.levels() {
            let (own, tail) = rest.split_at(level.channels * output);
            rest = tail;
            levels.push(LinearMap::new(own.to_vec(), level.channels, output)?);
        }
        Ok(Some(Self { levels, constant }))
    }

    /// Maps whose descriptors are reduced ones, less the constant.
    pub(crate) fn reduce(&self, maps: &PatchMaps) -> Result<PatchMaps> {
        maps.mapped(&self.levels)
    }

    /// Finishes descriptors of reduced maps, counted from `first` on.
    pub(crate) fn finish(&self, rows: &mut [f32], first: usize) -> Result<()> {
        for row in rows.chunks_exact_mut(self.constant.len()) {
            row.iter_mut().zip(&self.constant).for_each(|(value, constant)| *value += constant);
        }
        check_rows("the descriptor at position", rows, self.constant.len(), first)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use masf_core::{FeatureLevel, FeaturePyramid, LevelSpec, random_stream};
    use rand::Rng;

    use super::*;
    use crate::PatchEmbedding;
    use crate::standardise::Standardiser;

    /// Against descriptors that are averaged, standardised and reduced one after the other.
    #[test]
    fn reducing_first_changes_nothing_but_rounding() -> Result<()> {
        let specs = [LevelSpec { stride: 4, channels: 7 }, LevelSpec { stride: 8, channels: 12 }];
        let mut random = random_stream(5, "test.early");
        let mut uniform = |count: usize| (0..count).map(|_| random.random_range(-1.0f32..2.0)).collect::<Vec<_>>();
        let mut levels = Vec::new();
        for (spec, (height, width)) in specs.iter().zip([(9, 6), (5, 3)]) {
            let values = uniform(2 * spec.channels * height * width);
            let map = Tensor::from_vec(values, (2, spec.channels, height, width), &Device::Cpu)?;
            levels.push(FeatureLevel { spec: *spec, map });
        }
        let pyramid = FeaturePyramid::new(levels, (36, 24)).expect("a pyramid");
        for standardised in [false, true] {
            let standardiser = standardised.then(|| Standardiser {
                mean: uniform(19),
                factor: uniform(19).into_iter().map(|value| value.abs() + 0.1).collect(),
            });
            let reduction = Some(LinearMap::random(19, 5, 2, "test")?);
            let embedding = PatchEmbedding::new(specs.to_vec(), 3)?;
            let space = Space { embedding, standardiser, reduction, anchors: None };
            let maps = space.embedding.open(&pyramid)?;
            let early = EarlyReduction::of(&space)?.expect("a reduction");
            let reduced = early.reduce(&maps)?;
            assert_eq!((reduced.grid(), reduced.batch_size()), (maps.grid(), 2));
            for image in 0..2 {
                let positions: Vec<usize> = (0..maps.positions()).collect();
                let mut late = vec![0.0; positions.len() * 19];
                maps.describe(image, &positions, &mut late)?;
                if let Some(standardiser) = &space.standardiser {
                    standardiser.apply(&mut late);
                }
                let late = space.reduction.as_ref().expect("a reduction").apply(&late)?;
                let mut rows = vec![f32::NAN; positions.len() * 5];
                reduced.describe(image, &positions, &mut rows)?;
                early.finish(&mut rows, 0)?;
                for (early, late) in rows.iter().zip(&late) {
                    assert!((early - late).abs() < 1e-5, "{early} {late}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_leaves_the_range_is_refused() -> Result<()> {
        let embedding = PatchEmbedding::new(vec![LevelSpec { stride: 8, channels: 2 }], 1)?;
        let standardiser = Some(Standardiser { mean: vec![3e38; 2], factor: vec![1e20; 2] });
        let reduction = Some(LinearMap::new(vec![1.0, 1.0], 2, 1)?);
        assert!(EarlyReduction::of(&Space { embedding, standardiser, reduction, anchors: None }).is_err());
        Ok(())
    }
}
