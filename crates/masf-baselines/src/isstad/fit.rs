//! Learning ISSTAD.

use candle_core::{Device, Tensor};
use masf_core::{Fit, Progress, PyramidSource};
use rand::Rng;
use rand::seq::SliceRandom;

use super::defects::{Defect, disturb};
use super::loss::{defect_loss, square_error};
use super::model::Isstad;
use super::network::{Network, pick};
use super::params::IsstadParams;
use super::patches::Patches;
use crate::BaselineError;
use crate::training::tokens::cell_means;
use crate::training::transformer::check_attentions;
use crate::training::{self, AdamW, Parameters, Plan, Schedule, features};

/// Side of the windows of SSIM, in tokens.
const WINDOW: usize = 4;

/// Learns an [`Isstad`]; made by [`IsstadParams::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct IsstadFit {
    params: IsstadParams,
}

impl IsstadFit {
    pub(super) fn new(params: IsstadParams) -> Self {
        Self { params }
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &IsstadParams {
        &self.params
    }
}

impl Fit for IsstadFit {
    type Scorer = Isstad;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<Isstad> {
        let params = &self.params;
        let levels = training::levels_of(source, &params.levels)?;
        training::check_levels(&levels)?;
        let (height, width) = training::grid(levels.last());
        let positions = height * width;
        if positions < 2 {
            return Err(BaselineError::OneToken.into());
        }
        let visible = params.visible(positions);
        // In the first stage the encoder sees few tokens; in the second it is done before the decoder begins.
        let (whole, part) = (positions * positions, visible * visible);
        let pairs = (params.depth * whole).max(params.depth * part + params.decoder_depth * whole);
        check_attentions(positions, pairs, params.heads, params.batch_size)?;
        let deviations = training::deviations(&levels, source, progress)?;
        let patches = Patches::new(levels, deviations)?;
        let mut parameters = Parameters::random(params.seed, "isstad");
        let shape = (patches.channels(), patches.cell());
        let network = Network::new(params, patches.grid(), shape, &mut parameters)?;
        let steps = training::steps(source.len(), params.epochs, params.passes, params.batch_size);
        let plan = |method| Plan {
            method,
            seed: params.seed,
            steps,
            batch_size: params.batch_size,
            schedule: Schedule::Cosine,
        };
        let adam = AdamW {
            rate: params.learning_rate,
            // As in the authors' code.
            betas: (0.9, 0.95),
            weight_decay: params.weight_decay,
            amsgrad: false,
            clip: Some(1.0),
        };

        let hidden = plan("isstad 1/2");
        training::train(&hidden, source, &parameters, &adam, progress, |_, pyramid, random| {
            let tokens = patches.join(&features(patches.levels(), pyramid)?)?;
            let order = orders(pyramid.batch_size(), positions, random)?;
            let restored = network.restore_hidden(&tokens, &order, visible)?;
            let target = pick(&tokens, &order.narrow(1, visible, positions - visible)?)?;
            Ok(square_error(&restored, &target)?)
        })?;

        let windows = cell_means(patches.grid(), (height.div_ceil(WINDOW), width.div_ceil(WINDOW)));
        let defects = plan("isstad 2/2");
        training::train(&defects, source, &parameters, &adam, progress, |_, pyramid, random| {
            let normal = features(patches.levels(), pyramid)?;
            let defects: Vec<_> = (0..pyramid.batch_size()).map(|_| Defect::random(random)).collect();
            let (disturbed, labels) = disturb(&normal, patches.levels(), &defects, random)?;
            let decoded = network.decode(&patches.join(&disturbed)?)?;
            let normal = patches.join(&normal)?;
            Ok(defect_loss(&decoded, &patches.split(&labels)?, &normal, &windows, params)?)
        })?;
        Isstad::new(params.clone(), patches, parameters.frozen()?)
    }

    fn is_expensive(&self) -> bool {
        true
    }
}

/// A random order of the positions for every image, `[B, P]`.
fn orders(images: usize, positions: usize, random: &mut impl Rng) -> masf_core::Result<Tensor> {
    let mut orders = Vec::with_capacity(images * positions);
    for _ in 0..images {
        let mut order: Vec<u32> = (0..positions as u32).collect();
        order.shuffle(random);
        orders.extend(order);
    }
    Ok(Tensor::from_vec(orders, (images, positions), &Device::Cpu)?)
}
