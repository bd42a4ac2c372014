//! The one way from images to anomaly maps. Fitting, inspection and evaluation all go through here, so their scores are the
//! same bits.

use candle_core::Tensor;
use masf_core::{AnomalyMap, FeatureExtractor, FeaturePyramid, Fusion, Result, Scorer, Scores};

/// The raw scores of every branch for the images of a pyramid, in the order of the branches. Image scores of a branch's own
/// count where it is the only one.
pub(crate) fn score(branches: &[Box<dyn Scorer>], pyramid: &FeaturePyramid) -> Result<Scores> {
    if let [branch] = branches {
        return branch.score(pyramid);
    }
    let mut maps = Vec::with_capacity(branches.len());
    for branch in branches {
        maps.extend(branch.score(pyramid)?.maps);
    }
    Ok(Scores { maps, image: None })
}

/// Anomaly maps of the size of the model's input, from raw scores.
pub(crate) fn fuse(fusion: &dyn Fusion, scores: &Scores, size: (usize, usize)) -> Result<AnomalyMap> {
    let fused = fusion.fuse(&fusion.calibrate(scores)?, size)?;
    Ok(match &scores.image {
        Some(image_score) => AnomalyMap { image_score: image_score.clone(), ..fused },
        None => fused,
    })
}

/// Anomaly maps of preprocessed images `[B, 3, H, W]`.
pub(crate) fn run(
    backbone: &dyn FeatureExtractor,
    branches: &[Box<dyn Scorer>],
    fusion: &dyn Fusion,
    images: &Tensor,
) -> Result<AnomalyMap> {
    let pyramid = backbone.extract(&images.to_device(&backbone.device())?)?;
    fuse(fusion, &score(branches, &pyramid)?, pyramid.input_size())
}
