//! The hyper-parameters of CFA, and their check.

use crate::training::check;
use crate::{BaselineError, CfaFit, Result};

/// Hyper-parameters of [`Cfa`](crate::Cfa), not yet checked; [`check`](Self::check) makes them fit to learn with.
///
/// The serialised form holds neither levels nor seed: a program has one choice of each for all its parts.
///
/// ```
/// use masf_baselines::CfaParams;
/// assert!(CfaParams::default().check().is_ok());
/// assert!(CfaParams { nearest: 0, ..CfaParams::default() }.check().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CfaParams {
    /// Strides of the pyramid levels that make up a patch, ascending; the first gives the grid. Default `[8, 16]`; the paper has
    /// strides 4, 8 and 16.
    #[serde(skip)]
    pub levels: Vec<usize>,
    /// Side of the square over which features are averaged around a position, odd, 1 to 15. Default 3, as in the paper.
    pub neighbourhood: usize,
    /// A descriptor has the channels of all levels divided by this, 1 to 64 (the paper's gamma_d: 1). Default 2.
    pub channel_divisor: usize,
    /// The bank has the positions of the grid divided by this, 1 to 1024 (the paper's gamma_c). Above 1, centres come from k-means.
    /// Default 1, as in the paper.
    pub centre_divisor: usize,
    /// Nearest centres that attract a patch, 1 to 64. Default 3, as in the paper.
    pub nearest: usize,
    /// Centres after these that repel it, 1 to 64. Default 3, as in the paper.
    pub negatives: usize,
    /// The first radius of the hyperspheres, 0 or more. Default 0.00001, as in the authors' code.
    pub radius: f64,
    /// How far within the sphere a repelling centre must be before it counts (the paper's alpha), in squared distance. Default 0.1, as in
    /// the paper.
    pub margin: f64,
    /// What the loss is multiplied with (1 / nu), above 0. Default 1000, as in the authors' code.
    pub penalty: f64,
    /// Passes over the images; left out, as many as make up `passes` images. The paper has 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Images that are learned from in all, counting repetitions, where `epochs` is left out. Default 2000.
    pub passes: usize,
    /// Images of a step. Default 4, as in the authors' code.
    pub batch_size: usize,
    /// Learning rate of AdamW with AMSGrad. Default 0.001, as in the paper.
    pub learning_rate: f64,
    /// Decay of the weights. Default 0.0005, as in the paper.
    pub weight_decay: f64,
    /// The seed of all random choices.
    #[serde(skip)]
    pub seed: u64,
}

impl Default for CfaParams {
    fn default() -> Self {
        Self {
            levels: vec![8, 16],
            neighbourhood: 3,
            channel_divisor: 2,
            centre_divisor: 1,
            nearest: 3,
            negatives: 3,
            radius: 1e-5,
            margin: 0.1,
            penalty: 1000.0,
            epochs: None,
            passes: 2000,
            batch_size: 4,
            learning_rate: 1e-3,
            weight_decay: 5e-4,
            seed: 0,
        }
    }
}

impl CfaParams {
    /// The learner with these hyper-parameters.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`] names the first one that is out of range.
    pub fn check(self) -> Result<CfaFit> {
        check::levels(&self.levels)?;
        self.checked()?;
        Ok(CfaFit::new(self))
    }

    /// Whether every hyper-parameter of the serialised form is in its range.
    pub(super) fn checked(&self) -> Result<()> {
        if self.neighbourhood.is_multiple_of(2) || self.neighbourhood > 15 {
            return Err(BaselineError::parameter("neighbourhood", self.neighbourhood, "odd, 1 to 15"));
        }
        check::whole("channel_divisor", self.channel_divisor, 1, 64)?;
        check::whole("centre_divisor", self.centre_divisor, 1, 1024)?;
        check::whole("nearest", self.nearest, 1, 64)?;
        check::whole("negatives", self.negatives, 1, 64)?;
        check::real("radius", self.radius, 0.0, 1e6, true)?;
        check::real("margin", self.margin, 0.0, 1e6, true)?;
        check::real("penalty", self.penalty, 0.0, 1e9, false)?;
        check::course(self.epochs, self.passes, (self.batch_size, 1), self.learning_rate)?;
        check::real("weight_decay", self.weight_decay, 0.0, 1.0, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_checked() {
        let bad = |change: fn(&mut CfaParams)| {
            let mut params = CfaParams::default();
            change(&mut params);
            params.check().unwrap_err().to_string()
        };
        assert!(bad(|p| p.levels = vec![16, 8]).contains("levels"));
        assert!(bad(|p| p.neighbourhood = 4).contains("neighbourhood is 4; expected odd, 1 to 15"));
        assert!(bad(|p| p.neighbourhood = 17).contains("neighbourhood is 17"));
        assert!(bad(|p| p.channel_divisor = 0).contains("channel_divisor"));
        assert!(bad(|p| p.negatives = 65).contains("negatives"));
        assert!(bad(|p| p.margin = -1.0).contains("margin"));
        assert!(bad(|p| p.penalty = 0.0).contains("penalty"));
        assert!(bad(|p| p.radius = f64::NAN).contains("radius"));
        assert!(bad(|p| p.epochs = Some(0)).contains("epochs"));
        assert!(bad(|p| p.learning_rate = 0.0).contains("learning_rate"));
    }
}
