//! The settings of the fusion and their check.

use std::collections::BTreeMap;

use crate::position::LEAST_IMAGES;
use crate::{Detail, FineScale, FusionError};

/// How the score of an image is read from its anomaly map.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageScore {
    /// The largest value.
    Max,
    /// The mean of the largest values, as a share of all pixels in `(0, 1]`.
    TopFraction(f64),
}

/// How the score maps of branches and scales are weighed.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Weights {
    /// All branches alike.
    Equal,
    /// What the branch of a name counts for beside one that is not named, which counts 1; above 0 and at most 1000. All maps of a branch count alike.
    Shares(BTreeMap<String, f64>),
    /// By their precision in telling synthetic defects from normal images; see [`log_variance`](crate::log_variance).
    Learned,
}

impl Default for Weights {
    /// The memory bank counts four times.
    fn default() -> Self {
        Self::Shares([("memory".to_owned(), 4.0)].into())
    }
}

/// Whether median and scale of normal scores are taken position by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PositionAware {
    /// One median and scale for all positions.
    #[default]
    Never,
    /// Where normal scores depend on the position, as with aligned objects, judged map by map on normal images.
    Auto,
    /// For every map.
    Always,
}

/// How strongly positions where a score map is unsure lower its weight there; 0 turns a term off.
///
/// The weight of a map is divided by `1 + views (u / u0)^2 + disagreement (t / t0)^2`: `u` is its standard deviation over the
/// views, `t` its distance from the weighted mean of all maps, both relative to the height of the score, and `u0`, `t0` their
/// 0.9-quantiles on normal images.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Weight of the variance over the views, 0 to 100.
    pub views: f64,
    /// Weight of the disagreement of maps, 0 to 100.
    pub disagreement: f64,
}

impl Gate {
    /// Whether it does anything.
    pub fn is_on(&self) -> bool {
        self.views > 0.0 || self.disagreement > 0.0
    }
}

/// Settings of the fusion, unchecked.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionParams {
    /// Standard deviation of the Gaussian smoothing in pixels of the model's input; 0 turns it off.
    pub smoothing_sigma: f64,
    /// The quantile of normal scores, in `(0.5, 1]`, that becomes 1 on the common scale.
    pub upper_quantile: f64,
    /// How the image score is read.
    pub image_score: ImageScore,
    /// Whether the calibration depends on the position.
    pub position_aware: PositionAware,
    /// How branches and scales are weighed.
    pub weights: Weights,
    /// Synthetic defects that learned weights are trained on, 8 to 10,000; whoever fits makes them. More give finer weights
    /// and cost a pass through the backbone each. Used for learned weights of several maps only.
    pub synthetic_defects: usize,
    /// Where score maps lose weight for lack of agreement.
    pub gate: Gate,
    /// How strongly maps follow the finest scale of branches that have several; image scores do not depend on it.
    pub fine_scale: FineScale,
    /// How strongly maps follow what the image shows; image scores do not depend on it.
    pub detail: Detail,
}

impl Default for FusionParams {
    fn default() -> Self {
        Self {
            smoothing_sigma: 4.0,
            upper_quantile: 0.995,
            image_score: ImageScore::TopFraction(0.01),
            position_aware: PositionAware::Never,
            weights: Weights::default(),
            synthetic_defects: 100,
            gate: Gate::default(),
            fine_scale: FineScale::default(),
            detail: Detail::default(),
        }
    }
}

/// Settings whose ranges have been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct FusionValidParams(pub(crate) FusionParams);

impl FusionParams {
    /// Checks every range.
    ///
    /// # Errors
    /// [`FusionError::Parameter`] names the setting.
    pub fn check(self) -> Result<FusionValidParams, FusionError> {
        if !(0.0..=1000.0).contains(&self.smoothing_sigma) {
            return Err(FusionError::parameter("fusion.smoothing_sigma", self.smoothing_sigma, "0 to 1000 pixels"));
        }
        check_upper_quantile(self.upper_quantile)?;
        if let ImageScore::TopFraction(share) = self.image_score
            && !(share > 0.0 && share <= 1.0)
        {
            return Err(FusionError::parameter("fusion.image_score.top_fraction", share, "above 0 and at most 1"));
        }
        if !(8..=10_000).contains(&self.synthetic_defects) {
            return Err(FusionError::parameter("fusion.synthetic_defects", self.synthetic_defects, "8 to 10000"));
        }
        for (name, value) in
            [("fusion.gate.views", self.gate.views), ("fusion.gate.disagreement", self.gate.disagreement)]
        {
            if !(0.0..=100.0).contains(&value) {
                return Err(FusionError::parameter(name, value, "0 to 100"));
            }
        }
        if let Weights::Shares(shares) = &self.weights
            && let Some(share) = shares.values().find(|share| !(**share > 0.0 && **share <= 1000.0))
        {
            return Err(FusionError::parameter("fusion.weights.shares", *share, "above 0 and at most 1000"));
        }
        self.fine_scale.check()?;
        self.detail.check()?;
        Ok(FusionValidParams(self))
    }
}

impl FusionValidParams {
    /// The settings.
    pub fn params(&self) -> &FusionParams {
        &self.0
    }

    /// The least number of normal images whose scores it can be learned from.
    pub fn least_images(&self) -> usize {
        if self.0.position_aware == PositionAware::Always { LEAST_IMAGES } else { 1 }
    }
}

/// Refuses an upper quantile that does not lie above the median.
pub(crate) fn check_upper_quantile(quantile: f64) -> Result<(), FusionError> {
    if quantile > 0.5 && quantile <= 1.0 {
        return Ok(());
    }
    Err(FusionError::parameter("fusion.upper_quantile", quantile, "above 0.5 and at most 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let default = FusionParams::default();
        let shares = |share| Weights::Shares([("memory".to_owned(), share)].into());
        let fine = |gain, sigma| FusionParams { fine_scale: FineScale { gain, sigma }, ..default.clone() };
        let gate = |views, disagreement| FusionParams { gate: Gate { views, disagreement }, ..default.clone() };
        let wrong = [
            (FusionParams { smoothing_sigma: f64::NAN, ..default.clone() }, "smoothing_sigma"),
            (FusionParams { upper_quantile: 0.5, ..default.clone() }, "upper_quantile"),
            (FusionParams { image_score: ImageScore::TopFraction(0.0), ..default.clone() }, "top_fraction"),
            (FusionParams { synthetic_defects: 7, ..default.clone() }, "synthetic_defects"),
            (FusionParams { weights: shares(0.0), ..default.clone() }, "weights.shares"),
            (FusionParams { weights: shares(f64::NAN), ..default.clone() }, "weights.shares"),
            (fine(-0.5, 16.0), "fine_scale.gain"),
            (fine(0.5, 0.0), "fine_scale.sigma"),
            (gate(-1.0, 0.0), "gate.views"),
            (gate(0.0, f64::NAN), "gate.disagreement"),
            (FusionParams { detail: Detail { gain: f64::NAN, radius: 8 }, ..default.clone() }, "detail.gain"),
            (FusionParams { detail: Detail { gain: 1.0, radius: 0 }, ..default.clone() }, "detail.radius"),
        ];
        for (params, name) in wrong {
            assert!(params.check().unwrap_err().to_string().contains(name));
        }
    }
}
