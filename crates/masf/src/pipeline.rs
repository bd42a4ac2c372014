//! The one way from images to anomaly maps. Fitting, inspection and evaluation all go through here, so their scores are the
//! same bits.

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use masf_core::{
    AnomalyMap, CalibratedMap, Error, FeatureExtractor, FeaturePyramid, Fusion, RealignedScores, Result, Scorer,
    Scores, Views,
};
use masf_data::{DataError, Limits, LoadOptions, Preprocess};
use masf_tta::ViewAverage;

use crate::orientations;

/// How images are looked at: as they are, in further views, and all of this at further angles.
#[derive(Clone, Copy)]
pub(crate) struct Looks<'a> {
    pub(crate) views: Option<&'a dyn Views>,
    /// At least 1.
    pub(crate) orientations: usize,
}

impl Looks<'_> {
    /// Whether images are wanted at twice the size that the backbone sees: where they are turned.
    pub(crate) fn are_doubled(&self) -> bool {
        self.orientations > 1
    }

    /// An image as it is wanted, `[3, H, W]` or twice as large, by the model's own preprocessing.
    pub(crate) fn tensor(&self, own: &Preprocess, image: &DynamicImage) -> Result<Tensor, DataError> {
        if self.are_doubled() { own.doubled_tensor(image) } else { own.tensor(image) }
    }

    /// How images as they are wanted are loaded.
    pub(crate) fn load_options(&self, limits: Limits) -> LoadOptions {
        LoadOptions { limits, doubled: self.are_doubled(), ..LoadOptions::default() }
    }

    /// What the backbone sees of images as they are wanted.
    pub(crate) fn upright(&self, images: &Tensor) -> Result<Tensor> {
        if self.are_doubled() { orientations::upright(images) } else { Ok(images.clone()) }
    }

    /// Whether the pyramid of an image is all that is needed.
    pub(crate) fn are_plain(&self) -> bool {
        self.views.is_none() && self.orientations == 1
    }
}

/// The raw scores of images: of the images themselves, and of their other views where there are any.
#[derive(Debug, Clone)]
pub(crate) struct ViewScores {
    pub(crate) first: Scores,
    pub(crate) others: Vec<RealignedScores>,
    /// The same at every further angle, with its number.
    pub(crate) turned: Vec<(usize, ViewScores)>,
}

/// The raw scores of every branch for the images of a pyramid, in the order of the branches. Image scores of a branch's own
/// count where it is the only one.
///
/// Maps of the same name are told apart by a number: `memory`, `memory.2`.
pub(crate) fn score(branches: &[Box<dyn Scorer>], pyramid: &FeaturePyramid) -> Result<Scores> {
    // Where they were in the fit, from the cache; on the CPU nothing is copied.
    let pyramid = &pyramid.to_device(&Device::Cpu)?;
    if let [branch] = branches {
        let scores = branch.score(pyramid)?;
        check_image_scores(&scores, branch.tag(), pyramid.batch_size())?;
        return Ok(scores);
    }
    let mut maps: Vec<masf_core::ScoreMap> = Vec::with_capacity(branches.len());
    for branch in branches {
        for mut map in branch.score(pyramid)?.maps {
            let plain = map.name.clone();
            let mut number = 1;
            while maps.iter().any(|other| other.name == map.name) {
                number += 1;
                map.name = format!("{plain}.{number}");
            }
            maps.push(map);
        }
    }
    Ok(Scores { maps, image: None })
}

/// Refuses image scores that are not one `f32` an image, before anything is made of them.
fn check_image_scores(scores: &Scores, tag: &str, images: usize) -> Result<()> {
    match &scores.image {
        Some(image) if image.dims() != [images] || image.dtype() != DType::F32 => {
            let problem = format!("are {:?} {:?} instead of F32 [{images}]", image.dtype(), image.dims());
            Err(Error::data(format!("image scores of the branch `{tag}`"), problem))
        }
        _ => Ok(()),
    }
}

