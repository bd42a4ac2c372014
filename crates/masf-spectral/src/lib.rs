//! Differentiable Fourier transforms for Candle tensors, and the spectral tools built on them.
#![forbid(unsafe_code)]

mod complex;
mod engine;
mod error;
mod matmul;
mod norm;
mod op;
mod scattering;
mod spectrum;
mod transform;

pub use complex::ComplexTensor;
pub use error::{Error, Fault, Result};
pub use norm::Norm;
pub use scattering::{Scattering2d, ScatteringConfig, WaveletMaps};
pub use spectrum::{Axes, Extent, Spectrum};
pub use transform::{dft, fft, fft2, ifft, ifft2, irfft, irfft2, rfft, rfft2};
