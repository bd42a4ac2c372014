//! Unsupervised visual anomaly detection for industry: learn from defect-free images only, then score an image, locate the
//! defect, and decide.
//!
//! ```
//! use masf::Detector;
//! use masf::data::synthetic::{SyntheticConfig, write_dataset};
//!
//! fn main() -> masf::Result<()> {
//!     // Any folder of good images will do; this one is drawn by a program.
//!     let folder = std::env::temp_dir().join(format!("masf-first-{}", std::process::id()));
//!     write_dataset(&folder, &SyntheticConfig { train: 8, test_good: 1, test_per_kind: 1, ..SyntheticConfig::default() })?;
//!
//!     let detector = Detector::builder().fit_folder(&folder)?;
//!     detector.save(folder.join("plate.masf"))?;
//!
//!     let found = Detector::load(folder.join("plate.masf"))?.inspect(folder.join("test/missing_piece/000.png"))?;
//!     println!("{:.3} {}", found.normalised_score, if found.is_anomalous { "ANOMALOUS" } else { "normal" });
//!     for region in &found.regions {
//!         println!("{} x {} at ({}, {})", region.height, region.width, region.top, region.left);
//!     }
//! #   std::fs::remove_dir_all(&folder).ok();
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | fitting | [`Detector::builder`], [`DetectorBuilder`], [`Config`], [`Preset`] |
//! | inspecting | [`Detector::inspect`], [`inspect_iter`](Detector::inspect_iter), [`inspect_batch`](Detector::inspect_batch), [`ImageInput`], [`Inspection`] |
//! | measuring | [`Detector::evaluate`], [`Evaluation`], `report` (feature `report`) |
//! | thresholds | [`Threshold`], [`Detector::threshold_for`], [`Evaluation::f1_threshold`] |
//! | pictures and maps | [`heatmap`], [`maps`] |
//! | own parts | [`FeatureExtractor`], [`Fit`], [`Scorer`], [`default_registry`] |
//! | crates of others whose types are in the interface | [`candle_core`], [`image`], [`ndarray`] |
//! | learning more | [`Detector::extend`], [`Detector::merge`] |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `embedded` | yes | the weights of the default backbone, `masf-nano`, as part of the binary (1.1 MB) |
//! | `hnsw` | yes | search in a graph; measured slower than exact search on 100,000 patches |
//! | `report` | | `masf::report`: evaluations as self-contained HTML pages |
//! | `progress` | | `masf::progress::TerminalProgress`, a progress bar |
//! | `vit` | | vision transformers (DINOv2) as backbones |
//! | `hub` | | weights of backbones by name from the Hugging Face hub |
//! | `cuda`, `cudnn`, `metal` | | backbones on a GPU |
//! | `mkl`, `accelerate` | | Candle's matrix products by a vendor's library |
//!
//! # Logging
//!
//! Events and spans go through `tracing`; without a subscriber they cost next to nothing. Spans at level INFO: `fit` with `features`, `learn` and
//! `calibrate` inside, `inspect`, `evaluate`, `extend`, `merge`, `save`, `load`; at DEBUG inside of an inspection: `backbone`, `score`, `fuse`. Warnings: images that are skipped, and
//! scores that no longer look like those of the calibration.
//!
//! # How it works
//!
//! The way of an image: file -> [`data`] (decode, resize, normalise) -> [`backbone`] (feature pyramid) ->
//! scorers ([memory bank](masf_memory), [student](masf_distill), or a [baseline](masf_baselines)) -> [fusion]
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
mod inspections;
pub mod maps;
mod method;
mod open;
mod orientations;
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
pub use inspections::Inspections;
pub use masf_backbone::Precision;
pub use masf_baselines::{AdtrParams, CfaParams, IsstadParams, RdppParams};
pub use masf_core::artifact::{ReadOptions, Registry, SaveOptions};
pub use masf_core::{DeviceChoice, Error, Fault, FeatureExtractor, Fit, Progress, Result, Scorer, Silent, progress};
pub use masf_data::{ImageInput, Size};
pub use masf_distill::{Checkpoints, Positions, StudentParams, Targets};
pub use masf_fusion::{
    Detail, FineScale, FusionParams, Gate, ImageScore, MapPrecision, NormalisedScore, PositionAware, Threshold,
    ThresholdSource, Weights,
};
pub use masf_memory::{CellKeys, MemoryBankParams, Reduction, Search, Standardisation};
pub use masf_tta::ViewParams;
pub use method::Method;
pub use open::open_backbone;
pub use preset::Preset;
pub use provenance::Provenance;

/// The crates of others whose types are in this interface: tensors, images and arrays. Taken from here, they have the version that masf has.
pub use {candle_core, image, ndarray};

/// The crates behind the facade, for what is not repeated here.
pub use {
    masf_backbone as backbone, masf_baselines as baselines, masf_core as core, masf_data as data,
    masf_distill as distill, masf_fusion as fusion, masf_memory as memory, masf_metrics as metrics, masf_tta as tta,
};

/// The examples of the README and of the book, compiled as tests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/guide/library.md")]
    struct Library;
    #[doc = include_str!("../../../docs/guide/own-parts.md")]
    struct OwnParts;
    #[doc = include_str!("../../../docs/model-file.md")]
    struct ModelFile;
}
