//! Fitting: from normal images to a [`Detector`](crate::Detector).
//!
//! 1. The images are read, preprocessed and run through the backbone once; the features go to a cache. Turned images, where
//!    a branch learns from them, are further items that know which image they come from.
//! 2. Cross-fitting: the images are split into folds (like images together), and each fold is scored by branches that were
//!    fitted on the other folds. These are scores of normal images that the scorer has not seen. A memory bank is fitted once, and is had without each fold
//!    from that ([`Fit::cross_fit`]).
//!    Where there are test-time views, they are scored with it; where weights are learned, so are synthetic defects on a bounded
//!    number of these images. Where a branch takes long to learn, only one fold is scored, by branches fitted on the others.
//! 3. The fusion learns its scales, weights and gate from them, and the thresholds are their conformal quantiles. Where maps follow the
//!    detail of their images, these are read once more.
//! 4. The branches are fitted on all images, where they were not already.

mod folds;
mod held_out;
mod reader;
mod student;
mod turned;

use std::cell::Cell;

use candle_core::Tensor;
use masf_core::{
    CrossFit, Error, FeatureCache, FeatureCacheBuilder, FeatureExtractor, Fit, Fusion, Progress, PyramidSource, Result,
    Scorer, Scores, Silent, Subset,
};
use masf_fusion::{CalibratedFusion, DefectMaps, FusionValidParams, Threshold, conformal_threshold};
use rayon::prelude::*;

use crate::pipeline::{self, ViewScores};
use folds::Signatures;
pub(crate) use held_out::{DefectScores, HeldOut};
pub(crate) use reader::Reader;
pub(crate) use student::StudentBranch;
use turned::{Joined, Turned};

/// The least number of images to fit on: one to learn from, one to score.
pub(crate) const MIN_IMAGES: usize = 2;

/// What a fitted branch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To score images that it did not learn from.
    Calibration,
    /// To be part of the detector.
    Detector,
}

/// A branch that was learned, and can be had without each fold.
type AnyCrossFit<'a> = Box<dyn CrossFit<Box<dyn Scorer>> + 'a>;

/// A [`Fit`] of any scorer.
pub(crate) trait FitBranch: Send + Sync {
    fn fit_branch(
        &self,
        purpose: Purpose,
        source: &dyn PyramidSource,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Scorer>>;

    /// As [`Fit::is_expensive`].
    fn takes_long(&self) -> bool {
        false
    }

    /// Whether it learns from turned images too.
    fn uses_turned(&self) -> bool {
        false
    }

    /// As [`Fit::cross_fit`].
    fn cross_fit_branch<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> Result<Option<AnyCrossFit<'a>>> {
        let _ = (source, fold_of, progress);
        Ok(None)
    }
}

/// Learns anew for each fold.
struct Anew<'a> {
    branch: &'a (dyn FitBranch + 'a),
    source: &'a dyn PyramidSource,
    fold_of: &'a [usize],
}

impl CrossFit<Box<dyn Scorer>> for Anew<'_> {
    fn without(&self, fold: usize, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        let left = (0..self.source.len()).filter(|item| self.fold_of[*item] != fold).collect();
        self.branch.fit_branch(Purpose::Calibration, &Subset::new(self.source, left)?, progress)
    }

    fn whole(self: Box<Self>, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        self.branch.fit_branch(Purpose::Detector, self.source, progress)
    }
}

impl<F: Fit<Scorer: 'static> + Send + Sync> FitBranch for F {
    fn fit_branch(&self, _: Purpose, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<Box<dyn Scorer>> {
        Ok(Box::new(self.fit(source, progress)?))
    }

    fn takes_long(&self) -> bool {
        self.is_expensive()
    }

    fn cross_fit_branch<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> Result<Option<AnyCrossFit<'a>>> {
        let cheaper = self.cross_fit(source, fold_of, progress)?;
        Ok(cheaper.map(|cheaper| cheaper.map(|scorer| Box::new(scorer) as Box<dyn Scorer>)))
    }
}

/// A branch that learns from turned images too.
pub(crate) struct OnTurned<F>(pub(crate) F);

impl<F: FitBranch> FitBranch for OnTurned<F> {
    fn fit_branch(
        &self,
        purpose: Purpose,
        source: &dyn PyramidSource,
        progress: &dyn Progress,
    ) -> Result<Box<dyn Scorer>> {
        self.0.fit_branch(purpose, source, progress)
    }

    fn takes_long(&self) -> bool {
        self.0.takes_long()
    }

    fn cross_fit_branch<'a>(
        &'a self,
        source: &'a dyn PyramidSource,
        fold_of: &[usize],
        progress: &dyn Progress,
    ) -> Result<Option<AnyCrossFit<'a>>> {
        self.0.cross_fit_branch(source, fold_of, progress)
    }

    fn uses_turned(&self) -> bool {
        true
    }
}

