//! Learning RD++.

use masf_core::{Fit, Progress, PyramidSource};
use rand::Rng;
use rand::seq::index::sample;

use super::loss::{POSITIONS, Projected, projection_loss};
use super::model::Rdpp;
use super::network::Network;
use super::noise::{disturb, regions};
use super::params::RdppParams;
use crate::BaselineError;
use crate::training::tokens::cosine_distance;
use crate::training::{self, AdamW, Parameters, Plan, Schedule, features};

/// Learns an [`Rdpp`]; made by [`RdppParams::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct RdppFit {
    params: RdppParams,
}

impl RdppFit {
    pub(super) fn new(params: RdppParams) -> Self {
        Self { params }
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &RdppParams {
        &self.params
    }
}

impl Fit for RdppFit {
    type Scorer = Rdpp;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<Rdpp> {
        let params = &self.params;
        let levels = training::levels_of(source, &params.levels)?;
        training::check_levels(&levels)?;
        let mut parameters = Parameters::random(params.seed, "rdpp");
        let network = Network::new(params, &levels, &mut parameters)?;
        // No image is twice in a step that lies within one pass.
        let (seed, batch_size) = (params.seed, params.batch_size.min(source.len()));
        let steps = training::steps(source.len(), params.epochs, params.passes, batch_size);
        let plan = Plan { method: "rdpp", seed, steps, batch_size, schedule: Schedule::Cosine };
        let adam = AdamW {
            rate: params.learning_rate,
            // As in the authors' code.
            betas: (0.5, 0.999),
            weight_decay: 0.0,
            amsgrad: false,
            clip: Some(1.0),
        };
        training::train(&plan, source, &parameters, &adam, progress, |_, pyramid, random| {
            let normal = features(&levels, pyramid)?;
            let partners = partners(pyramid.batch_size(), random);
            let regions = regions(pyramid.batch_size(), random);
            let projected =
                normal.iter().enumerate().map(|(index, x)| network.project(index, x)).collect::<Result<Vec<_>, _>>()?;
            let restored = network.restore(&projected)?;
            let mut total: Option<candle_core::Tensor> = None;
            for (index, normal) in normal.iter().enumerate() {
                let noised = disturb(normal, &levels[index], &regions, params.noise, random)?;
                let noised_projection = network.project(index, &noised)?;
                let level =
                    Projected { noised: &noised, noised_projection: &noised_projection, projection: &projected[index] };
                let places = places(normal.dim(1)?, random);
                let projection = (projection_loss(&level, &partners, &places, params)? * params.projection_loss)?;
                let part = (cosine_distance(&restored[index], normal)? + projection)?;
                total = Some(match total {
                    Some(total) => (total + part)?,
                    None => part,
                });
            }
            total.ok_or_else(|| BaselineError::NoImages.into())
        })?;
        Rdpp::new(params.clone(), levels, parameters.frozen()?)
    }

    fn is_expensive(&self) -> bool {
        true
    }
}

/// For every image of a step another one, some places further on, so that each is one image's partner; the order of a step is random.
fn partners(images: usize, random: &mut impl Rng) -> Vec<u32> {
    let shift = random.random_range(1..images.max(2));
    (0..images).map(|image| ((image + shift) % images) as u32).collect()
}

/// The positions whose descriptors are transported, ascending: some of a large grid, drawn at random, and all of a small one.
fn places(positions: usize, random: &mut impl Rng) -> Vec<u32> {
    if positions <= POSITIONS {
        return (0..positions as u32).collect();
    }
    let mut places: Vec<u32> = sample(random, positions, POSITIONS).iter().map(|place| place as u32).collect();
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use candle_core::{Device, Tensor};
    use masf_core::{FeatureLevel, FeaturePyramid, LevelSpec, Silent};

    use super::*;

    /// So many images, none of which may be twice in a batch.
    struct Once(usize);

    impl PyramidSource for Once {
        fn len(&self) -> usize {
            self.0
        }

        fn batch(&self, indices: &[usize]) -> masf_core::Result<FeaturePyramid> {
            assert_eq!(indices.iter().collect::<BTreeSet<_>>().len(), indices.len(), "{indices:?}");
            let map = Tensor::randn(0f32, 1f32, (indices.len(), 8, 4, 4), &Device::Cpu)?;
            FeaturePyramid::new(vec![FeatureLevel { spec: LevelSpec { stride: 8, channels: 8 }, map }], (32, 32))
        }
    }

    #[test]
    fn fewer_images_than_a_step_takes_are_not_repeated_in_it() -> masf_core::Result<()> {
        let params = RdppParams { levels: vec![8], width: 8, passes: 6, ..RdppParams::default() };
        for images in 1..4 {
            params.clone().check()?.fit(&Once(images), &Silent)?;
        }
        Ok(())
    }

    #[test]
    fn places_lie_all_over_the_grid() {
        let mut random = masf_core::random_stream(0, "test.places");
        let places = places(64 * 64, &mut random);
        let distinct = |of: fn(u32) -> u32| places.iter().map(|place| of(*place)).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(|place| place), 64);
        assert!(distinct(|place| place % 64) > 30 && distinct(|place| place / 64) > 30, "{places:?}");
        assert_eq!(super::places(16, &mut random), (0..16).collect::<Vec<u32>>());
    }

    #[test]
    fn no_image_is_its_own_partner() {
        for images in 2..10 {
            let partners = super::partners(images, &mut masf_core::random_stream(0, "test.partners"));
            assert!(partners.iter().enumerate().all(|(image, partner)| image != *partner as usize), "{partners:?}");
        }
    }
}
