//! Fitting: from normal images to a [`Detector`](crate::Detector).
//!
//! 1. The images are read, preprocessed and run through the backbone once; the features go to a cache.
//! 2. Cross-fitting: the images are split into folds (like images together), and each fold is scored by branches that were
//!    fitted on the other folds. These are scores of normal images that the scorer has not seen. Where a branch takes long to learn, one fold
//!    is held out for good instead: that branch learns from the others once, and stays as it is.
//! 3. The fusion learns its scales from them, and the thresholds are their conformal quantiles.
//! 4. The branches are fitted on all images, but for those that took long.

mod folds;

use masf_core::{
    AnomalyMap, FeatureCache, FeatureCacheBuilder, FeatureExtractor, Fit, Fusion, Progress, PyramidSource, Result,
    Scorer, Scores, Subset,
};
use masf_fusion::{Threshold, conformal_threshold};

use crate::pipeline;
use folds::Signatures;

/// The least number of images to fit on: one to learn from, one to score.
pub(crate) const MIN_IMAGES: usize = 2;

/// A [`Fit`] of any scorer.
pub(crate) trait FitBranch: Send + Sync {
    fn fit_branch(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>>;
    /// As [`Fit::is_expensive`].
    fn fits_once(&self) -> bool;
}

impl<F: Fit<Scorer: 'static> + Send + Sync> FitBranch for F {
    fn fit_branch(&self, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(self.fit(source, progress)?))
    }

    fn fits_once(&self) -> bool {
        self.is_expensive()
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

/// The branches, and the scores of normal images by branches that did not learn from them.
pub(crate) fn fit_and_score(
    branches: &[Box<dyn FitBranch>],
    extracted: &Extracted,
    folds: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Vec<Box<dyn Scorer>>, Vec<Scores>)> {
    if branches.iter().any(|branch| branch.fits_once()) {
        return hold_out(branches, extracted, folds, seed, progress);
    }
    let normals = cross_fit(branches, extracted, folds, seed, progress)?;
    Ok((fit_all(branches, &extracted.cache, progress)?, normals))
}

/// One fold is scored by branches fitted on the others; branches that are fast to learn are then fitted on all images.
fn hold_out(
    branches: &[Box<dyn FitBranch>],
    extracted: &Extracted,
    folds: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Vec<Box<dyn Scorer>>, Vec<Scores>)> {
    let count = extracted.cache.len();
    // Two scores are the least that a threshold can be set from.
    let fold_of = extracted.signatures.folds(folds.min(count / 2).max(2), seed);
    let (held_out, learned): (Vec<usize>, Vec<usize>) = (0..count).partition(|image| fold_of[*image] == 0);
    let mut fitted = fit_all(branches, &Subset::new(&extracted.cache, learned)?, progress)?;
    let mut normals = Vec::with_capacity(held_out.len());
    progress.start("calibration", held_out.len() as u64);
    for image in held_out {
        progress.check()?;
        normals.push(pipeline::score(&fitted, &extracted.cache.batch(&[image])?)?);
        progress.step(1);
    }
    progress.finish();
    for (branch, fitted) in branches.iter().zip(&mut fitted) {
        if !branch.fits_once() {
            *fitted = branch.fit_branch(&extracted.cache, progress)?;
        }
    }
    Ok((fitted, normals))
}

/// The scores of normal images by branches that did not learn from them.
fn cross_fit(
    branches: &[Box<dyn FitBranch>],
    extracted: &Extracted,
    folds: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Scores>> {
    let count = extracted.cache.len();
    let folds = folds.min(count);
    let fold_of = extracted.signatures.folds(folds, seed);
    let mut scores: Vec<Option<Scores>> = vec![None; count];
    for fold in 0..folds {
        let (held_out, learned): (Vec<usize>, Vec<usize>) = (0..count).partition(|image| fold_of[*image] == fold);
        let fitted = fit_all(branches, &Subset::new(&extracted.cache, learned)?, progress)?;
        progress.start(&format!("calibration {}/{folds}", fold + 1), held_out.len() as u64);
        for image in held_out {
            progress.check()?;
            scores[image] = Some(pipeline::score(&fitted, &extracted.cache.batch(&[image])?)?);
            progress.step(1);
        }
        progress.finish();
    }
    Ok(scores.into_iter().flatten().collect())
}

/// Fits every branch on the items of a source.
fn fit_all(
    branches: &[Box<dyn FitBranch>],
    source: &dyn PyramidSource,
    progress: &dyn Progress,
) -> Result<Vec<Box<dyn Scorer>>> {
    branches.iter().map(|branch| branch.fit_branch(source, progress)).collect()
}

/// The thresholds for images and for pixels: the same conformal quantile of image scores and of map maxima.
pub(crate) fn thresholds(
    fusion: &dyn Fusion,
    normals: &[Scores],
    size: (usize, usize),
    false_alarm_rate: f64,
) -> Result<(Threshold, Threshold)> {
    let mut images = Vec::with_capacity(normals.len());
    let mut maxima = Vec::with_capacity(normals.len());
    for scores in normals {
        let AnomalyMap { map, image_score } = pipeline::fuse(fusion, scores, size)?;
        images.extend(image_score.to_vec1::<f32>()?);
        maxima.push(map.flatten_all()?.max(0)?.to_scalar::<f32>()?);
    }
    Ok((conformal_threshold(&images, false_alarm_rate)?, conformal_threshold(&maxima, false_alarm_rate)?))
}
