//! Wavelet scattering: a feature extractor that needs no training.
//!
//! The scattering transform (J. Bruna, S. Mallat, "Invariant scattering convolution networks", 2013) takes the modulus of wavelet
//! coefficients and averages it: `S1 = |x * psi_{j,l}| * phi_J`, `S2 = ||x * psi_{j1,l1}| * psi_{j2,l2}| * phi_J` with `j2 > j1`. The filter bank is
//! that of Kymatio (M. Andreux et al., "Kymatio: Scattering transforms in Python", 2020), made here in the Fourier domain; see
//! `filters`. Every step is differentiable.

mod config;
mod filters;
mod transform;

pub use config::ScatteringConfig;
pub use transform::{Scattering2d, WaveletMaps};