/// The features of the images to learn from.
pub(crate) struct Extracted {
    pub(crate) cache: FeatureCache,
    turned: Option<(FeatureCache, Vec<usize>)>,
    signatures: Signatures,
}

/// Collects the features of the images to learn from.
pub(crate) struct Extraction {
    cache: FeatureCacheBuilder,
    turned: Turned,
    signatures: Signatures,
}

impl Extraction {
    /// Keeps at most `budget` bytes of features in memory.
    pub(crate) fn new(budget: usize) -> Self {
        Self { cache: FeatureCacheBuilder::new(budget), turned: Turned::none(), signatures: Signatures::default() }
    }

    /// Learns from images turned to `turns` angles too, at most `most` of those that `total` images give.
    pub(crate) fn with_turned(mut self, turns: usize, total: usize, most: usize) -> Self {
        self.turned = Turned::new(turns, total, most);
        self
    }

    /// Adds preprocessed images `[B, 3, H, W]`.
    pub(crate) fn push(&mut self, backbone: &dyn FeatureExtractor, images: &Tensor) -> Result<()> {
        let pyramid = backbone.extract(&images.to_device(&backbone.device())?)?;
        self.signatures.push(&pyramid)?;
        self.cache.push(&pyramid)
    }

    /// Adds the turned versions of images just pushed; `indices` are their positions among all that were to be read.
    pub(crate) fn push_turned(
        &mut self,
        backbone: &dyn FeatureExtractor,
        images: &Tensor,
        indices: &[usize],
    ) -> Result<()> {
        let first = self.signatures.len() - indices.len();
        self.turned.push(backbone, images, indices, first)
    }

    pub(crate) fn finish(self) -> Result<Extracted> {
        Ok(Extracted { cache: self.cache.finish()?, turned: self.turned.finish()?, signatures: self.signatures })
    }
}

