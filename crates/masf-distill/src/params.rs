//! The hyper-parameters of a masked student and of its training, and their check.

use crate::{DistillError, MaskedStudentFit, Result};

/// Which features the student restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Targets {
    /// As the backbone gives them (in ResNets: activated, so mostly not negative).
    Raw,
    /// Of mean 0 and deviation 1 per channel.
    Standardised,
    /// One prediction compared with both.
    #[default]
    Both,
}

/// Whether tokens know where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Positions {
    /// No: shifts of the features shift the result (in a circle).
    #[default]
    None,
    /// By a learned vector for every position of the grid; suits aligned objects only.
    Learned,
}

/// Hyper-parameters of a [`MaskedStudent`](crate::MaskedStudent), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// ```
/// use masf_distill::StudentParams;
/// let fit = StudentParams { epochs: Some(10), ..StudentParams::default() }.check()?;
/// assert_eq!(fit.params().width, 256);
/// assert!(StudentParams { token_mask: 1.5, ..StudentParams::default() }.check().is_err());
/// # Ok::<(), masf_distill::DistillError>(())
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudentParams {
    /// Side of the square over which the features of the coarsest level are averaged around a position, where there are finer levels:
    /// odd; 1 is no averaging. 3 suits surfaces, and loses small defects of parts.
    pub neighbourhood: usize,
    /// Positions of the coarsest level that a token covers, down and across: 1 to 16. Larger tokens restore less of what does not repeat:
    /// they suit surfaces, with more channels, and lose small defects of parts.
    pub patch: usize,
    /// Channels of a token, a multiple of `heads`.
    pub width: usize,
    /// Blocks of global filter, spectral attention and MLP; 0 leaves the bottleneck alone.
    pub depth: usize,
    /// Hidden channels of an MLP, as a multiple of `width`.
    pub mlp_ratio: usize,
    /// Heads of the spectral attention.
    pub heads: usize,
    /// Channels of the bottleneck.
    pub bottleneck: usize,
    /// Whether blocks hold a learnable global filter.
    pub global_filter: bool,
    /// Whether blocks hold spectral-spatial cross-attention (SSCA).
    pub spectral_attention: bool,
    /// Whether tokens know where they are.
    pub positions: Positions,
    /// Which features are restored.
    pub targets: Targets,
    /// The share of tokens that are masked in training, in `[0, 1)`.
    pub token_mask: f64,
    /// The probability that a training image loses a band of its frequencies, in `[0, 1]`.
    pub frequency_mask: f64,
    /// Over which share of the training, up to its end, masks fade to none, in `[0, 1]`: 0 keeps them to the last step, 1 lets them fade from the
    /// first.
    pub mask_fade: f64,
    /// The share of values that the bottleneck drops in training, in `[0, 1)`; left out, none. A student beside a memory bank locates better
    /// with a fifth of them dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// The weight of the cosine of whole maps beside that of positions, 0 or more.
    pub map_loss: f64,
    /// The weight of the loss on band amplitudes, 0 or more.
    pub band_loss: f64,
    /// The weight that the easiest positions are left with, in `(0, 1]`; 1 turns hard mining off.
    pub easy_weight: f64,
    /// Whether training starts at the best linear student, found in closed form, or at random weights.
    pub linear_start: bool,
    /// Passes over the images; left out, as many as make up `passes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Images that are learned from in all, counting repetitions, where `epochs` is left out.
    pub passes: usize,
    /// Images of a step.
    pub batch_size: usize,
    /// The largest learning rate.
    pub learning_rate: f64,
    /// Decay of the weights.
    pub weight_decay: f64,
    /// The largest norm of a gradient.
    pub clip_norm: f64,
    /// Decay of the moving average of the weights that becomes the student, in `[0, 1)`; 0 takes the last weights.
    pub average_decay: f64,
    /// The seed of all random choices. Not part of the serialised form: a program has one seed for all its parts.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for StudentParams {
    fn default() -> Self {
        Self {
            neighbourhood: 1,
            patch: 1,
            width: 256,
            depth: 2,
            mlp_ratio: 4,
            heads: 4,
            bottleneck: 512,
            global_filter: true,
            spectral_attention: true,
            positions: Positions::default(),
            targets: Targets::default(),
            token_mask: 0.4,
            frequency_mask: 0.0,
            mask_fade: 1.0,
            dropout: None,
            map_loss: 1.0,
            band_loss: 0.05,
            easy_weight: 0.1,
            linear_start: true,
            epochs: None,
            passes: 3000,
            batch_size: 4,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            clip_norm: 1.0,
            average_decay: 0.0,
            seed: 0,
        }
    }
}

