//! The types in which the parts of masf meet.
//!
//! An image becomes a [`FeaturePyramid`] (by a [`FeatureExtractor`]), the pyramid becomes [`Scores`] (by one [`Scorer`] or
//! several), and a [`Fusion`] turns scores into an [`AnomalyMap`], over several [`Views`] of the image if wanted. Components see pyramids, never images or backbones, so
//! any backbone serves any scorer, and frozen features can be kept in a [`FeatureCache`] and read many times.
//!
//! What has been learned is kept in one file: see [`artifact`].
//!
//! Conventions: images and maps are row-major with axes `[B, C, H, W]` (batch, channel, height, width), `f32`.
//! A tensor may be strided; feature maps usually are (their memory is channels-last), so that the descriptor of a position
//! is contiguous. Sizes are given as `(height, width)`.

#![forbid(unsafe_code)]

pub mod artifact;
mod cache;
mod device;
mod error;
pub mod progress;
mod pyramid;
mod read;
mod replace;
pub mod resample;
mod scores;
mod seed;
mod threads;
pub mod training;
mod traits;
mod vector;

pub use artifact::{Artifact, ArtifactReader, ArtifactWriter};
pub use cache::{FeatureCache, FeatureCacheBuilder};
pub use device::DeviceChoice;
pub use error::{Error, Fault, Result};
pub use progress::{Progress, Silent};
pub use pyramid::{FeatureLevel, FeaturePyramid, LevelSpec};
pub use read::read_within;
pub use replace::{check_replaceable, replace_file};
pub use scores::{AnomalyMap, CalibratedMap, RealignedScores, ScoreMap, Scores};
pub use seed::random_stream;
pub use threads::in_pool;
pub use traits::{CrossFit, FeatureExtractor, Fit, Fusion, Normalisation, PyramidSource, Scorer, Subset, Views};
pub use vector::{all_finite, operand, values, variance, vectorised, with_values};
