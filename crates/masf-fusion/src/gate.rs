//! The fused map of an image: weights, gate and uncertainty, pixel by pixel.
//!
//! At every pixel the score maps `b` with scores `z_b`, variances over the views `v_b` and weights `w_b` give the score
//! `F = sum w_b g_b z_b / sum w_b g_b`. The gate `g_b = 1 / (1 + views (u_b / u0_b)^2 + disagreement (t_b / t0_b)^2)` has
//! `u_b = sqrt(v_b) / (1 + max(z_b, 0))` and `t_b = |z_b - F0| / (1 + max(F0, 0))`, with `F0` the mean without gate. Relative
//! to the height of the score, because a high score varies more in absolute terms, and a defect must not silence the map that
//! sees it.
//!
//! The variance of the score is that of the mixture of maps: `U = sum w_b g_b (v_b + (z_b - F)^2) / sum w_b g_b` (law of
//! total variance).

use rayon::prelude::*;

use crate::calibration::quantile;
use crate::{FusionError, Gate};

/// The quantile on normal images that is the unit of variance and disagreement.
const UNIT: f64 = 0.9;
/// Least unit: below it, differences are rounding.
const LEAST_UNIT: f64 = 1e-3;

/// Fewer are not worth a task of their own.
const PIXELS_PER_TASK: usize = 4096;

/// Units of the gate for one score map.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateUnits {
    /// The usual relative deviation over the views.
    pub(crate) views: f64,
    /// The usual relative distance from the mean of the maps.
    pub(crate) disagreement: f64,
}

impl GateUnits {
    pub(crate) fn check(&self) -> Result<(), FusionError> {
        let sound = |unit: f64| unit.is_finite() && unit >= LEAST_UNIT;
        if sound(self.views) && sound(self.disagreement) {
            return Ok(());
        }
        Err(FusionError::parameter("units of the gate", format!("{self:?}"), "finite and not below 0.001"))
    }
}

/// Scores and variances of one score map at the pixels of an image.
pub(crate) struct Layer {
    pub(crate) mean: Vec<f32>,
    /// `None` where there is one view only.
    pub(crate) variance: Option<Vec<f32>>,
}

impl Layer {
    fn at(&self, pixel: usize) -> (f64, f64) {
        let variance = self.variance.as_ref().and_then(|variance| variance.get(pixel)).copied().unwrap_or(0.0);
        (self.mean.get(pixel).copied().map_or(0.0, f64::from), f64::from(variance).max(0.0))
    }
}

/// The deviation over the views relative to the height of the score.
fn relative_deviation(mean: f64, variance: f64) -> f64 {
    variance.sqrt() / (1.0 + mean.max(0.0))
}

fn relative_distance(mean: f64, fused: f64) -> f64 {
    (mean - fused).abs() / (1.0 + fused.max(0.0))
}

fn weighted_mean(layers: &[Layer], weights: &[f64], pixel: usize) -> f64 {
    layers.iter().zip(weights).map(|(layer, weight)| weight * layer.at(pixel).0).sum()
}

/// Score and standard deviation of every pixel. `weights` add up to 1.
pub(crate) fn blend(layers: &[Layer], weights: &[f64], gate: Option<(Gate, &[GateUnits])>) -> (Vec<f32>, Vec<f32>) {
    let pixels = layers.first().map_or(0, |layer| layer.mean.len());
    (0..pixels)
        .into_par_iter()
        .with_min_len(PIXELS_PER_TASK)
        .map_init(
            || vec![0.0; layers.len()],
            |gated, pixel| {
                let plain = weighted_mean(layers, weights, pixel);
                let fused = match gate {
                    None => {
                        gated.copy_from_slice(weights);
                        plain
                    }
                    Some((gate, units)) => {
                        let mut sum = 0.0;
                        for (((gated, weight), layer), units) in gated.iter_mut().zip(weights).zip(layers).zip(units) {
                            let (mean, variance) = layer.at(pixel);
                            let deviation = relative_deviation(mean, variance) / units.views;
                            let distance = relative_distance(mean, plain) / units.disagreement;
                            let doubt = gate.views * deviation * deviation + gate.disagreement * distance * distance;
                            *gated = weight / (1.0 + doubt);
                            sum += *gated;
                        }
                        // Weights are positive somewhere and doubts finite, so the sum is above zero but for underflow.
                        if sum > f64::MIN_POSITIVE {
                            gated.iter_mut().for_each(|weight| *weight /= sum);
                        } else {
                            gated.copy_from_slice(weights);
                        }
                        weighted_mean(layers, gated, pixel)
                    }
                };
                let variance: f64 = layers
                    .iter()
                    .zip(gated.iter())
                    .map(|(layer, weight)| {
                        let (mean, variance) = layer.at(pixel);
                        weight * (variance + (mean - fused) * (mean - fused))
                    })
                    .sum();
                (fused as f32, variance.max(0.0).sqrt() as f32)
            },
        )
        .unzip()
}

/// Collects what is usual on normal images.
pub(crate) struct UnitCollector {
    deviations: Vec<Vec<f32>>,
    distances: Vec<Vec<f32>>,
}

