//! Unsupervised visual anomaly detection for industry: learn from defect-free images only, then score an image, locate the
//! defect, and decide.
//!
//! ```no_run
//! use masf::{Config, Detector, data::Dataset};
//!
//! fn main() -> masf::Result<()> {
//!     let config = Config::from_toml("backbone.name = 'resnet18'")?;
//!     let backbone = masf::open_backbone(&config.backbone, Some("resnet18.safetensors".as_ref()), &masf::Silent)?;
//!     let good = Dataset::training("bottle")?.samples;
//!     let detector = Detector::builder().config(config).backbone(backbone).fit(good.iter().map(|s| &s.path))?;
//!     detector.save("bottle.masf")?;
//!
//!     let found = Detector::load("bottle.masf")?.inspect("bottle/test/broken_large/000.png")?;
//!     println!("{:.3} {}", found.normalised_score, if found.is_anomalous { "ANOMALOUS" } else { "normal" });
//!     for region in &found.regions {
//!         println!("{} x {} at ({}, {})", region.height, region.width, region.top, region.left);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The way of an image: file -> [`data`] (decode, resize, normalise) -> [`backbone`] (feature pyramid) ->
//! scorers ([memory bank](masf_memory), [student](masf_distill), or a [baseline](masf_baselines)) -> [fusion](masf_fusion)
//! (calibrated map, image score) -> [`Inspection`]; [views](masf_tta) of the image go the same way as far as the calibrated maps, whose
//! mean is fused.
//! `pipeline.rs` holds it in one page, and everything goes through it: a saved and reloaded model, a batch of images, and
//! any number of threads give the same bits as the fitted model on one image.

#![forbid(unsafe_code)]

mod builder;
mod bytes;
mod config;
mod detector;
mod drift;
mod error;
mod evaluation;
mod extension;
mod fit;
pub mod heatmap;
mod inspection;
mod method;
mod open;
mod pipeline;
mod preset;
mod provenance;
#[cfg(feature = "report")]
pub mod report;
mod tiles;

pub use builder::{DetectorBuilder, FitReport};
pub use bytes::ByteSize;
pub use config::{
    BackboneConfig, Branch, Config, InputConfig, MemoryConfig, PadimConfig, PatchCoreConfig, ThresholdConfig,
};
pub use detector::{Detector, default_registry};
pub use drift::Drift;
pub use evaluation::{Curves, Evaluated, Evaluation, KindEvaluation, SampleScore};
pub use extension::ExtendOptions;
pub use inspection::{Inspection, Region};
pub use masf_backbone::Precision;
pub use masf_baselines::{AdtrParams, CfaParams, RdppParams};
pub use masf_core::artifact::{ReadOptions, Registry, SaveOptions};
pub use masf_core::{DeviceChoice, Error, Fault, FeatureExtractor, Fit, Progress, Result, Scorer, Silent, progress};
pub use masf_data::{ImageInput, Size};
pub use masf_distill::{Checkpoints, Positions, StudentParams, Targets};
pub use masf_fusion::{
    FusionParams, Gate, ImageScore, MapPrecision, NormalisedScore, PositionAware, Threshold, ThresholdSource, Weights,
};
pub use masf_memory::{CellKeys, MemoryBankParams, Reduction, Search, Standardisation};
pub use masf_tta::ViewParams;
pub use method::Method;
pub use open::open_backbone;
pub use preset::Preset;
pub use provenance::Provenance;

pub use masf_backbone as backbone;
pub use masf_core as core;
pub use masf_data as data;

/// The example of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
