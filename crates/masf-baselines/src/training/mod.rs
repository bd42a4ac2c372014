//! What the trained methods share: parameters by name, and the loop over cached features.
//!
//! Everything random is drawn from a stream of the seed, the method and the step (or epoch), so that a training depends on the
//! images, their order and the hyper-parameters alone.

mod features;
pub(crate) mod fused;
mod ops;
mod parameters;
pub(crate) mod tokens;
pub(crate) mod transformer;

use candle_core::{Tensor, Var};
use masf_core::training::{AdamStep, Moments, ShuffledEpochs, clip_factor, gradient_norm};
use masf_core::{Error, FeaturePyramid, Progress, PyramidSource, Result, random_stream};
use rand_chacha::ChaCha8Rng;

pub(crate) use features::{
    Level, deviations, each_batch, features, grid, image_by_image, levels_of, read_deviations, write_deviations,
};
pub(crate) use masf_core::training::steps;
pub(crate) use masf_core::{operand, values};
pub(crate) use ops::FrozenLinear;
pub(crate) use parameters::{Parameters, Start, write};

use crate::BaselineError;

/// Steps between two notes on the loss.
const NOTE_EVERY: usize = 10;

/// How the learning rate goes over the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Schedule {
    /// Always the same.
    Constant,
    /// A linear rise over a tenth of the steps, then half a cosine down to a hundredth.
    Cosine,
}

impl Schedule {
    /// The factor of the largest learning rate at a step.
    pub(crate) fn factor(self, step: usize, steps: usize) -> f64 {
        let position = (step as f64 + 0.5) / steps.max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Cosine if position < 0.1 => 0.05 + 9.5 * position,
            Self::Cosine => {
                let fall = (position - 0.1) / 0.9;
                0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos())
            }
        }
    }
}

/// The course of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    /// Names the random streams and the progress.
    pub(crate) method: &'static str,
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    /// Images of a step.
    pub(crate) batch_size: usize,
    pub(crate) schedule: Schedule,
}

/// The hyper-parameters of the optimiser, AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamW {
    /// The largest learning rate.
    pub(crate) rate: f64,
    /// Decays of the mean of gradients and of their squares.
    pub(crate) betas: (f64, f64),
    pub(crate) weight_decay: f64,
    /// Whether the largest mean square so far divides, instead of the present one.
    pub(crate) amsgrad: bool,
    /// The largest norm of a gradient.
    pub(crate) clip: Option<f64>,
}

/// Takes all steps: `loss` gives the loss of a batch, whose gradient moves the variables of `parameters`.
pub(crate) fn train(
    plan: &Plan,
    source: &dyn PyramidSource,
    parameters: &Parameters<'_>,
    adam: &AdamW,
    progress: &dyn Progress,
    mut loss: impl FnMut(usize, &FeaturePyramid, &mut ChaCha8Rng) -> Result<Tensor>,
) -> Result<()> {
    let zero = |variable: &Var| Moments::zero(variable.elem_count(), adam.amsgrad);
    let mut moments: Vec<Moments> = parameters.variables().iter().map(zero).collect();
    let mut order = ShuffledEpochs::new(plan.seed, plan.method, source.len(), plan.batch_size);
    let epochs = (plan.steps * plan.batch_size).div_ceil(source.len().max(1));
    progress.start(&format!("training {}", plan.method), plan.steps as u64);
    let mut smooth: Option<f32> = None;
    let trained = (0..plan.steps).try_for_each(|step| {
        progress.check()?;
        let mut random = random_stream(plan.seed, &format!("{}.step.{step}", plan.method));
        let images = order.batch(step);
        let loss = loss(step, &source.batch(&images)?, &mut random);
        let loss = loss.map_err(|error| BaselineError::of(error, &images))?;
        let gradients = loss.backward()?;
        let value = loss.to_scalar::<f32>()?;
        let norm = gradient_norm(&gradients, parameters.variables())?;
        if !value.is_finite() || !norm.is_finite() {
            return Err(BaselineError::Diverged { method: plan.method, loss: value, step, steps: plan.steps }.into());
        }
        let update = AdamStep {
            rate: adam.rate * plan.schedule.factor(step, plan.steps),
            betas: adam.betas,
            weight_decay: adam.weight_decay,
            scale: adam.clip.map_or(1.0, |clip| clip_factor(norm, clip)),
            count: step + 1,
        };
        for (variable, moments) in parameters.variables().iter().zip(&mut moments) {
            if let Some(gradient) = gradients.get(variable) {
                update.apply(variable, gradient, moments)?;
            }
        }
        progress.step(1);
        let mean = smooth.map_or(value, |smooth| 0.95 * smooth + 0.05 * value);
        smooth = Some(mean);
        if (step + 1).is_multiple_of(NOTE_EVERY) || step + 1 == plan.steps {
            let epoch = (step + 1) * plan.batch_size / source.len().max(1);
            progress.note(&format!("{}: epoch {epoch}/{epochs}, loss {mean:.4}", plan.method));
        }
        Ok::<(), Error>(())
    });
    progress.finish();
    trained
}

