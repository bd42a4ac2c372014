//! The hyper-parameters of RD++, and their check.

use crate::training::check;
use crate::{RdppFit, Result};

/// Hyper-parameters of [`Rdpp`](crate::Rdpp), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// The serialised form holds neither levels nor seed: a program has one choice of each for all its parts.
///
/// ```
/// use masf_baselines::RdppParams;
/// assert!(RdppParams::default().check().is_ok());
/// assert!(RdppParams { width: 0, ..RdppParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RdppParams {
    /// Strides of the levels that are restored, ascending. Default `[8, 16]`; the paper has strides 4, 8 and 16.
    #[serde(skip)]
    pub levels: Vec<usize>,
    /// Channels of the decoder at the coarsest level, 8 to 2048; halved from level to level, doubled in the bottleneck. Default 256.
    pub width: usize,
    /// Weight of the losses of the projections, 0 to 1000. Default 0.2, as in the authors' code.
    pub projection_loss: f64,
    /// Weights of reconstruction and contrast within it, beside 1 for the optimal transport, 0 to 1000 each. Default 0.01 and 0.1, as in the
    /// authors' code.
    pub reconstruction: f64,
    /// See [`reconstruction`](Self::reconstruction).
    pub contrast: f64,
    /// Deviation of the noise of pseudo-abnormal features, as a multiple of that of the level's features, 0 to 100. Default 1.
    pub noise: f64,
    /// Passes over the images; left out, as many as make up `passes` images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Images that are learned from in all, counting repetitions, where `epochs` is left out. Default 2000.
    pub passes: usize,
    /// Images of a step, 2 to 1024; all images where there are fewer. Default 4; the paper has 16.
    pub batch_size: usize,
    /// The largest learning rate. Default 0.002; the paper has 0.005 for the decoder and 0.001 for the projections.
    pub learning_rate: f64,
    /// The seed of all random choices.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for RdppParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            width: 256,
            projection_loss: 0.2,
            reconstruction: 0.01,
            contrast: 0.1,
            noise: 1.0,
            epochs: None,
            passes: 2000,
            batch_size: 4,
            learning_rate: 2e-3,
            seed: 0,
        }
    }
}

impl RdppParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`](crate::BaselineError::Parameter) names the first one that is out of range.
    pub fn check(self) -> Result<RdppFit> {
        check::levels(&self.levels)?;
        self.checked()?;
        Ok(RdppFit::new(self))
    }

    /// Whether every hyper-parameter of the serialised form is in its range.
    pub(super) fn checked(&self) -> Result<()> {
        check::whole("width", self.width, 8, 2048)?;
        check::real("projection_loss", self.projection_loss, 0.0, 1e3, true)?;
        check::real("reconstruction", self.reconstruction, 0.0, 1e3, true)?;
        check::real("contrast", self.contrast, 0.0, 1e3, true)?;
        check::real("noise", self.noise, 0.0, 100.0, true)?;
        check::course(self.epochs, self.passes, (self.batch_size, 2), self.learning_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        let bad = |change: fn(&mut RdppParams)| {
            let mut params = RdppParams::default();
            change(&mut params);
            params.check().unwrap_err().to_string()
        };
        assert!(bad(|p| p.levels = vec![]).contains("levels"));
        assert!(bad(|p| p.width = 4).contains("width"));
        assert!(bad(|p| p.noise = -0.1).contains("noise"));
        assert!(bad(|p| p.contrast = f64::INFINITY).contains("contrast"));
        assert!(bad(|p| p.batch_size = 1).contains("batch_size"));
        assert!(bad(|p| p.epochs = Some(0)).contains("epochs"));
    }
}