impl Extracted {
    /// Fits every branch on the images of a selection, and on their turned versions where it uses them.
    pub(crate) fn fit_all(
        &self,
        purpose: Purpose,
        branches: &[Box<dyn FitBranch + '_>],
        selected: impl Fn(usize) -> bool,
        progress: &dyn Progress,
    ) -> Result<Vec<Box<dyn Scorer>>> {
        let upright = Subset::new(&self.cache, (0..self.cache.len()).filter(|image| selected(*image)).collect())?;
        let fit = |branch: &(dyn FitBranch + '_)| match &self.turned {
            Some((cache, image_of)) if branch.uses_turned() => {
                let own = (0..cache.len()).filter(|item| selected(image_of[*item])).collect();
                branch.fit_branch(purpose, &Joined(&upright, &Subset::new(cache, own)?), progress)
            }
            _ => branch.fit_branch(purpose, &upright, progress),
        };
        branches.iter().map(|branch| fit(branch.as_ref())).collect()
    }
}

/// Scores by branches that did not learn from the images.
#[derive(Default)]
pub(crate) struct CrossFitted {
    /// The normal images that were scored, by their numbers among all.
    pub(crate) images: Vec<usize>,
    /// The scores of each.
    pub(crate) normals: Vec<ViewScores>,
    /// Those of synthetic defects; none where a single map has nothing to be weighed against.
    pub(crate) defects: Vec<DefectScores>,
    /// Why others were not scored.
    pub(crate) skipped: Vec<Error>,
}

/// Parts of the images that each is scored by branches of the others, where these come cheaply.
const CHEAP_FOLDS: usize = 20;
/// The same where they have to be learned anew, and the images of which one is scored where learning takes long.
const FOLDS: usize = 5;

/// The branches, fitted on all images, and the scores of normal images and of synthetic defects on them by branches that did not learn
/// from them.
pub(crate) fn fit_and_score(
    branches: &[Box<dyn FitBranch + '_>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    folds: Option<usize>,
    progress: &dyn Progress,
) -> Result<(Vec<Box<dyn Scorer>>, CrossFitted)> {
    if branches.iter().any(|branch| branch.takes_long()) {
        let scores = hold_out(branches, extracted, held, folds.unwrap_or(FOLDS), progress)?;
        return Ok((extracted.fit_all(Purpose::Detector, branches, |_| true, progress)?, scores));
    }
    held.check_enough(extracted.cache.len())?;
    // A branch that learns anew for each fold decides for all. Without items it says so at once, and no other learns in vain.
    let nothing = Subset::new(&extracted.cache, Vec::new())?;
    let anew = branches.iter().any(|branch| matches!(branch.cross_fit_branch(&nothing, &[], &Silent), Ok(None)));
    let usual = if anew { FOLDS } else { CHEAP_FOLDS };
    let split = Split::new(extracted, folds.unwrap_or(usual), held.seed, progress)?;
    let prepared = split.prepare(branches, progress)?;
    if folds.is_some() || anew || prepared.iter().all(Option::is_some) {
        return cross_fit(branches, prepared, &split, held, progress);
    }
    // The memory budget is for one set of what is learned.
    drop(prepared);
    let split = Split::new(extracted, FOLDS, held.seed, progress)?;
    cross_fit(branches, split.prepare(branches, progress)?, &split, held, progress)
}

/// As [`cross_fit`], of one fold alone.
fn hold_out(
    branches: &[Box<dyn FitBranch + '_>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    folds: usize,
    progress: &dyn Progress,
) -> Result<CrossFitted> {
    let count = extracted.cache.len();
    // Two scores are the least that a threshold can be set from.
    let fold_of = extracted.signatures.mixed_folds(folds.min(count / 2).max(2), held.seed, progress)?;
    let held_out: Vec<usize> = (0..count).filter(|image| fold_of[*image] == 0).collect();
    if held_out.len() < 2 {
        let problem =
            format!("{count} can be used; at least 3 needed where a network is trained, and 100 are advisable");
        return Err(Error::data("training images", problem));
    }
    held.check_enough(held_out.len())?;
    let fitted = extracted.fit_all(Purpose::Calibration, branches, |image| fold_of[image] != 0, progress)?;
    score(&fitted, extracted, held, &held_out, (0, held_out.len()), "calibration", progress)
}

/// The images, split into folds.
struct Split<'a> {
    extracted: &'a Extracted,
    folds: usize,
    fold_of: Vec<usize>,
    /// All images and their turned versions, and the folds of these, where there are any.
    with_turned: Option<(Joined<'a>, Vec<usize>)>,
}

impl<'a> Split<'a> {
    fn new(extracted: &'a Extracted, folds: usize, seed: u64, progress: &dyn Progress) -> Result<Self> {
        let folds = folds.min(extracted.cache.len());
        let fold_of = extracted.signatures.folds(folds, seed, progress)?;
        let with_turned = extracted.turned.as_ref().map(|(turned, image_of)| {
            let of_turned = image_of.iter().map(|image| fold_of[*image]);
            (Joined(&extracted.cache, turned), fold_of.iter().copied().chain(of_turned).collect())
        });
        Ok(Self { extracted, folds, fold_of, with_turned })
    }

    /// The items that a branch learns from, and their folds.
    fn items(&self, branch: &dyn FitBranch) -> (&dyn PyramidSource, &[usize]) {
        match &self.with_turned {
            Some((source, fold_of)) if branch.uses_turned() => (source, fold_of),
            _ => (&self.extracted.cache, &self.fold_of),
        }
    }

    fn prepare<'b>(
        &'b self,
        branches: &'b [Box<dyn FitBranch + '_>],
        progress: &dyn Progress,
    ) -> Result<Vec<Option<AnyCrossFit<'b>>>> {
        let mut prepared = Vec::with_capacity(branches.len());
        for branch in branches {
            let (source, fold_of) = self.items(branch.as_ref());
            prepared.push(branch.cross_fit_branch(source, fold_of, progress)?);
        }
        Ok(prepared)
    }
}

/// The branches, fitted on all images, and every image's scores by branches that did not learn from its fold.
fn cross_fit<'a>(
    branches: &'a [Box<dyn FitBranch + '_>],
    prepared: Vec<Option<AnyCrossFit<'a>>>,
    split: &'a Split<'a>,
    held: &HeldOut<'_>,
    progress: &dyn Progress,
) -> Result<(Vec<Box<dyn Scorer>>, CrossFitted)> {
    let Split { extracted, folds, fold_of, .. } = split;
    let (folds, count) = (*folds, extracted.cache.len());
    let mut learners: Vec<AnyCrossFit<'_>> = Vec::with_capacity(branches.len());
    for (branch, prepared) in branches.iter().zip(prepared) {
        let (source, fold_of) = split.items(branch.as_ref());
        learners.push(prepared.unwrap_or_else(|| Box::new(Anew { branch: branch.as_ref(), source, fold_of })));
    }
    let mut normals: Vec<Option<ViewScores>> = vec![None; count];
    let (mut defects, mut skipped) = (Vec::new(), Vec::new());
    let mut done = 0;
    for fold in 0..folds {
        let held_out: Vec<usize> = (0..count).filter(|image| fold_of[*image] == fold).collect();
        let fitted = learners.iter().map(|learner| learner.without(fold, progress)).collect::<Result<Vec<_>>>()?;
        let stage = format!("calibration {}/{folds}", fold + 1);
        let scores = score(&fitted, extracted, held, &held_out, (done, count), &stage, progress)?;
        done += held_out.len();
        defects.extend(scores.defects);
        skipped.extend(scores.skipped);
        for (image, found) in scores.images.into_iter().zip(scores.normals) {
            normals[image] = Some(found);
        }
    }
    let (images, normals) = normals.into_iter().enumerate().filter_map(|(image, found)| Some((image, found?))).unzip();
    let fitted = learners.into_iter().map(|learner| learner.whole(progress)).collect::<Result<Vec<_>>>()?;
    Ok((fitted, CrossFitted { images, normals, defects, skipped }))
}