/// What a model file holds beside tensors.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings<P> {
    pub(crate) params: P,
    pub(crate) levels: Vec<Level>,
}

/// Whether levels, finest first, can be those of a trained model.
pub(crate) fn check_levels(levels: &[Level]) -> Result<(), BaselineError> {
    // What attention makes grows with the square of their positions.
    let sizes = levels.iter().all(|(spec, height, width)| {
        (1..=1 << 14).contains(&spec.channels)
            && (1..=4096).contains(height)
            && (1..=4096).contains(width)
            && height * width <= 1 << 14
    });
    let order = levels.windows(2).all(|pair| {
        let ((fine, height, width), (coarse, lower, narrower)) = (pair[0], pair[1]);
        fine.stride <= coarse.stride && height >= lower && width >= narrower
    });
    match !levels.is_empty() && levels.len() <= 16 && levels[0].0.stride > 0 && sizes && order {
        true => Ok(()),
        false => {
            let expected = "1 to 16 levels, finest first, with maps of at most 16,384 positions";
            Err(BaselineError::parameter("levels", format!("{levels:?}"), expected))
        }
    }
}

/// Checks of hyper-parameters that several methods have.
pub(crate) mod check {
    use crate::{BaselineError, Result};

    pub(crate) fn levels(levels: &[usize]) -> Result<()> {
        if levels.is_empty() || levels[0] == 0 || !levels.windows(2).all(|pair| pair[0] < pair[1]) {
            let expected = "positive strides in ascending order, such as [8, 16]";
            return Err(BaselineError::parameter("levels", format!("{levels:?}"), expected));
        }
        Ok(())
    }

    pub(crate) fn whole(name: &'static str, value: usize, least: usize, most: usize) -> Result<()> {
        match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(BaselineError::parameter(name, value, format!("{least} to {most}"))),
        }
    }

    /// How long a training is and how fast it goes; `batch_size` comes with the least that is allowed.
    pub(crate) fn course(
        epochs: Option<usize>,
        passes: usize,
        (batch_size, least): (usize, usize),
        learning_rate: f64,
    ) -> Result<()> {
        if let Some(epochs) = epochs {
            whole("epochs", epochs, 1, 1_000_000)?;
        }
        whole("passes", passes, 1, 100_000_000)?;
        whole("batch_size", batch_size, least, 1024)?;
        real("learning_rate", learning_rate, 0.0, 1.0, false)
    }

    /// A number of `[least, most]`, or above `least` where that itself is not allowed.
    pub(crate) fn real(name: &'static str, value: f64, least: f64, most: f64, with_least: bool) -> Result<()> {
        let fits = value <= most && (value > least || with_least && value == least);
        let from = if with_least { format!("{least} or more") } else { format!("above {least}") };
        match fits {
            true => Ok(()),
            false => Err(BaselineError::parameter(name, value, format!("{from}, at most {most}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_do_not_grow_with_the_stride() {
        let level = |(height, width)| (masf_core::LevelSpec { stride: 14, channels: 1 }, height, width);
        assert!(check_levels(&[(128, 128), (128, 128)].map(level)).is_ok());
        assert!(check_levels(&[(4, 4096), (4096, 4)].map(level)).is_err());
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| Schedule::Cosine.factor(step, 100)).collect();
        let top = (0..100).max_by(|a, b| rates[*a].total_cmp(&rates[*b])).unwrap();
        assert!((9..12).contains(&top) && rates[top] > 0.98 && rates[0] < 0.11 && rates[99] < 0.02, "{rates:?}");
    }
}
