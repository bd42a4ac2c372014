//! Measuring a detector on labelled images: the metrics of the field, by the rules of `docs/protocol.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use masf_core::{Error, Progress, Result};
use masf_data::{Limits, Loader, Mask, Sample};
use masf_fusion::{Threshold, ThresholdSource};
use masf_metrics::{AUPRO_FPR_LIMIT, F1Max, PixelEvaluator, PrecisionRecallPoint, ProPoint, Ranking, RocPoint};
use ndarray::ArrayView2;

use crate::error::metrics;
use crate::{Detector, Drift, Inspection};

/// Most points of a curve that is kept for drawing.
const CURVE_POINTS: usize = 400;

/// How well a detector tells good from defective images, and where it sees the defects.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Area under the ROC curve of the image scores.
    pub image_auroc: f64,
    /// Average precision of the image scores.
    pub image_ap: f64,
    /// The largest F1 score over all thresholds.
    pub image_f1_max: f64,
    /// Area under the ROC curve of all pixels of images that are good or have a mask.
    pub pixel_auroc: Option<f64>,
    /// Average precision of the same pixels.
    pub pixel_ap: Option<f64>,
    /// Area under the per-region-overlap curve up to a false-positive rate of 0.3, divided by 0.3.
    pub aupro: Option<f64>,
    /// Why the pixel metrics are missing, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_metrics_missing: Option<String>,
    /// The number of images.
    pub images: usize,
    /// Wall time from file to score, divided by the number of images; metrics and what is done with the results do not count,
    /// nor do the images that are read meanwhile: where `visit` of [`Detector::evaluate_each`] takes long, reading seems to
    /// cost nothing.
    pub seconds_per_image: f64,
    /// The threshold of the detector.
    pub threshold: f32,
    /// The share of good images above the threshold.
    pub false_alarm_rate: f64,
    /// The share of defective images above the threshold.
    pub detection_rate: f64,
    /// The share of images with a wrong verdict.
    pub error_rate: f64,
    /// The same without the tenth of the images (rounded up) whose verdicts are the most uncertain.
    pub error_rate_of_certain: f64,
    /// How the scores of the good images compare with those of the calibration.
    pub drift: Drift,
    /// Every kind of image: `good` and the kinds of defects.
    pub kinds: BTreeMap<String, KindEvaluation>,
    /// The score of every image, in the order of the samples.
    pub scores: Vec<SampleScore>,
    /// Curves to draw; not serialised.
    #[serde(skip)]
    pub curves: Curves,
    /// The threshold of the largest F1 score.
    #[serde(skip)]
    f1_max: F1Max,
}

/// Curves of an evaluation, thinned to a few hundred points each; metrics come from the exact ones.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Curves {
    /// ROC curve of the image scores.
    pub roc: Vec<RocPoint>,
    /// Precision-recall curve of the image scores.
    pub precision_recall: Vec<PrecisionRecallPoint>,
    /// Per-region overlap of the pixels; empty where the pixel metrics are missing.
    pub pro: Vec<ProPoint>,
}

/// One image of an evaluation, see [`Detector::evaluate_each`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Evaluated<'a> {
    /// The labelled image.
    pub sample: &'a Sample,
    /// What the detector says of it.
    pub inspection: &'a Inspection,
    /// Its mask at the size of the anomaly map, if it has one.
    pub mask: Option<&'a Mask>,
    /// What its file may ask for, should it be read again: the [limits of the detector](Detector::with_limits).
    pub limits: Limits,
}

/// The images of one kind.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct KindEvaluation {
    /// The number of images.
    pub images: usize,
    /// Area under the ROC curve of this kind against the good images; `None` for the good images themselves.
    pub image_auroc: Option<f64>,
    /// The share of its images above the threshold.
    pub anomalous_rate: f64,
}

/// The score of one labelled image.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SampleScore {
    /// The image; what is not UTF-8 in it is serialised as replacement characters.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// `good` or the kind of defect.
    pub kind: String,
    /// Whether it is labelled as defective.
    pub defective: bool,
    /// Its anomaly score.
    pub image_score: f32,
    /// The uncertainty of its verdict, in `[0, 1]`.
    pub uncertainty: f32,
}

