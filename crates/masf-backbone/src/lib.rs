//! Frozen feature extractors: images in, feature pyramids out.
//!
//! - [`Backbone`]: a network of the registry (`masf-models`) with weights from a safetensors file, or from the Hugging Face hub
//!   with the feature `hub`. The weights of `masf-nano` are part of `masf-models`.
//! - [`ScatteringBackbone`]: wavelet scattering, which needs no weights.
//!
//! Both implement [`masf_core::FeatureExtractor`] and [`masf_core::Artifact`].
//!
//! A convolutional network is a [`graph::Graph`] of operations on folded weights. On the CPU the [`engine`] runs it, elsewhere
//! plain Candle operations do, as they do for vision transformers (feature `vit`). The features of an image are the same bits in any batch and with any number of threads.

#![deny(unsafe_code)]

mod backbone;
mod candle;
pub mod engine;
mod error;
pub mod graph;
#[cfg(feature = "hub")]
pub mod hub;
mod networks;
mod scattering;
#[cfg(feature = "train")]
pub mod train;
#[cfg(feature = "vit")]
mod vit;
mod weights;

pub use backbone::{Backbone, BackboneBuilder};
pub use engine::Precision;
pub use error::{BackboneError, Result};
pub use scattering::ScatteringBackbone;
pub use weights::{Problem, Problems, Weights};

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
