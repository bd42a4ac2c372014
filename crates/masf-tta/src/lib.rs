//! Test-time spectral augmentation (TTSA): views of an image by phase noise and by phase ramps, and what they agree on.
//!
//! 1. [`ViewParams`] say which views there are; checked, they build [`SpectralViews`].
//! 2. Every view goes through backbone and scorers; [`Views::realign`](masf_core::Views::realign) brings its score maps back
//!    to the places of the image.
//! 3. [`ViewAverage`] gives mean and variance of the calibrated maps over the views, position by position.
//!
//! Phase noise turns the phase of every frequency of a band a little and at random, odd-symmetric (so that images stay real)
//! and alike in all channels; amplitudes stay. Phase ramps are circular shifts. Without views, inference is what it would
//! be without this crate, bit for bit: the identity is not even copied.
//!
//! A shift by a whole multiple of the largest stride gives a convolutional backbone the same features in other places, so for
//! scorers that look at each position alone it changes nothing but borders; it is there for scorers that know where a
//! position lies.

#![forbid(unsafe_code)]

mod average;
mod error;
mod params;
mod views;

pub use average::ViewAverage;
pub use error::ViewError;
pub use params::{ViewParams, ViewValidParams};
pub use views::SpectralViews;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
