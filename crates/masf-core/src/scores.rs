//! Scores on their way from a scorer to a verdict.

use candle_core::Tensor;

/// A raw anomaly map of one branch at one scale; larger is more anomalous, the unit is the scorer's own.
#[derive(Debug, Clone)]
pub struct ScoreMap {
    /// Branch and scale, such as `memory` or `student.8.raw`; the same for every image. What comes before the first full stop is the branch:
    /// maps of one branch share its weight.
    pub name: String,
    /// The scores, `[B, h, w]`, `f32`, finite.
    pub values: Tensor,
}

/// What a scorer says of a batch.
#[derive(Debug, Clone)]
pub struct Scores {
    /// One map per scale of the scorer.
    pub maps: Vec<ScoreMap>,
    /// Image scores of the scorer's own, `[B]`, `f32`, where it has any; otherwise they come from the maps.
    pub image: Option<Tensor>,
}

/// A score map brought to the common scale (on normal images: median 0, upper quantile 1), with its spread over the test-time views.
#[derive(Debug, Clone)]
pub struct CalibratedMap {
    /// Branch and scale, as in [`ScoreMap::name`].
    pub name: String,
    /// Mean over the views, `[B, h, w]`, `f32`.
    pub mean: Tensor,
    /// Variance over the views, `[B, h, w]`, `f32`; zero without views.
    pub variance: Tensor,
}

/// The fused result for a batch, at the size of the model's input.
#[derive(Debug, Clone)]
pub struct AnomalyMap {
    /// The anomaly score of every pixel, `[B, H, W]`, `f32`, on the calibrated scale.
    pub map: Tensor,
    /// One score an image, `[B]`, `f32`.
    pub image_score: Tensor,
    /// The standard deviation of every pixel's score over views and branches, `[B, H, W]`, `f32`, not negative, in the unit
    /// of `map`; zero where there is neither a second view nor a second score map.
    pub uncertainty: Tensor,
    /// The standard deviation of the image score, `[B]`, `f32`: that of the pixels it was read from.
    pub image_uncertainty: Tensor,
}

/// Score maps of one view of the images, brought back to the places of the images themselves.
#[derive(Debug, Clone)]
pub struct RealignedScores {
    /// The scores; values at places that are not valid mean nothing, but are finite.
    pub scores: Scores,
    /// For every map of `scores` the places that the view scored as it would have in place, `[h, w]`, `u8`, 1 or 0; `None`
    /// where all are.
    pub valid: Vec<Option<Tensor>>,
}
