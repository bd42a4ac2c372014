//! Whether inspected images still look like those that the thresholds were calibrated on.

use masf_core::Result;
use masf_fusion::kolmogorov_smirnov;

use crate::Detector;

/// Fewest scores on either side for a test.
const LEAST_SCORES: usize = 8;

/// How the scores of a batch of images compare with those of the calibration.
///
/// The two-sample Kolmogorov-Smirnov test, on both sides over images below the threshold: defects that were found are no
/// drift. Its p-value is small when light, camera or parts have changed, and when many defects stay just below the threshold.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Drift {
    /// The number of images in the batch.
    pub images: usize,
    /// Those above the threshold.
    pub anomalous: usize,
    /// The images compared.
    pub compared: usize,
    /// The images of the calibration that they were compared with.
    pub calibration: usize,
    /// The largest distance of the two distribution functions; `None` where there were fewer than 8 images on a side.
    pub statistic: Option<f64>,
    /// The probability of such a distance by chance.
    pub p_value: Option<f64>,
    /// What the batch gives reason to doubt, for people; `None` where all is as it was.
    pub warning: Option<String>,
}

impl Drift {
    /// Whether the images no longer look like those of the calibration.
    pub fn is_suspected(&self) -> bool {
        self.warning.is_some()
    }
}

impl Detector {
    /// Compares the image scores of a batch with those of the calibration.
    ///
    /// A warning is given when the test's p-value falls below `threshold.drift_level` of the configuration, or when more than
    /// half of at least 8 images are anomalous. [`inspect_batch`](Self::inspect_batch) makes this comparison itself and logs a
    /// warning; call it with the scores of a longer time to see slow changes.
    ///
    /// # Errors
    /// Scores that are not finite.
    pub fn drift(&self, image_scores: &[f32]) -> Result<Drift> {
        let threshold = self.image_threshold;
        let below = |scores: &[f32]| -> Vec<f32> {
            scores.iter().copied().filter(|score| !threshold.is_exceeded_by(*score)).collect()
        };
        let mut drift = self.compare(&below(image_scores), &below(&self.calibration_scores))?;
        drift.images = image_scores.len();
        drift.anomalous = image_scores.len() - drift.compared;
        if drift.images >= LEAST_SCORES && 2 * drift.anomalous > drift.images {
            let problem = format!(
                "{} of {} images are anomalous: if most of them are good, the images no longer look like those of the calibration",
                drift.anomalous, drift.images
            );
            drift.warning = Some(drift.warning.map_or(problem.clone(), |other| format!("{problem}; {other}")));
        }
        Ok(drift)
    }

    /// Compares the scores of images that are known to be good with those of the calibration, whether above the threshold or not.
    ///
    /// # Errors
    /// Scores that are not finite.
    pub fn drift_of_good(&self, image_scores: &[f32]) -> Result<Drift> {
        let mut drift = self.compare(image_scores, &self.calibration_scores)?;
        drift.anomalous = image_scores.iter().filter(|score| self.image_threshold.is_exceeded_by(**score)).count();
        Ok(drift)
    }

    fn compare(&self, scores: &[f32], calibration: &[f32]) -> Result<Drift> {
        let mut drift = Drift {
            images: scores.len(),
            anomalous: 0,
            compared: scores.len(),
            calibration: calibration.len(),
            statistic: None,
            p_value: None,
            warning: None,
        };
        if scores.len() < LEAST_SCORES || calibration.len() < LEAST_SCORES {
            return Ok(drift);
        }
        let test = kolmogorov_smirnov(scores, calibration)?;
        drift.statistic = Some(test.statistic);
        drift.p_value = Some(test.p_value);
        if test.p_value < self.config.threshold.drift_level {
            drift.warning = Some(format!(
                "the scores of {} images differ from those of the {} images of the calibration (Kolmogorov-Smirnov {:.3}, p = {:.1e}): light, \
                 camera or parts may have changed; verdicts and false-alarm rate are in doubt",
                scores.len(),
                calibration.len(),
                test.statistic,
                test.p_value
            ));
        }
        Ok(drift)
    }
}