/// The raw scores of preprocessed images `[B, 3, H, W]`, whose own pyramid is given, and of their views.
pub(crate) fn score_views(
    backbone: &dyn FeatureExtractor,
    branches: &[Box<dyn Scorer>],
    views: Option<&dyn Views>,
    images: &Tensor,
    pyramid: &FeaturePyramid,
) -> Result<ViewScores> {
    let first = score(branches, pyramid)?;
    let mut others = Vec::new();
    if let Some(views) = views {
        if first.image.is_some() {
            let expected = "none where a branch scores images itself: such a score has no mean over them";
            return Err(Error::argument("views", "on", expected));
        }
        for (index, view) in views.views(&images.to_device(&backbone.device())?)?.iter().enumerate().skip(1) {
            let scores = score(branches, &backbone.extract(view)?)?;
            others.push(views.realign(index, scores, pyramid.input_size())?);
        }
    }
    Ok(ViewScores { first, others, turned: Vec::new() })
}

/// As [`score_views`], at every angle, of images as they are wanted ([`Looks::are_doubled`]) and as they are [upright](Looks::upright).
pub(crate) fn score_looks(
    backbone: &dyn FeatureExtractor,
    branches: &[Box<dyn Scorer>],
    looks: Looks<'_>,
    (images, upright): (&Tensor, &Tensor),
    pyramid: &FeaturePyramid,
) -> Result<ViewScores> {
    let mut scores = score_views(backbone, branches, looks.views, upright, pyramid)?;
    orientations::at_other_angles(images, upright, looks.orientations, |index, turned| {
        let pyramid = backbone.extract(&turned.to_device(&backbone.device())?)?;
        scores.turned.push((index, score_views(backbone, branches, looks.views, turned, &pyramid)?));
        Ok(())
    })?;
    Ok(scores)
}

/// Calibrated maps from raw scores: the mean over the views, with its variance.
pub(crate) fn calibrate(fusion: &dyn Fusion, scores: &ViewScores) -> Result<Vec<CalibratedMap>> {
    let first = fusion.calibrate(&scores.first)?;
    if scores.others.is_empty() {
        return Ok(first);
    }
    let mut average = ViewAverage::new(first);
    for view in &scores.others {
        average.add(&fusion.calibrate(&view.scores)?, &view.valid)?;
    }
    average.finish()
}

/// Anomaly maps of the size of the model's input, from the raw scores of images; `luminance` makes theirs, where the fusion wants it.
pub(crate) fn fuse(
    fusion: &dyn Fusion,
    scores: &ViewScores,
    size: (usize, usize),
    luminance: &dyn Fn() -> Result<Tensor>,
) -> Result<AnomalyMap> {
    let mut fused = fuse_views(fusion, scores, size)?;
    for (index, turned) in &scores.turned {
        fused = orientations::calmest(fused, &fuse_views(fusion, turned, size)?, *index, scores.turned.len() + 1)?;
    }
    fused.map = fusion.refine(fused.map, luminance)?;
    if !scores.turned.is_empty() {
        fused.map = orientations::within_disc(&fused.map)?;
        fused.uncertainty = orientations::within_disc(&fused.uncertainty)?;
    }
    Ok(fused)
}

/// As [`fuse`], at one angle and without refinement.
fn fuse_views(fusion: &dyn Fusion, scores: &ViewScores, size: (usize, usize)) -> Result<AnomalyMap> {
    let fused = fusion.fuse(&calibrate(fusion, scores)?, size)?;
    Ok(match &scores.first.image {
        // What maps disagree by is on another scale.
        Some(image_score) => {
            AnomalyMap { image_score: image_score.clone(), image_uncertainty: image_score.zeros_like()?, ..fused }
        }
        None => fused,
    })
}

/// Anomaly maps of preprocessed images `[B, 3, H, W]`, or `[B, 3, 2H, 2W]` where they are turned.
pub(crate) fn run(
    backbone: &dyn FeatureExtractor,
    branches: &[Box<dyn Scorer>],
    looks: Looks<'_>,
    fusion: &dyn Fusion,
    images: &Tensor,
) -> Result<AnomalyMap> {
    let count = images.dims().first().copied().unwrap_or(0);
    let upright = looks.upright(images)?;
    let pyramid = {
        let _span = tracing::debug_span!("backbone", images = count).entered();
        backbone.extract(&upright.to_device(&backbone.device())?)?
    };
    let scores = {
        let _span = tracing::debug_span!("score", images = count, branches = branches.len()).entered();
        score_looks(backbone, branches, looks, (images, &upright), &pyramid)?
    };
    let _span = tracing::debug_span!("fuse", images = count).entered();
    fuse(fusion, &scores, pyramid.input_size(), &|| backbone.normalisation().luminance(&upright))
}
