//! The hyper-parameters of ADTR, and their check.

use crate::training::check;
use crate::{AdtrFit, BaselineError, Result};

/// Hyper-parameters of [`Adtr`](crate::Adtr), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// The serialised form holds neither levels nor seed: a program has one choice of each for all its parts.
///
/// ```
/// use masf_baselines::AdtrParams;
/// assert!(AdtrParams::default().check().is_ok());
/// assert!(AdtrParams { width: 100, heads: 8, ..AdtrParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdtrParams {
    /// Strides of the levels that make up a token, ascending; the last gives the grid. Default `[8, 16]`.
    #[serde(skip)]
    pub levels: Vec<usize>,
    /// Channels of a token within the transformer, a multiple of `heads`, 8 to 2048. Default 256, as in the paper.
    pub width: usize,
    /// Layers of the encoder and as many of the decoder, 1 to 16. Default 2; the paper has 4.
    pub depth: usize,
    /// Heads of the attention, 1 to 64. Default 8.
    pub heads: usize,
    /// Hidden channels of a layer's MLP as a multiple of `width`, 1 to 16. Default 4.
    pub mlp_ratio: usize,
    /// Passes over the images; left out, as many as make up `passes` images. The paper has 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Images that are learned from in all, counting repetitions, where `epochs` is left out. Default 3000.
    pub passes: usize,
    /// Images of a step. Default 4; the paper has 16.
    pub batch_size: usize,
    /// The largest learning rate. Default 0.001; the paper has 0.0001 for many more steps.
    pub learning_rate: f64,
    /// Decay of the weights. Default 0.0001, as in the paper.
    pub weight_decay: f64,
    /// The seed of all random choices.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for AdtrParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            width: 256,
            depth: 2,
            heads: 8,
            mlp_ratio: 4,
            epochs: None,
            passes: 3000,
            batch_size: 4,
            learning_rate: 1e-3,
            weight_decay: 1e-4,
            seed: 0,
        }
    }
}

impl AdtrParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<AdtrFit> {
        check::levels(&self.levels)?;
        self.checked()?;
        Ok(AdtrFit::new(self))
    }

    /// Whether every hyper-parameter of the serialised form is in its range.
    pub(super) fn checked(&self) -> Result<()> {
        check::whole("width", self.width, 8, 2048)?;
        check::whole("depth", self.depth, 1, 16)?;
        check::whole("heads", self.heads, 1, 64)?;
        check::whole("mlp_ratio", self.mlp_ratio, 1, 16)?;
        if !self.width.is_multiple_of(self.heads) {
            return Err(BaselineError::parameter("width", self.width, format!("a multiple of heads = {}", self.heads)));
        }
        check::course(self.epochs, self.passes, (self.batch_size, 1), self.learning_rate)?;
        check::real("weight_decay", self.weight_decay, 0.0, 1.0, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        let bad = |change: fn(&mut AdtrParams)| {
            let mut params = AdtrParams::default();
            change(&mut params);
            params.check().unwrap_err().to_string()
        };
        assert!(bad(|p| p.levels = vec![8, 8]).contains("levels"));
        assert!(bad(|p| p.width = 100).contains("multiple"));
        assert!(bad(|p| p.depth = 0).contains("depth"));
        assert!(bad(|p| p.mlp_ratio = 17).contains("mlp_ratio"));
        assert!(bad(|p| p.passes = 0).contains("passes"));
        assert!(bad(|p| p.weight_decay = 2.0).contains("weight_decay"));
    }
}
