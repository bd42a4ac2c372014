#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bank;
mod candidates;
mod coreset;
mod embedding;
mod error;
mod fit;
mod lanes;
mod linear;
mod params;
mod pca;
mod reduce;
mod reweight;
mod search;
mod standardise;

pub use bank::MemoryBank;
pub use coreset::{Coreset, greedy_k_centre};
pub use embedding::{PatchEmbedding, PatchMaps};
pub use error::{MemoryError, Result};
pub use fit::MemoryBankFit;
pub use linear::LinearMap;
pub use params::MemoryBankParams;
pub use reduce::Reduction;
pub use search::{ExactSearch, Neighbours, PrototypeSearch};
pub use standardise::Standardisation;
