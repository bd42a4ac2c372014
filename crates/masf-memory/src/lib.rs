#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod anchors;
mod artifact;
mod bank;
mod candidates;
mod coreset;
mod embedding;
mod error;
mod extend;
mod fit;
mod folds;
mod keys;
mod lanes;
mod linear;
mod panels;
mod params;
mod patches;
mod pca;
mod pool;
mod reduce;
mod reweight;
mod search;
mod sieve;
mod spare;
mod standardise;

pub use anchors::SpectralAnchors;
pub use bank::MemoryBank;
pub use coreset::{Coreset, greedy_k_centre};
pub use embedding::{PatchEmbedding, PatchMaps};
pub use error::{MemoryError, Result};
pub use fit::MemoryBankFit;
pub use linear::LinearMap;
pub use params::MemoryBankParams;
pub use reduce::Reduction;
pub use search::{
    CellKeys, CellParams, CellSearch, ExactSearch, Neighbours, PrototypeSearch, Search, ShortlistSearch, k_means,
};
#[cfg(feature = "hnsw")]
pub use search::{HnswParams, HnswSearch};
pub use standardise::Standardisation;