/// A path as text, whatever its name.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Detector {
    /// Measures the detector on labelled images.
    ///
    /// Maps and masks are compared at the size of the model's input. A defective image without a mask counts for image
    /// metrics only. Without any mask the pixel metrics are `None`, with the reason.
    ///
    /// # Errors
    /// An image or mask that cannot be read, a mask of another size than its image, or images that are all good or all
    /// defective.
    pub fn evaluate(&self, samples: &[Sample], progress: &dyn Progress) -> Result<Evaluation> {
        self.evaluate_each(samples, progress, |_| Ok(()))
    }

    /// As [`evaluate`](Self::evaluate), and shows every inspected image to `visit`, in the order of the samples.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and those of `visit`, which end it.
    pub fn evaluate_each(
        &self,
        samples: &[Sample],
        progress: &dyn Progress,
        mut visit: impl FnMut(Evaluated<'_>) -> Result<()>,
    ) -> Result<Evaluation> {
        check_classes(samples)?;
        let _span = tracing::info_span!("evaluate", images = samples.len()).entered();
        let (started, mut beside) = (Instant::now(), Duration::ZERO);
        let mut loader = Loader::new(samples, self.preprocess, self.looks().load_options(self.limits), progress);
        let mut pixels = PixelEvaluator::new();
        let mut scores = Vec::with_capacity(samples.len());
        progress.start("evaluating", samples.len() as u64);
        while let Some(batch) = loader.next_batch(self.batch())? {
            if let Some(failed) = batch.failed.into_iter().next() {
                return Err(failed.error.into());
            }
            let Some(tensor) = batch.tensor else { continue };
            let geometries =
                batch.images.iter().map(|image| self.preprocess.geometry(image.size)).collect::<Result<Vec<_>, _>>()?;
            let inspections = self.run(&tensor, &geometries)?;
            let inspected = Instant::now();
            for (loaded, inspection) in batch.images.iter().zip(inspections) {
                let Some(sample) = samples.get(loaded.index) else { continue };
                let defective = sample.label.is_defective();
                if !defective || loaded.mask.is_some() {
                    add_pixels(&mut pixels, &inspection, loaded.mask.as_ref())?;
                }
                let mask = loaded.mask.as_ref();
                visit(Evaluated { sample, inspection: &inspection, mask, limits: self.limits })?;
                scores.push(SampleScore {
                    path: sample.path.clone(),
                    kind: sample.kind.clone(),
                    defective,
                    image_score: inspection.image_score,
                    uncertainty: inspection.uncertainty,
                });
            }
            beside += inspected.elapsed();
            progress.step(batch.images.len() as u64);
        }
        progress.finish();
        let seconds_per_image = (started.elapsed() - beside).as_secs_f64() / scores.len().max(1) as f64;
        self.summarise(scores, pixels, seconds_per_image)
    }

    fn summarise(
        &self,
        scores: Vec<SampleScore>,
        pixels: PixelEvaluator,
        seconds_per_image: f64,
    ) -> Result<Evaluation> {
        let ranking = rank(&scores, |_| true).map_err(metrics)?;
        let threshold = self.image_threshold;
        let rate = |wanted: &dyn Fn(&SampleScore) -> bool| share_above(&scores, &threshold, wanted);
        let mut kinds = BTreeMap::new();
        for score in &scores {
            kinds.entry(score.kind.clone()).or_insert_with(|| KindEvaluation {
                images: scores.iter().filter(|other| other.kind == score.kind).count(),
                image_auroc: rank(&scores, |other| !other.defective || other.kind == score.kind)
                    .ok()
                    .filter(|_| score.defective)
                    .map(|ranking| ranking.auroc()),
                anomalous_rate: rate(&|other| other.kind == score.kind),
            });
        }
        let mut curves = Curves {
            roc: ranking.roc_curve(Some(CURVE_POINTS)),
            precision_recall: ranking.precision_recall_curve(Some(CURVE_POINTS)),
            pro: Vec::new(),
        };
        let (pixel_auroc, pixel_ap, aupro, pixel_metrics_missing) = match pixel_metrics(pixels) {
            Ok((auroc, ap, aupro, pro)) => {
                curves.pro = pro;
                (Some(auroc), Some(ap), Some(aupro), None)
            }
            Err(reason) => (None, None, None, Some(reason.to_string())),
        };
        let f1_max = ranking.f1_max();
        let good: Vec<f32> = scores.iter().filter(|score| !score.defective).map(|score| score.image_score).collect();
        let (error_rate, error_rate_of_certain) = error_rates(&scores, &threshold);
        Ok(Evaluation {
            image_auroc: ranking.auroc(),
            image_ap: ranking.average_precision(),
            image_f1_max: f1_max.f1,
            pixel_auroc,
            pixel_ap,
            aupro,
            pixel_metrics_missing,
            images: scores.len(),
            seconds_per_image,
            threshold: threshold.value,
            false_alarm_rate: rate(&|score| !score.defective),
            detection_rate: rate(&|score| score.defective),
            error_rate,
            error_rate_of_certain,
            drift: self.drift_of_good(&good)?,
            kinds,
            scores,
            curves,
            f1_max,
        })
    }
}

