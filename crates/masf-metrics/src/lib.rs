#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod components;
mod curve;
mod error;
mod pixel;
mod pro;
mod ranking;
mod sweep;

pub use components::{BoundingBox, Component, Components, label_components};
pub use curve::{PrecisionRecallPoint, ProPoint, RocPoint};
pub use error::{Class, Error, Fault, Result};
pub use pixel::{PixelEvaluator, PixelRanking};
pub use pro::{AUPRO_FPR_LIMIT, mean_image_aupro};
pub use ranking::{F1Max, Ranking};

/// The version of ndarray that this crate's arguments are of.
pub use ndarray;