/// As [`cross_fit`], of images that none of the branches learned from.
pub(crate) fn score_all(
    branches: &[Box<dyn Scorer>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    progress: &dyn Progress,
) -> Result<CrossFitted> {
    let images: Vec<usize> = (0..extracted.cache.len()).collect();
    score(branches, extracted, held, &images, (0, images.len()), "calibration", progress)
}

/// Scores some of the images, and synthetic defects on them where several maps are to be weighed.
///
/// `(done, total)`: how many images were scored before, and how many will have been in the end; the defects are spread over them.
fn score(
    branches: &[Box<dyn Scorer>],
    extracted: &Extracted,
    held: &HeldOut<'_>,
    images: &[usize],
    (done, total): (usize, usize),
    stage: &str,
    progress: &dyn Progress,
) -> Result<CrossFitted> {
    let mut scores = CrossFitted::default();
    progress.start(stage, images.len() as u64);
    for (place, &image) in images.iter().enumerate() {
        progress.check()?;
        match held.score(branches, image, &extracted.cache.batch(&[image])?)? {
            Ok(found) => {
                if found.first.maps.len() > 1 {
                    scores.defects.extend(held.score_defects(branches, image, (done + place, total))?);
                }
                scores.images.push(image);
                scores.normals.push(found);
            }
            Err(error) => scores.skipped.push(error),
        }
        progress.step(1);
    }
    progress.finish();
    Ok(scores)
}

/// Learns calibration, weights and gate. The scores of the defects are gone afterwards.
pub(crate) fn fit_fusion(
    params: &FusionValidParams,
    scores: &mut CrossFitted,
    size: (usize, usize),
) -> Result<CalibratedFusion> {
    let defects = std::mem::take(&mut scores.defects);
    let normals: Vec<Scores> = scores.normals.iter().map(|normal| normal.first.clone()).collect();
    let fusion = params.fit(&normals)?;
    if !fusion.needs_learning() {
        return Ok(fusion);
    }
    let normals =
        scores.normals.iter().map(|normal| pipeline::calibrate(&fusion, normal)).collect::<Result<Vec<_>>>()?;
    let defects = defects
        .into_iter()
        .map(|DefectScores { scores, inside }| Ok(DefectMaps { maps: pipeline::calibrate(&fusion, &scores)?, inside }))
        .collect::<Result<Vec<_>>>()?;
    fusion.learn(&normals, &defects, size)
}

/// The thresholds for images and for pixels, and the image scores that the former comes from, ascending.
pub(crate) struct Thresholds {
    pub(crate) image: Threshold,
    pub(crate) pixel: Threshold,
    pub(crate) image_scores: Vec<f32>,
    /// Why images that were scored are left out.
    pub(crate) skipped: Vec<Error>,
}

/// Conformal quantiles: of image scores at one rate, of map maxima at another.
pub(crate) fn thresholds(
    fusion: &dyn Fusion,
    scores: &CrossFitted,
    held: &HeldOut<'_>,
    (image_rate, pixel_rate): (f64, f64),
    progress: &dyn Progress,
) -> Result<Thresholds> {
    progress.start("thresholds", scores.normals.len() as u64);
    let summits = scores
        .images
        .par_iter()
        .zip(&scores.normals)
        .map(|(image, scores)| -> Result<Result<(Vec<f32>, f32)>> {
            progress.check()?;
            let unread = Cell::new(false);
            let luminance = || held.luminance(*image).inspect_err(|_| unread.set(true));
            let fused = match pipeline::fuse(fusion, scores, held.size(), &luminance) {
                Err(error) if unread.get() && held.may_skip(&error) => {
                    progress.step(1);
                    return Ok(Err(error));
                }
                fused => fused?,
            };
            let summit = fused.map.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            progress.step(1);
            Ok(Ok((fused.image_score.to_vec1::<f32>()?, summit)))
        })
        .collect::<Result<Vec<_>>>()?;
    progress.finish();
    let (mut images, mut maxima, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for found in summits {
        match found {
            Ok((image_scores, summit)) => {
                images.extend(image_scores);
                maxima.push(summit);
            }
            Err(error) => skipped.push(error),
        }
    }
    images.sort_unstable_by(f32::total_cmp);
    Ok(Thresholds {
        image: conformal_threshold(&images, image_rate)?,
        pixel: conformal_threshold(&maxima, pixel_rate)?,
        image_scores: images,
        skipped,
    })
}