/// The share of wrong verdicts, of all images and of those that are left without the most uncertain tenth.
fn error_rates(scores: &[SampleScore], threshold: &Threshold) -> (f64, f64) {
    let share = |scores: &[&SampleScore]| {
        let wrong =
            scores.iter().filter(|score| threshold.is_exceeded_by(score.image_score) != score.defective).count();
        wrong as f64 / scores.len().max(1) as f64
    };
    let mut by_certainty: Vec<&SampleScore> = scores.iter().collect();
    by_certainty.sort_by(|a, b| a.uncertainty.total_cmp(&b.uncertainty));
    let all = share(&by_certainty);
    by_certainty.truncate(scores.len() - scores.len().div_ceil(10));
    (all, share(&by_certainty))
}

/// The share of the images of a selection that are above a threshold; 0 without any.
fn share_above(scores: &[SampleScore], threshold: &Threshold, selected: impl Fn(&SampleScore) -> bool) -> f64 {
    let chosen = || scores.iter().filter(|score| selected(score));
    let above = chosen().filter(|score| threshold.is_exceeded_by(score.image_score)).count();
    above as f64 / chosen().count().max(1) as f64
}

/// Both classes are needed; told before an hour is spent on scoring.
fn check_classes(samples: &[Sample]) -> Result<()> {
    let defective = samples.iter().filter(|sample| sample.label.is_defective()).count();
    let problem = match (samples.len() - defective, defective) {
        (0, 0) => "there are none".to_owned(),
        (good, 0) => format!("all {good} are good; defective ones are needed to measure against"),
        (0, bad) => format!("all {bad} are defective; good ones are needed to measure against"),
        _ => return Ok(()),
    };
    Err(Error::data("test images", problem))
}

/// Ranks the images of a selection.
fn rank(scores: &[SampleScore], selected: impl Fn(&SampleScore) -> bool) -> Result<Ranking, masf_metrics::Error> {
    let (values, labels): (Vec<f32>, Vec<bool>) =
        scores.iter().filter(|score| selected(score)).map(|score| (score.image_score, score.defective)).unzip();
    Ranking::new(&values, &labels)
}

fn add_pixels(pixels: &mut PixelEvaluator, inspection: &Inspection, mask: Option<&Mask>) -> Result<()> {
    let map = inspection.anomaly_map.view();
    let Some(mask) = mask else { return pixels.add(map, None).map_err(metrics) };
    let size = mask.size();
    let mask = ArrayView2::from_shape((size.height as usize, size.width as usize), mask.pixels())
        .map_err(|error| Error::data("mask", error.to_string()))?;
    pixels.add(map, Some(mask)).map_err(metrics)
}