impl StudentParams {
    /// The largest `patch`.
    pub(crate) const MOST_PATCH: usize = 16;

    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`DistillError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<MaskedStudentFit> {
        self.checked()?;
        Ok(MaskedStudentFit::new(self))
    }

    /// Whether every hyper-parameter is in its range.
    pub(crate) fn checked(&self) -> Result<()> {
        let whole = |name, value: usize, least: usize, most: usize| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(DistillError::parameter(name, value, format!("{least} to {most}"))),
        };
        whole("patch", self.patch, 1, Self::MOST_PATCH)?;
        whole("width", self.width, 1, 4096)?;
        whole("depth", self.depth, 0, 64)?;
        whole("mlp_ratio", self.mlp_ratio, 1, 16)?;
        whole("heads", self.heads, 1, 64)?;
        whole("bottleneck", self.bottleneck, 1, 4096)?;
        whole("passes", self.passes, 1, 100_000_000)?;
        whole("batch_size", self.batch_size, 1, 1024)?;
        if let Some(epochs) = self.epochs {
            whole("epochs", epochs, 1, 1_000_000)?;
        }
        if self.neighbourhood.is_multiple_of(2) || self.neighbourhood > 31 {
            return Err(DistillError::parameter("neighbourhood", self.neighbourhood, "odd, 1 to 31"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(DistillError::parameter("width", self.width, format!("a multiple of heads = {}", self.heads)));
        }
        let real = |name, value: f64, fits: bool, expected: &str| match fits && value.is_finite() {
            true => Ok(()),
            false => Err(DistillError::parameter(name, value, expected)),
        };
        let share = "0 or more and less than 1";
        real("token_mask", self.token_mask, (0.0..1.0).contains(&self.token_mask), share)?;
        let dropout = self.dropout.unwrap_or(0.0);
        real("dropout", dropout, (0.0..1.0).contains(&dropout), share)?;
        real("average_decay", self.average_decay, (0.0..1.0).contains(&self.average_decay), share)?;
        real("frequency_mask", self.frequency_mask, (0.0..=1.0).contains(&self.frequency_mask), "0 to 1")?;
        real("mask_fade", self.mask_fade, (0.0..=1.0).contains(&self.mask_fade), "0 to 1")?;
        real("map_loss", self.map_loss, (0.0..=1e3).contains(&self.map_loss), "0 to 1000")?;
        real("band_loss", self.band_loss, (0.0..=1e3).contains(&self.band_loss), "0 to 1000")?;
        let easy = self.easy_weight > 0.0 && self.easy_weight <= 1.0;
        real("easy_weight", self.easy_weight, easy, "above 0 and at most 1")?;
        let rate = self.learning_rate > 0.0 && self.learning_rate <= 1.0;
        real("learning_rate", self.learning_rate, rate, "above 0 and at most 1")?;
        real("weight_decay", self.weight_decay, (0.0..=1.0).contains(&self.weight_decay), "0 to 1")?;
        real("clip_norm", self.clip_norm, self.clip_norm > 0.0, "above 0")
    }

    /// The number of steps for so many images.
    pub(crate) fn steps(&self, images: usize) -> usize {
        masf_core::training::steps(images, self.epochs, self.passes, self.batch_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        let bad = |change: fn(&mut StudentParams)| {
            let mut params = StudentParams::default();
            change(&mut params);
            params.check().unwrap_err().to_string()
        };
        assert!(bad(|p| p.neighbourhood = 2).contains("neighbourhood"));
        assert!(bad(|p| p.patch = 0).contains("patch"));
        assert!(bad(|p| p.width = 0).contains("width"));
        assert!(bad(|p| p.width = 250).contains("multiple"));
        assert!(bad(|p| p.depth = 100).contains("depth"));
        assert!(bad(|p| p.token_mask = 1.0).contains("token_mask"));
        assert!(bad(|p| p.dropout = Some(f64::NAN)).contains("dropout"));
        assert!(bad(|p| p.frequency_mask = -0.1).contains("frequency_mask"));
        assert!(bad(|p| p.mask_fade = 1.1).contains("mask_fade"));
        assert!(bad(|p| p.easy_weight = 0.0).contains("easy_weight"));
        assert!(bad(|p| p.learning_rate = 0.0).contains("learning_rate"));
        assert!(bad(|p| p.clip_norm = f64::INFINITY).contains("clip_norm"));
        assert!(bad(|p| p.epochs = Some(0)).contains("epochs"));
        assert!(bad(|p| p.batch_size = 0).contains("batch_size"));
    }
}
