//! From raw score maps to one anomaly map, an image score and a threshold, learned from normal images alone.
//!
//! 1. [`Calibration`] brings every score map to a common scale: on held-out normal images its median becomes 0 and an upper
//!    quantile 1, for the map as a whole or position by position ([`PositionAware`]).
//! 2. [`CalibratedFusion`] averages the calibrated maps, resizes the mean to the image and smooths it; the image score is
//!    read from the result ([`ImageScore`]). Branches have stated shares, or weigh alike, or [`CalibratedFusion::learn`] weighs them by their
//!    precision in telling synthetic defects from normal images ([`Weights`], [`MapPrecision`]); it also learns the units of the
//!    [`Gate`], which lowers the weight of a map where it varies over test-time views or stands alone. Uncertainty maps come
//!    from the same variance and disagreement.
//!    [`FineScale`] and the [`Detail`] of the image then sharpen maps; image scores stay.
//! 3. [`conformal_threshold`] turns the image scores of normal images into a [`Threshold`] for a stated false-alarm rate;
//!    [`kolmogorov_smirnov`] tells whether later scores still look like those.
//!
//! This is the uncertainty-gated hierarchical fusion (UGHF) of MASF.
//!
//! The scores of normal images must come from models that did not learn from these very images (hold-out or cross-fitting):
//! a memory bank gives its own images distances near zero.

#![forbid(unsafe_code)]

mod calibration;
mod detail;
mod drift;
mod error;
mod fine;
mod fusion;
mod gate;
mod learn;
mod params;
mod position;
mod precision;
mod smoothing;
mod threshold;

pub use calibration::Calibration;
pub use detail::Detail;
pub use drift::{KolmogorovSmirnov, kolmogorov_smirnov};
pub use error::FusionError;
pub use fine::FineScale;
pub use fusion::CalibratedFusion;
pub use learn::DefectMaps;
pub use params::{FusionParams, FusionValidParams, Gate, ImageScore, PositionAware, Weights};
pub use precision::{LOG_VARIANCE_BOUND, MapPrecision, log_variance};
pub use threshold::{NormalisedScore, Threshold, ThresholdSource, conformal_threshold};