/// Pixel AUROC, pixel AP, AUPRO and the PRO curve.
fn pixel_metrics(pixels: PixelEvaluator) -> Result<(f64, f64, f64, Vec<ProPoint>), masf_metrics::Error> {
    let ranking = pixels.finish()?;
    let pro = ranking.pro_curve(Some(CURVE_POINTS));
    Ok((ranking.auroc(), ranking.average_precision(), ranking.aupro(AUPRO_FPR_LIMIT)?, pro))
}

impl Evaluation {
    /// The share of the good images, or of the defective ones, above another threshold than the detector's.
    pub fn share_above(&self, threshold: &Threshold, defective: bool) -> f64 {
        share_above(&self.scores, threshold, |score| score.defective == defective)
    }

    /// The threshold of the largest F1 score on these images, on the scale of `current`.
    ///
    /// It lies half-way between the lowest score that it calls anomalous and the next one below.
    ///
    /// # Errors
    /// Scores that are not finite.
    pub fn f1_threshold(&self, current: &Threshold) -> Result<Threshold> {
        let lowest = self.f1_max.threshold;
        let below =
            self.scores.iter().map(|score| score.image_score).filter(|score| *score < lowest).max_by(f32::total_cmp);
        let value = below.map_or(lowest.next_down(), |below| (below + (lowest - below) / 2.0).min(lowest.next_down()));
        Ok(current.moved_to(value, ThresholdSource::F1Max { images: self.images })?)
    }
}

/// A rate as people read it.
pub(crate) fn percent(rate: f64) -> String {
    format!("{:.1} %", 100.0 * rate)
}

/// A metric as people read it, or a dash.
pub(crate) fn number(metric: Option<f64>) -> String {
    metric.map_or("-".to_owned(), |metric| format!("{metric:.4}"))
}

/// A table for people.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "images             {} ({:.1} ms each)", self.images, 1e3 * self.seconds_per_image)?;
        writeln!(f, "image AUROC        {:.4}", self.image_auroc)?;
        writeln!(f, "image AP           {:.4}", self.image_ap)?;
        writeln!(f, "image F1-max       {:.4}", self.image_f1_max)?;
        writeln!(f, "pixel AUROC        {}", number(self.pixel_auroc))?;
        writeln!(f, "pixel AP           {}", number(self.pixel_ap))?;
        writeln!(f, "AUPRO (FPR < 0.3)  {}", number(self.aupro))?;
        if let Some(reason) = &self.pixel_metrics_missing {
            writeln!(f, "no pixel metrics:  {reason}")?;
        }
        writeln!(f, "false alarms       {} at the threshold {:.4}", percent(self.false_alarm_rate), self.threshold)?;
        writeln!(f, "defects found      {}", percent(self.detection_rate))?;
        writeln!(
            f,
            "wrong verdicts     {} ({} without the most uncertain tenth)",
            percent(self.error_rate),
            percent(self.error_rate_of_certain)
        )?;
        let width = self.kinds.keys().map(|kind| kind.chars().count()).max().unwrap_or(0).max(4);
        writeln!(f, "\n{:width$}  images  image AUROC  called anomalous", "kind")?;
        for (kind, found) in &self.kinds {
            let auroc = number(found.image_auroc);
            let rate = percent(found.anomalous_rate);
            writeln!(f, "{kind:width$}  {:>6}  {auroc:>11}  {rate:>16}", found.images)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_uncertain_verdicts_are_left_out() {
        let score = |image_score, uncertainty| SampleScore {
            path: PathBuf::new(),
            kind: String::new(),
            defective: false,
            image_score,
            uncertainty,
        };
        let threshold = Threshold { value: 1.0, typical: 0.0, source: ThresholdSource::Manual };
        // One wrong verdict of ten: the most uncertain one, then the most certain one.
        for (uncertainty, of_certain) in [(1.0, 0.0), (0.0, 1.0 / 9.0)] {
            let mut scores = vec![score(0.0, 0.5); 9];
            scores.push(score(2.0, uncertainty));
            assert_eq!(error_rates(&scores, &threshold), (0.1, of_certain));
        }
    }
}
