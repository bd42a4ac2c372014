//! The losses of the projections.

use candle_core::{D, Result, Tensor};

use super::params::RdppParams;
use crate::training::tokens::{cosine_distance, flat_cosine};
use crate::training::values;

/// The entropic regularisation of the optimal transport (geomloss's blur of 0.05, squared, for descriptors of unit length, times 20: the
/// cost is at most 4).
const EPSILON: f64 = 0.05;
/// Rounds of Sinkhorn's algorithm.
const ROUNDS: usize = 30;
/// The cosine above which abnormal features are pushed away.
const MARGIN: f64 = 0.5;
/// Most positions of an image that are transported.
pub(super) const POSITIONS: usize = 64;

/// What one level adds.
pub(super) struct Projected<'a> {
    /// Features with noise, `[B, P, C]`.
    pub(super) noised: &'a Tensor,
    /// Their projection.
    pub(super) noised_projection: &'a Tensor,
    /// The projection of the features without noise.
    pub(super) projection: &'a Tensor,
}

/// The loss of the projections of one level, where the descriptors at `places` of image `i` are transported to those of image
/// `partners[i]`; `partners` is a permutation of the images.
pub(super) fn projection_loss(
    level: &Projected<'_>,
    partners: &[u32],
    places: &[u32],
    params: &RdppParams,
) -> Result<Tensor> {
    let transport = transport_loss(level.projection, partners, places)?;
    let reconstruction = reconstruction_loss(level.noised_projection, level.projection)?;
    let contrast = contrast_loss(level.noised, level.projection)?;
    (transport + (reconstruction * params.reconstruction)?)? + (contrast * params.contrast)?
}

/// `1 - cos` of the projections with and without noise, the mean over the images.
fn reconstruction_loss(noised: &Tensor, normal: &Tensor) -> Result<Tensor> {
    cosine_distance(noised, normal)
}

/// `max(0, cos - 1/2)` of features with noise and projections without it, the mean over the images.
fn contrast_loss(noised: &Tensor, normal: &Tensor) -> Result<Tensor> {
    (flat_cosine(noised, normal)? - MARGIN)?.relu()?.mean_all()
}

/// The mean over the images of the Sinkhorn divergence of an image's descriptors at `places` and its partner's: the transport between
/// them less half of either's with itself. `partners` is a permutation, so every image is once the first and once the second of a pair,
/// and its two halves make one whole.
fn transport_loss(projection: &Tensor, partners: &[u32], places: &[u32]) -> Result<Tensor> {
    let images = projection.dim(0)?;
    debug_assert!(is_permutation(partners, images), "every image is one image's partner: {partners:?}");
    let chosen = Tensor::new(places, projection.device())?;
    let points = projection.index_select(&chosen, 1)?;
    let norm = (points.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    let points = points.broadcast_div(&norm)?;
    let mut total: Option<Tensor> = None;
    for (image, partner) in (0..images).zip(partners) {
        let (x, y) = (points.get(image)?, points.get(*partner as usize)?);
        let part = (transported(&x, &y)? - transported(&x, &x)?)?;
        total = Some(match total {
            Some(total) => (total + part)?,
            None => part,
        });
    }
    match total {
        Some(total) => total / images as f64,
        None => candle_core::bail!("there are no images"),
    }
}

/// Whether `partners` has each of `0..images` once.
fn is_permutation(partners: &[u32], images: usize) -> bool {
    let mut sorted = partners.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..images as u32)
}

/// The cost that the plan between two clouds of points of unit length moves. The optimal entropic plan is taken as a constant: by the
/// envelope theorem the gradient is that of the transport itself.
fn transported(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    // |a - b|^2 = 2 - 2 a b.
    let cost = x.matmul(&y.t()?.contiguous()?)?.affine(-2.0, 2.0)?;
    let plan = plan(&cost.detach())?;
    (cost * plan)?.sum_all()
}

