//! Squared distances to chosen centres, and the coupled-hypersphere loss.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::training::{operand, values};

/// Squared distances of descriptors `[N, D]` to `count` centres each, `[N, count]`; differentiable.
pub(super) struct SquaredDistances {
    /// `[M, D]`.
    pub(super) centres: Arc<Vec<f32>>,
    /// `[N, count]`.
    pub(super) chosen: Vec<u32>,
    pub(super) count: usize,
}

impl SquaredDistances {
    fn centre(&self, index: u32, dimensions: usize) -> &[f32] {
        &self.centres[index as usize * dimensions..][..dimensions]
    }
}

impl CustomOp1 for SquaredDistances {
    fn name(&self) -> &'static str {
        "squared-distances"
    }

    fn cpu_fwd(&self, descriptors: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, dimensions) = layout.shape().dims2()?;
        let descriptors = operand(descriptors, layout)?;
        let mut distances = vec![0f32; rows * self.count];
        distances
            .par_chunks_mut(self.count)
            .zip(descriptors.par_chunks(dimensions))
            .zip(self.chosen.par_chunks(self.count))
            .for_each(|((distances, descriptor), chosen)| {
                for (distance, index) in distances.iter_mut().zip(chosen) {
                    let centre = self.centre(*index, dimensions);
                    *distance = descriptor.iter().zip(centre).map(|(a, b)| (a - b) * (a - b)).sum();
                }
            });
        Ok((CpuStorage::F32(distances), Shape::from((rows, self.count))))
    }

    fn bwd(&self, descriptors: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (shape, dimensions) = (descriptors.shape(), descriptors.dim(1)?);
        let (descriptors, gradient) = (values(descriptors)?, values(gradient)?);
        let mut slopes = vec![0f32; descriptors.len()];
        slopes
            .par_chunks_mut(dimensions)
            .zip(descriptors.par_chunks(dimensions))
            .zip(gradient.par_chunks(self.count).zip(self.chosen.par_chunks(self.count)))
            .for_each(|((slopes, descriptor), (gradient, chosen))| {
                for (gradient, index) in gradient.iter().zip(chosen) {
                    // Beyond the sphere of repulsion and within that of attraction nothing pulls.
                    if *gradient == 0.0 {
                        continue;
                    }
                    for ((slope, a), b) in slopes.iter_mut().zip(descriptor).zip(self.centre(*index, dimensions)) {
                        *slope += 2.0 * gradient * (a - b);
                    }
                }
            });
        Ok(Some(Tensor::from_vec(slopes, shape, &Device::Cpu)?))
    }
}

/// The loss for squared distances `[N, nearest + negatives]`, ascending in every row, and a radius `[1]`.
pub(super) fn soft_boundary(
    distances: &Tensor,
    radius: &Tensor,
    nearest: usize,
    margin: f64,
    penalty: f64,
) -> Result<Tensor> {
    let negatives = distances.dim(1)? - nearest;
    let square = radius.sqr()?;
    let attraction = distances.narrow(1, 0, nearest)?.broadcast_sub(&square)?.relu()?.mean_all()?;
    let within = distances.narrow(1, nearest, negatives)?.neg()?.broadcast_add(&square)?;
    let repulsion = (within - margin)?.relu()?.mean_all()?;
    (attraction + repulsion)? * penalty
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Reference {
        descriptors: Vec<Vec<f32>>,
        centres: Vec<Vec<f32>>,
        radius: f32,
        nearest: usize,
        negatives: usize,
        loss: f32,
        gradient: Vec<Vec<f32>>,
    }

    /// Against anomalib's loss on seeded descriptors; see `tests/reference/baselines_trained.py`.
    #[test]
    fn it_is_that_of_anomalib() -> Result<()> {
        let cases: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_str(include_str!("../../../../tests/data/baselines_trained.json")).unwrap();
        for name in ["cfa_outside", "cfa_inside"] {
            let reference: Reference = serde_json::from_value(cases[name].clone()).unwrap();
            let (rows, dimensions) = (reference.descriptors.len(), reference.descriptors[0].len());
            let centres = reference.centres.concat();
            let search = masf_memory::ExactSearch::new(centres.clone(), dimensions).unwrap();
            let count = reference.nearest + reference.negatives;
            let descriptors = reference.descriptors.concat();
            let chosen = masf_memory::PrototypeSearch::nearest(&search, &descriptors, count).unwrap().indices;
            let variable = Var::from_vec(descriptors, (rows, dimensions), &Device::Cpu)?;
            let distances = variable.apply_op1(SquaredDistances { centres: Arc::new(centres), chosen, count })?;
            let radius = Tensor::new(&[reference.radius], &Device::Cpu)?;
            let loss = soft_boundary(&distances, &radius, reference.nearest, 0.1, 1000.0)?;
            let value = loss.to_scalar::<f32>()?;
            assert!((value - reference.loss).abs() <= 1e-4 * reference.loss, "{name}: {value}");
            let gradients = loss.backward()?;
            let found = values(gradients.get(&variable).expect("descriptors take part"))?;
            let expected = reference.gradient.concat();
            let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(scale > 0.0);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-4 * scale, "{name}: {found} {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_radius_has_a_gradient() -> Result<()> {
        // Two of four attracting distances exceed r^2 = 1, and one of two repelling ones is below 1 - 0.1.
        let distances = Tensor::new(&[[0.2f32, 2.0, 0.5], [3.0, 0.9, 4.0]], &Device::Cpu)?;
        let radius = Var::new(&[1f32], &Device::Cpu)?;
        let loss = soft_boundary(&distances, &radius, 2, 0.1, 10.0)?;
        assert!((loss.to_scalar::<f32>()? - 10.0 * (3.0 / 4.0 + 0.4 / 2.0)).abs() < 1e-5);
        let slope = values(loss.backward()?.get(&radius).expect("the radius takes part"))?[0];
        assert!((slope - 10.0 * 2.0 * (-2.0 / 4.0 + 1.0 / 2.0)).abs() < 1e-5, "{slope}");
        Ok(())
    }
}
