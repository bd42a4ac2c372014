//! The one way from images to anomaly maps. Fitting, inspection and evaluation all go through here, so their scores are the
//! same bits.

use candle_core::Tensor;
use masf_core::{
    AnomalyMap, CalibratedMap, FeatureExtractor, FeaturePyramid, Fusion, RealignedScores, Result, Scorer, Scores, Views,
};
use masf_tta::ViewAverage;

/// The raw scores of images: of the images themselves, and of their other views where there are any.
#[derive(Debug, Clone)]
pub(crate) struct ViewScores {
    pub(crate) first: Scores,
    pub(crate) others: Vec<RealignedScores>,
}

/// The raw scores of every branch for the images of a pyramid, in the order of the branches. Image scores of a branch's own
/// count where it is the only one.
///
/// Maps of the same name are told apart by a number: `memory`, `memory.2`.
pub(crate) fn score(branches: &[Box<dyn Scorer>], pyramid: &FeaturePyramid) -> Result<Scores> {
    if let [branch] = branches {
        return branch.score(pyramid);
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
        for (index, view) in views.views(&images.to_device(&backbone.device())?)?.iter().enumerate().skip(1) {
            let scores = score(branches, &backbone.extract(view)?)?;
            others.push(views.realign(index, scores, pyramid.input_size())?);
        }
    }
    Ok(ViewScores { first, others })
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
    let mut fused = fusion.fuse(&calibrate(fusion, scores)?, size)?;
    fused.map = fusion.refine(fused.map, luminance)?;
    Ok(match &scores.first.image {
        Some(image_score) => AnomalyMap { image_score: image_score.clone(), ..fused },
        None => fused,
    })
}

/// Anomaly maps of preprocessed images `[B, 3, H, W]`.
pub(crate) fn run(
    backbone: &dyn FeatureExtractor,
    branches: &[Box<dyn Scorer>],
    views: Option<&dyn Views>,
    fusion: &dyn Fusion,
    images: &Tensor,
) -> Result<AnomalyMap> {
    let count = images.dims().first().copied().unwrap_or(0);
    let pyramid = {
        let _span = tracing::debug_span!("backbone", images = count).entered();
        backbone.extract(&images.to_device(&backbone.device())?)?
    };
    let scores = {
        let _span = tracing::debug_span!("score", images = count, branches = branches.len()).entered();
        score_views(backbone, branches, views, images, &pyramid)?
    };
    let _span = tracing::debug_span!("fuse", images = count).entered();
    fuse(fusion, &scores, pyramid.input_size(), &|| backbone.normalisation().luminance(images))
}
