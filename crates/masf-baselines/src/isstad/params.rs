//! The hyper-parameters of ISSTAD, and their check.

use crate::training::check;
use crate::{BaselineError, IsstadFit, Result};

/// Hyper-parameters of [`Isstad`](crate::Isstad), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// The serialised form holds neither levels nor seed: a program has one choice of each for all its parts.
///
/// ```
/// use masf_baselines::IsstadParams;
/// assert!(IsstadParams::default().check().is_ok());
/// assert!(IsstadParams { mask_ratio: 1.0, ..IsstadParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IsstadParams {
    /// Strides of the levels that make up a token, ascending; the last gives the grid of tokens, the first that of scores. Default `[8, 16]`.
    #[serde(skip)]
    pub levels: Vec<usize>,
    /// Channels of a token within the encoder, a multiple of `heads` and of 4, 8 to 2048. Default 256; the paper has a ViT-L, 1024.
    pub width: usize,
    /// Layers of the encoder, 1 to 32. Default 2; the paper has 24.
    pub depth: usize,
    /// Channels of a token within the decoder, a multiple of `heads` and of 4, 8 to 2048. Default 128, half of the encoder's as in the paper.
    pub decoder_width: usize,
    /// Layers of the decoder, each of which gives logits, 1 to 32. Default 2; the paper has 12.
    pub decoder_depth: usize,
    /// Heads of the attention, 1 to 64. Default 8; the paper has 16.
    pub heads: usize,
    /// Hidden channels of a layer's MLP as a multiple of its width, 1 to 16. Default 4, as in the paper.
    pub mlp_ratio: usize,
    /// Share of the tokens that are hidden in the first stage, above 0 and below 1; at least one token is hidden and one is seen.
    /// Default 0.75, as in the paper.
    pub mask_ratio: f64,
    /// Weights of square error and of dissimilarity (1 - SSIM) beside 1 for the cross entropy in the second stage, 0 to 1000 each. Default 0.5 and
    /// 0.1, as in the authors' code.
    pub restoration: f64,
    /// See [`restoration`](Self::restoration).
    pub similarity: f64,
    /// Weight of normal positions in the cross entropy beside 1 for defective ones, above 0, at most 1000. Default 3, as in the authors' code.
    pub normal_weight: f64,
    /// Passes of either stage over the images; left out, as many as make up `passes` images. The authors' code has 305 and 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Images that either stage learns from in all, counting repetitions, where `epochs` is left out. Default 2000.
    pub passes: usize,
    /// Images of a step. Default 4; the authors' code has 20 and 16.
    pub batch_size: usize,
    /// The largest learning rate. Default 0.001, as in the authors' code for the second stage.
    pub learning_rate: f64,
    /// Decay of the weights. Default 0.05, as in the authors' code.
    pub weight_decay: f64,
    /// The seed of all random choices.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for IsstadParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            width: 256,
            depth: 2,
            decoder_width: 128,
            decoder_depth: 2,
            heads: 8,
            mlp_ratio: 4,
            mask_ratio: 0.75,
            restoration: 0.5,
            similarity: 0.1,
            normal_weight: 3.0,
            epochs: None,
            passes: 2000,
            batch_size: 4,
            learning_rate: 1e-3,
            weight_decay: 0.05,
            seed: 0,
        }
    }
}

impl IsstadParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<IsstadFit> {
        check::levels(&self.levels)?;
        self.checked()?;
        Ok(IsstadFit::new(self))
    }

    /// Whether every hyper-parameter of the serialised form is in its range.
    pub(super) fn checked(&self) -> Result<()> {
        check::whole("heads", self.heads, 1, 64)?;
        for (name, width) in [("width", self.width), ("decoder_width", self.decoder_width)] {
            check::whole(name, width, 8, 2048)?;
            if !width.is_multiple_of(self.heads) || !width.is_multiple_of(4) {
                let expected = format!("a multiple of 4 and of heads = {}", self.heads);
                return Err(BaselineError::parameter(name, width, expected));
            }
        }
        check::whole("depth", self.depth, 1, 32)?;
        check::whole("decoder_depth", self.decoder_depth, 1, 32)?;
        check::whole("mlp_ratio", self.mlp_ratio, 1, 16)?;
        if !(self.mask_ratio > 0.0 && self.mask_ratio < 1.0) {
            return Err(BaselineError::parameter("mask_ratio", self.mask_ratio, "above 0 and below 1"));
        }
        check::real("restoration", self.restoration, 0.0, 1e3, true)?;
        check::real("similarity", self.similarity, 0.0, 1e3, true)?;
        check::real("normal_weight", self.normal_weight, 0.0, 1e3, false)?;
        check::course(self.epochs, self.passes, (self.batch_size, 1), self.learning_rate)?;
        check::real("weight_decay", self.weight_decay, 0.0, 1.0, true)
    }

    /// The tokens of so many that are seen in the first stage.
    pub(super) fn visible(&self, positions: usize) -> usize {
        let visible = ((1.0 - self.mask_ratio) * positions as f64).round() as usize;
        visible.clamp(1, positions.saturating_sub(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        let bad = |change: fn(&mut IsstadParams)| {
            let mut params = IsstadParams::default();
            change(&mut params);
            params.check().unwrap_err().to_string()
        };
        assert!(bad(|p| p.levels = vec![16, 8]).contains("levels"));
        assert!(bad(|p| p.width = 100).contains("multiple"));
        assert!(bad(|p| (p.decoder_width, p.heads) = (18, 2)).contains("decoder_width"));
        assert!(bad(|p| p.depth = 0).contains("depth"));
        assert!(bad(|p| p.decoder_depth = 33).contains("decoder_depth"));
        assert!(bad(|p| p.heads = 0).contains("heads"));
        assert!(bad(|p| p.mlp_ratio = 17).contains("mlp_ratio"));
        assert!(bad(|p| p.mask_ratio = 0.0).contains("mask_ratio"));
        assert!(bad(|p| p.mask_ratio = f64::NAN).contains("mask_ratio"));
        assert!(bad(|p| p.restoration = -1.0).contains("restoration"));
        assert!(bad(|p| p.similarity = f64::INFINITY).contains("similarity"));
        assert!(bad(|p| p.normal_weight = 0.0).contains("normal_weight"));
        assert!(bad(|p| p.epochs = Some(0)).contains("epochs"));
        assert!(bad(|p| p.weight_decay = 2.0).contains("weight_decay"));
    }

    #[test]
    fn some_tokens_are_seen_and_some_are_hidden() {
        let visible = |mask_ratio, positions| IsstadParams { mask_ratio, ..IsstadParams::default() }.visible(positions);
        assert_eq!(visible(0.75, 256), 64);
        assert_eq!(visible(0.999, 16), 1);
        assert_eq!(visible(0.001, 16), 15);
    }
}
