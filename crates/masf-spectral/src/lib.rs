//! Differentiable Fourier transforms for Candle tensors, and the spectral tools built on them.
//!
//! # Conventions
//!
//! * `X[k] = s sum_n x[n] exp(-2 pi i k n / N)`, zero frequency first; [`Norm`] names the factor `s`, as NumPy and PyTorch do. The default is
//!   [`Norm::Backward`].
//! * Transforms run over the last axis ([`fft`], [`rfft`], ...) or the last two ([`fft2`], [`rfft2`], ...) of tensors of any rank, for any lengths from 1. The
//!   spectrum of a real signal is cut to `W / 2 + 1` columns.
//! * Complex values are planar: [`ComplexTensor`] wraps one tensor `[2, ...]`. A [`Spectrum`] adds what the inverse must know: the axes, the width of
//!   the signal, the normalisation.
//! * f32 and f64 are computed as they are, f16 and bf16 by way of f32. All operations are differentiable, unless they say otherwise.
//!
//! # How it runs
//!
//! On the CPU, real and complex transforms of lengths with the prime factors 2, 3, 5 and 7 (for real ones: even widths) use a kernel that transforms one line
//! per lane of AVX-512, AVX2 or NEON registers; all others use RustFFT and RealFFT. Maps run in parallel on rayon's threads. On other devices the transforms
//! are products with Fourier matrices (see [`dft`]).
//!
//! # What is here
//!
//! | | |
//! |---|---|
//! | transforms | [`fft`], [`ifft`], [`rfft`], [`irfft`], [`fft2`], [`ifft2`], [`rfft2`], [`irfft2`], [`dft`] |
//! | bins | [`fftfreq`], [`rfftfreq`], [`fftshift`], [`ifftshift`] |
//! | bands | [`SpectralDecomposition`] |
//! | analysis | [`power_spectrum`], [`log_power_image`], [`radial_profile`], [`angular_profile`], [`LocalSpectra`], [`spectral_residual`], [`Window`] |
//! | phase and amplitude | [`phase_only`], [`amplitude_only`], [`mix_amplitude`], [`PhaseNoise`], [`shift`] |
//! | descriptors | [`RingDescriptor`], [`LogPolar`], [`Scattering2d`] |
#![forbid(unsafe_code)]

mod analysis;
mod bands;
mod complex;
mod decomposition;
mod engine;
mod error;
mod frequency;
mod matmul;
mod norm;
mod op;
mod polar;
mod ring;
mod scattering;
mod spectrum;
mod transform;
mod window;

pub use analysis::{
    LocalSpectra, PhaseNoise, SpectralResidual, amplitude_only, angular_profile, log_power_image, mix_amplitude,
    phase_only, power_spectrum, radial_profile, shift, spectral_residual,
};
pub use complex::ComplexTensor;
pub use decomposition::{DecompositionConfig, SpectralDecomposition};
pub use error::{Error, Fault, Result};
pub use frequency::{fftfreq, fftshift, ifftshift, rfftfreq};
pub use norm::Norm;
pub use polar::LogPolar;
pub use ring::{Ring, RingDescriptor};
pub use scattering::{Scattering2d, ScatteringConfig, WaveletMaps};
pub use spectrum::{Axes, Extent, Spectrum};
pub use transform::{dft, fft, fft2, ifft, ifft2, irfft, irfft2, rfft, rfft2};
pub use window::{Sampling, Window};

/// The examples of the README and of the book, compiled and run as tests.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/spectral.md")]
    struct Spectral;
}