/// The plan between equal weights, in double precision and the logarithmic domain.
fn plan(cost: &Tensor) -> Result<Tensor> {
    let (rows, columns) = cost.dims2()?;
    let kernel: Vec<f64> = values(cost)?.into_iter().map(|cost| -f64::from(cost) / EPSILON).collect();
    // `ln` of the sum of `exp`, of `count` values.
    let log_sum = |count: usize, value: &dyn Fn(usize) -> f64| {
        let most = (0..count).map(value).fold(f64::NEG_INFINITY, f64::max);
        most + (0..count).map(|index| (value(index) - most).exp()).sum::<f64>().ln()
    };
    let (mut u, mut v) = (vec![0f64; rows], vec![0f64; columns]);
    for _ in 0..ROUNDS {
        for (row, u) in u.iter_mut().enumerate() {
            *u = -(rows as f64).ln() - log_sum(columns, &|column| kernel[row * columns + column] + v[column]);
        }
        for (column, v) in v.iter_mut().enumerate() {
            *v = -(columns as f64).ln() - log_sum(rows, &|row| kernel[row * columns + column] + u[row]);
        }
    }
    let plan = |index: usize| (kernel[index] + u[index / columns] + v[index % columns]).exp() as f32;
    Tensor::from_vec((0..rows * columns).map(plan).collect(), (rows, columns), cost.device())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[derive(serde::Deserialize)]
    struct Reference {
        shape: (usize, usize, usize),
        noised: Vec<f32>,
        noised_projection: Vec<f32>,
        projection: Vec<f32>,
        transport: f32,
        reconstruction: f32,
        contrast: f32,
        distillation: f32,
        gradient: Vec<f32>,
    }

    /// Against PyTorch on seeded tensors; see `tests/reference/baselines_trained.py`.
    #[test]
    fn losses_are_those_of_pytorch() -> Result<()> {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/data/baselines_trained.json")).unwrap();
        let reference: Reference = serde_json::from_value(cases["rdpp"].clone()).unwrap();
        let tensor = |values: &[f32]| Tensor::from_slice(values, reference.shape, &Device::Cpu);
        let (noised, noised_projection) = (tensor(&reference.noised)?, tensor(&reference.noised_projection)?);
        let projection = Var::from_tensor(&tensor(&reference.projection)?)?;
        let (partners, places) = ([1, 2, 0], [0, 1, 2, 3, 4, 5]);
        let close = |found: Tensor, expected: f32| -> Result<()> {
            let found = found.to_scalar::<f32>()?;
            assert!((found - expected).abs() <= 2e-4 * expected.abs().max(0.1), "{found} {expected}");
            Ok(())
        };
        close(transport_loss(&projection, &partners, &places)?, reference.transport)?;
        close(reconstruction_loss(&noised_projection, &projection)?, reference.reconstruction)?;
        close(contrast_loss(&noised, &projection)?, reference.contrast)?;
        close(cosine_distance(&noised, &projection)?, reference.distillation)?;
        let level =
            Projected { noised: &noised, noised_projection: &noised_projection, projection: projection.as_tensor() };
        let loss = projection_loss(&level, &partners, &places, &RdppParams::default())?;
        let found = values(loss.backward()?.get(&projection).expect("projections take part"))?;
        let scale = reference.gradient.iter().fold(0f32, |most, value| most.max(value.abs()));
        for (found, expected) in found.iter().zip(&reference.gradient) {
            assert!((found - expected).abs() <= 1e-3 * scale, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn a_cloud_is_at_no_distance_from_itself() -> Result<()> {
        let x = Tensor::randn(0f32, 1f32, (1, 20, 5), &Device::Cpu)?;
        let places: Vec<u32> = (0..20).collect();
        assert!(transport_loss(&x, &[0], &places)?.to_scalar::<f32>()?.abs() < 1e-5);
        let both = Tensor::cat(&[&x, &x.neg()?], 0)?;
        assert!(transport_loss(&both, &[1, 0], &places)?.to_scalar::<f32>()? > 0.05);
        Ok(())
    }

    #[test]
    fn partners_are_a_permutation() {
        assert!(is_permutation(&[1, 2, 0], 3) && is_permutation(&[0], 1));
        assert!(!is_permutation(&[1, 1, 0], 3) && !is_permutation(&[1, 0], 3));
    }
}
