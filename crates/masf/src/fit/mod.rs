//! Fitting: from normal images to a [`Detector`](crate::Detector).
//!
//! 1. The images are read, preprocessed and run through the backbone once; the features go to a cache.
//! 2. Cross-fitting: the images are split into folds (like images together), and each fold is scored by branches that were
//!    fitted on the other folds. These are scores of normal images that the scorer has not seen.
//!    Where there are test-time views, they are scored with it; where weights are learned, so are synthetic defects on a bounded
//!    number of these images.
//! 3. The fusion learns its scales, weights and gate from them, and the thresholds are their conformal quantiles.
//! 4. The branches are fitted on all images.

mod folds;
mod held_out;

use masf_core::{
    AnomalyMap, FeatureCache, FeatureCacheBuilder, FeatureExtractor, Fit, Fusion, Progress, PyramidSource, Result,
    Scorer, Scores, Subset,
};
use masf_fusion::{CalibratedFusion, DefectMaps, FusionValidParams, Threshold, conformal_threshold};

use crate::pipeline::{self, ViewScores};
use folds::Signatures;
pub(crate) use held_out::{DefectScores, HeldOut};

/// The least number of images to fit on: one to learn from, one to score.
pub(crate) const MIN_IMAGES: usize = 2;

/// A [`Fit`] of any scorer.
pub(crate) trait FitBranch: Send + Sync {
    fn fit_branch(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>>;
}

impl<F: Fit<Scorer: 'static> + Send + Sync> FitBranch for F {
    fn fit_branch(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(self.fit(source, progress)?))
    }
}

/// The features of the images to learn from.
pub(crate) struct Extracted {
    pub(crate) cache: FeatureCache,
    signatures: Signatures,
}

/// Collects the features of the images to learn from.
pub(crate) struct Extraction {
    cache: FeatureCacheBuilder,
    signatures: Signatures,
}

impl Extraction {
    /// Keeps at most `budget` bytes of features in memory.
    pub(crate) fn new(budget: usize) -> Self {
        Self { cache: FeatureCacheBuilder::new(budget), signatures: Signatures::default() }
    }

    /// Adds preprocessed images `[B, 3, H, W]`.
    pub(crate) fn push(&mut self, backbone: &dyn FeatureExtractor, images: &candle_core::Tensor) -> Result<()> {
        let pyramid = backbone.extract(&images.to_device(&backbone.device())?)?;
        self.signatures.push(&pyramid)?;
        self.cache.push(&pyramid)
    }

    pub(crate) fn finish(self) -> Result<Extracted> {
        Ok(Extracted { cache: self.cache.finish()?, signatures: self.signatures })
    }
}

/// Scores by branches that did not learn from the images.
pub(crate) struct CrossFitted {
    /// One for each normal image, in order.
    pub(crate) normals: Vec<ViewScores>,
    /// Those of synthetic defects; none where a single map has nothing to be weighed against.
    pub(crate) defects: Vec<DefectScores>,
}

/// The scores of normal images, and of synthetic defects on them, by branches that did not learn from them.
pub(crate) fn cross_fit(
    branches: &[Box<dyn FitBranch + '_>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    folds: usize,
    progress: &dyn Progress,
) -> Result<CrossFitted> {
    let count = extracted.cache.len();
    let folds = folds.min(count);
    let fold_of = extracted.signatures.folds(folds, held.seed);
    let mut scores: Vec<Option<ViewScores>> = vec![None; count];
    let mut defects = Vec::new();
    for fold in 0..folds {
        let (held_out, learned): (Vec<usize>, Vec<usize>) = (0..count).partition(|image| fold_of[*image] == fold);
        let fitted = fit_all(branches, &Subset::new(&extracted.cache, learned)?, progress)?;
        progress.start(&format!("calibration {}/{folds}", fold + 1), held_out.len() as u64);
        for image in held_out {
            progress.check()?;
            let found = held.score(&fitted, image, &extracted.cache.batch(&[image])?)?;
            if found.first.maps.len() > 1 {
                defects.extend(held.score_defects(&fitted, image)?);
            }
            scores[image] = Some(found);
            progress.step(1);
        }
        progress.finish();
    }
    Ok(CrossFitted { normals: scores.into_iter().flatten().collect(), defects })
}

/// As [`cross_fit`], of images that none of the branches learned from.
pub(crate) fn score_all(
    branches: &[Box<dyn Scorer>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    progress: &dyn Progress,
) -> Result<CrossFitted> {
    let mut scores = CrossFitted { normals: Vec::new(), defects: Vec::new() };
    progress.start("calibration", extracted.cache.len() as u64);
    for image in 0..extracted.cache.len() {
        progress.check()?;
        let found = held.score(branches, image, &extracted.cache.batch(&[image])?)?;
        if found.first.maps.len() > 1 {
            scores.defects.extend(held.score_defects(branches, image)?);
        }
        scores.normals.push(found);
        progress.step(1);
    }
    progress.finish();
    Ok(scores)
}

/// Learns calibration, weights and gate.
pub(crate) fn fit_fusion(
    params: &FusionValidParams,
    scores: &CrossFitted,
    size: (usize, usize),
) -> Result<CalibratedFusion> {
    let normals: Vec<Scores> = scores.normals.iter().map(|normal| normal.first.clone()).collect();
    let fusion = params.fit(&normals)?;
    if !fusion.needs_learning() {
        return Ok(fusion);
    }
    let normals =
        scores.normals.iter().map(|normal| pipeline::calibrate(&fusion, normal)).collect::<Result<Vec<_>>>()?;
    let defects = scores
        .defects
        .iter()
        .map(|defect| Ok(DefectMaps { maps: pipeline::calibrate(&fusion, &defect.scores)?, mask: defect.mask.clone() }))
        .collect::<Result<Vec<_>>>()?;
    fusion.learn(&normals, &defects, size)
}

/// Fits every branch on the items of a source.
pub(crate) fn fit_all(
    branches: &[Box<dyn FitBranch + '_>],
    source: &dyn PyramidSource,
    progress: &dyn Progress,
) -> Result<Vec<Box<dyn Scorer>>> {
    branches.iter().map(|branch| branch.fit_branch(source, progress)).collect()
}

/// The thresholds for images and for pixels, and the image scores that the former comes from, ascending.
pub(crate) struct Thresholds {
    pub(crate) image: Threshold,
    pub(crate) pixel: Threshold,
    pub(crate) image_scores: Vec<f32>,
}

/// The same conformal quantile of image scores and of map maxima.
pub(crate) fn thresholds(
    fusion: &dyn Fusion,
    normals: &[ViewScores],
    size: (usize, usize),
    false_alarm_rate: f64,
) -> Result<Thresholds> {
    let mut images = Vec::with_capacity(normals.len());
    let mut maxima = Vec::with_capacity(normals.len());
    for scores in normals {
        let AnomalyMap { map, image_score, .. } = pipeline::fuse(fusion, scores, size)?;
        images.extend(image_score.to_vec1::<f32>()?);
        maxima.push(map.flatten_all()?.max(0)?.to_scalar::<f32>()?);
    }
    images.sort_unstable_by(f32::total_cmp);
    Ok(Thresholds {
        image: conformal_threshold(&images, false_alarm_rate)?,
        pixel: conformal_threshold(&maxima, false_alarm_rate)?,
        image_scores: images,
    })
}
