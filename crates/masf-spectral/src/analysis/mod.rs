//! What to read from spectra, and what to make of maps through them.

mod phase;
mod power;
mod saliency;

pub use phase::{PhaseNoise, amplitude_only, mix_amplitude, phase_only, shift};
pub use power::{LocalSpectra, angular_profile, log_power_image, power_spectrum, radial_profile};
pub use saliency::{SpectralResidual, spectral_residual};
