//! From raw score maps to one anomaly map, an image score and a threshold, learned from normal images alone.
//!
//! 1. [`Calibration`] brings every score map to a common scale: on held-out normal images its median becomes 0 and an upper
//!    quantile 1.
//! 2. [`CalibratedFusion`] averages the calibrated maps, resizes the mean to the image and smooths it; the image score is
//!    read from the result ([`ImageScore`]).
//! 3. [`conformal_threshold`] turns the image scores of normal images into a [`Threshold`] for a stated false-alarm rate.
//!
//! The scores of normal images must come from models that did not learn from these very images (hold-out or cross-fitting):
//! a memory bank gives its own images distances near zero.

#![forbid(unsafe_code)]

mod calibration;
mod error;
mod fusion;
mod smoothing;
mod threshold;

pub use calibration::Calibration;
pub use error::FusionError;
pub use fusion::{CalibratedFusion, FusionParams, FusionValidParams, ImageScore};
pub use threshold::{NormalisedScore, Threshold, ThresholdSource, conformal_threshold};
