//! Spectral residual saliency: what a map's log spectrum has beyond its own smooth trend.

use crate::complex::{ComplexTensor, widened};
use crate::error::{Error, Result};
use crate::frequency::{constant, map_size, rotate, signed};
use crate::norm::Norm;
use crate::spectrum::Spectrum;
use crate::transform::{fft2, ifft2, irfft2, rfft2};
use candle_core::Tensor;
use std::f64::consts::TAU;

/// Keeps the logarithm of vanishing amplitudes finite.
const EPS: f64 = 1e-12;

/// Parameters of [`spectral_residual`]. The default averages over 3 x 3 frequencies and smooths with `sigma = 2.5`, as the paper on 64-pixel images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpectralResidual {
    /// Side of the square over which the log amplitude is averaged, odd.
    pub average: usize,
    /// Width of the Gaussian that smooths the saliency, in pixels; 0 leaves it as it is.
    pub sigma: f64,
}

impl Default for SpectralResidual {
    fn default() -> Self {
        Self { average: 3, sigma: 2.5 }
    }
}

/// Saliency of maps `[..., H, W]`, of the same shape. Below a `sigma` of about 1.5 the Gaussian is cut at the highest
/// frequencies, and the saliency beside a peak may be negative, by up to 3 % of it; from there on it is not, up to rounding.
///
/// X. Hou, L. Zhang, "Saliency detection: a spectral residual approach", 2007: the log amplitude minus its local average, with the phase of the map,
/// transformed back and squared. All filters are circular.
///
/// # Errors
/// If the maps have fewer than two axes, an empty one or no float dtype, if a parameter is outside its range, or on failure of the backend.
pub fn spectral_residual(maps: &Tensor, parameters: SpectralResidual) -> Result<Tensor> {
    let SpectralResidual { average, sigma } = parameters;
    let (height, width) = map_size("spectral_residual", maps)?;
    if average.is_multiple_of(2) || average > height.min(width).max(1) {
        return Err(Error::argument("average", average, "use an odd width that fits into the maps"));
    }
    if !(sigma.is_finite() && sigma >= 0.0) {
        return Err(Error::argument("sigma", sigma, "use a width that is not negative"));
    }
    // In half precision the residual of a single frequency can be infinite.
    let spectrum = fft2(&ComplexTensor::from_real(&widened(maps)?)?, Norm::Ortho)?;
    let log_amplitude = spectrum.magnitude(EPS)?.log()?;
    let mut trend = log_amplitude.clone();
    for (axis, length) in [(maps.rank() - 2, height), (maps.rank() - 1, width)] {
        let mut sum = trend.clone();
        for offset in 1..=average / 2 {
            sum = sum.add(&rotate(&trend, axis, offset)?)?.add(&rotate(&trend, axis, length - offset)?)?;
        }
        trend = sum.affine(1.0 / average as f64, 0.0)?;
    }
    let residual = log_amplitude.sub(&trend)?.exp()?;
    let salient: Spectrum = spectrum.phasor(EPS)?.scale(&residual)?;
    let saliency = ifft2(&salient)?.power()?;
    let smooth = if sigma == 0.0 { saliency } else { gaussian(&saliency, sigma, height, width)? };
    Ok(smooth.to_dtype(maps.dtype())?)
}

/// Circular Gaussian smoothing.
fn gaussian(maps: &Tensor, sigma: f64, height: usize, width: usize) -> Result<Tensor> {
    let axis = |length: usize, count: usize| -> Vec<f64> {
        let response = |k: usize| (-0.5 * (sigma * TAU * signed(k, length) / length as f64).powi(2)).exp();
        (0..count).map(response).collect()
    };
    let (rows, columns) = (axis(height, height), axis(width, width / 2 + 1));
    let mask = rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect();
    let mask = constant(mask, (height, width / 2 + 1), maps)?;
    irfft2(&rfft2(maps, Norm::Ortho)?.scale(&mask)?, None)
}