impl UnitCollector {
    pub(crate) fn new(maps: usize) -> Self {
        Self { deviations: vec![Vec::new(); maps], distances: vec![Vec::new(); maps] }
    }

    /// Adds pixels of a normal image.
    pub(crate) fn add(&mut self, layers: &[Layer], weights: &[f64], pixels: &[usize]) {
        for &pixel in pixels {
            let fused = weighted_mean(layers, weights, pixel);
            for ((layer, deviations), distances) in layers.iter().zip(&mut self.deviations).zip(&mut self.distances) {
                let (mean, variance) = layer.at(pixel);
                deviations.push(relative_deviation(mean, variance) as f32);
                distances.push(relative_distance(mean, fused) as f32);
            }
        }
    }

    pub(crate) fn finish(self) -> Vec<GateUnits> {
        let unit = |mut values: Vec<f32>| {
            values.sort_unstable_by(f32::total_cmp);
            quantile(&values, UNIT).max(LEAST_UNIT)
        };
        self.deviations
            .into_iter()
            .zip(self.distances)
            .map(|(deviations, distances)| GateUnits { views: unit(deviations), disagreement: unit(distances) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(mean: &[f32], variance: &[f32]) -> Layer {
        Layer { mean: mean.to_vec(), variance: Some(variance.to_vec()) }
    }

    const UNITS: [GateUnits; 2] = [GateUnits { views: 0.1, disagreement: 0.5 }; 2];

    #[test]
    fn without_gate_it_is_the_mixture_of_branches() {
        let layers = [layer(&[1.0, 2.0], &[0.0, 0.5]), layer(&[3.0, 2.0], &[0.0, 0.1])];
        let (score, deviation) = blend(&layers, &[0.25, 0.75], None);
        assert_eq!(score, [2.5, 2.0]);
        // 0.25 * 1.5^2 + 0.75 * 0.5^2 = 0.75; 0.25 * 0.5 + 0.75 * 0.1 = 0.2.
        assert!((deviation[0] - 0.75f32.sqrt()).abs() < 1e-6 && (deviation[1] - 0.2f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn a_branch_that_varies_over_the_views_loses_weight_where_it_does() {
        let layers = [layer(&[0.0, 0.0], &[0.0, 0.0]), layer(&[1.0, 1.0], &[0.0, 4.0])];
        let gate = Gate { views: 1.0, disagreement: 0.0 };
        let (score, _) = blend(&layers, &[0.5, 0.5], Some((gate, &UNITS)));
        assert_eq!(score[0], 0.5);
        // u = 2 / (1 + 1) = 1, ten units: 1 / 101 of its weight.
        assert!((score[1] - 1.0 / 102.0).abs() < 1e-6, "{score:?}");
        let stronger = blend(&layers, &[0.5, 0.5], Some((Gate { views: 4.0, disagreement: 0.0 }, &UNITS))).0;
        assert!(stronger[1] < score[1]);
    }

    #[test]
    fn a_branch_that_stands_alone_loses_weight() {
        let units = [GateUnits { views: 0.1, disagreement: 0.5 }; 3];
        let layers = [layer(&[0.0], &[0.0]), layer(&[0.2], &[0.0]), layer(&[6.0], &[0.0])];
        let weights = [1.0 / 3.0; 3];
        let gate = Gate { views: 0.0, disagreement: 1.0 };
        let (plain, _) = blend(&layers, &weights, None);
        let (gated, _) = blend(&layers, &weights, Some((gate, &units)));
        assert!(gated[0] < plain[0], "{gated:?} {plain:?}");
        assert!(gated[0] > 0.2, "it still counts");
    }

    #[test]
    fn extreme_values_stay_finite() {
        let layers = [layer(&[1e30, -1e30], &[1e30, 0.0]), layer(&[0.0, 0.0], &[0.0, 1e30])];
        let gate = Gate { views: 100.0, disagreement: 100.0 };
        let (score, deviation) = blend(&layers, &[1.0, 0.0], Some((gate, &UNITS)));
        assert!(score.iter().chain(&deviation).all(|value| value.is_finite()), "{score:?} {deviation:?}");
    }

    #[test]
    fn units_are_those_of_normal_images() {
        let mut collector = UnitCollector::new(2);
        // Relative deviations 0, 0.1, ..., 1 of the first map; the second never varies.
        let mean = vec![0.0; 11];
        let variance: Vec<f32> = (0..11).map(|i| (i as f32 / 10.0).powi(2)).collect();
        let pixels: Vec<usize> = (0..11).collect();
        collector.add(&[layer(&mean, &variance), layer(&mean, &[0.0; 11])], &[0.5, 0.5], &pixels);
        let units = collector.finish();
        assert!((units[0].views - 0.9).abs() < 1e-6);
        assert_eq!((units[1].views, units[0].disagreement), (LEAST_UNIT, LEAST_UNIT));
        assert!(units.iter().all(|units| units.check().is_ok()));
        assert!(GateUnits { views: 0.0, disagreement: 1.0 }.check().is_err());
    }
}
