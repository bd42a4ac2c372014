//! Learning ADTR.

use masf_core::{Fit, Progress, PyramidSource};

use super::model::{Adtr, Tokens};
use super::network::Network;
use super::params::AdtrParams;
use crate::training::transformer::check_attentions;
use crate::training::{self, AdamW, Parameters, Plan, Schedule};

/// Learns an [`Adtr`]; made by [`AdtrParams::check`].
#[derive(Debug, Clone, PartialEq)]
pub struct AdtrFit {
    params: AdtrParams,
}

impl AdtrFit {
    pub(super) fn new(params: AdtrParams) -> Self {
        Self { params }
    }

    /// The hyper-parameters, all within their ranges.
    pub fn params(&self) -> &AdtrParams {
        &self.params
    }
}

impl Fit for AdtrFit {
    type Scorer = Adtr;

    fn fit(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> masf_core::Result<Adtr> {
        let params = &self.params;
        let levels = training::levels_of(source, &params.levels)?;
        training::check_levels(&levels)?;
        let (height, width) = training::grid(levels.last());
        let positions = height * width;
        check_attentions(positions, 3 * params.depth * positions * positions, params.heads, params.batch_size)?;
        let deviations = training::deviations(&levels, source, progress)?;
        let tokens = Tokens::new(levels, deviations);
        let mut parameters = Parameters::random(params.seed, "adtr");
        let network = Network::new(params, tokens.shape(), &mut parameters)?;
        let steps = training::steps(source.len(), params.epochs, params.passes, params.batch_size);
        let (seed, batch_size) = (params.seed, params.batch_size);
        let plan = Plan { method: "adtr", seed, steps, batch_size, schedule: Schedule::Cosine };
        let adam = AdamW {
            rate: params.learning_rate,
            betas: (0.9, 0.999),
            weight_decay: params.weight_decay,
            amsgrad: false,
            // As in the authors' code.
            clip: Some(0.1),
        };
        training::train(&plan, source, &parameters, &adam, progress, |_, pyramid, _| {
            let tokens = tokens.of(pyramid)?;
            Ok((network.restore(&tokens)? - &tokens)?.sqr()?.mean_all()?)
        })?;
        Adtr::new(params.clone(), tokens, parameters.frozen()?)
    }

    fn is_expensive(&self) -> bool {
        true
    }
}
