//! Reading and changing the phase and the amplitude of maps.
//!
//! Phase carries where things are, amplitude how strong each frequency is (A. V. Oppenheim, J. S. Lim, "The importance of phase in signals", 1981).

use crate::complex::{AMPLITUDE_EPS, ComplexTensor, widened};
use crate::error::{Error, Result};
use crate::frequency::{constant, map_size, polar_grid, signed};
use crate::norm::Norm;
use crate::transform::{irfft2, rfft2};
use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::TAU;

/// Keeps phasors of vanishing frequencies finite.
const EPS: f64 = 1e-12;

/// Maps `[..., H, W]` with all amplitudes set to 1: edges and irregularities stand out, regular texture vanishes.
///
/// # Errors
/// If the maps have fewer than two axes, an empty one or no float dtype, or on failure of the backend.
pub fn phase_only(maps: &Tensor) -> Result<Tensor> {
    // In half precision the zero frequency of bright maps would be infinite, here and below.
    Ok(irfft2(&rfft2(&widened(maps)?, Norm::Ortho)?.phasor(EPS)?, None)?.to_dtype(maps.dtype())?)
}

/// Maps `[..., H, W]` with all phases set to 0: what remains is the autocorrelation-like pattern of the texture around the origin.
///
/// # Errors
/// As [`phase_only`].
pub fn amplitude_only(maps: &Tensor) -> Result<Tensor> {
    let spectrum = rfft2(&widened(maps)?, Norm::Ortho)?;
    let amplitude = spectrum.magnitude(AMPLITUDE_EPS)?;
    Ok(irfft2(&spectrum.with_values(ComplexTensor::from_real(&amplitude)?)?, None)?.to_dtype(maps.dtype())?)
}

/// `content` with its amplitudes drawn towards those of `style` by `weight` in `[0, 1]`, at radii up to `radius` (1: Nyquist), and its phases kept.
///
/// The amplitude exchange of Y. Yang, S. Soatto, "FDA: Fourier domain adaptation for semantic segmentation", 2020, on a disc.
///
/// # Errors
/// If the shapes differ, if `weight` or `radius` is outside its range, or as [`phase_only`].
pub fn mix_amplitude(content: &Tensor, style: &Tensor, weight: f64, radius: f64) -> Result<Tensor> {
    if content.dims() != style.dims() {
        return Err(Error::shape("mix_amplitude", style.dims(), "content and style need the same shape"));
    }
    if !(0.0..=1.0).contains(&weight) {
        return Err(Error::argument("weight", weight, "use a weight from 0 to 1"));
    }
    if !(radius.is_finite() && radius >= 0.0) {
        return Err(Error::argument("radius", radius, "use a radius that is not negative"));
    }
    let (height, width) = map_size("mix_amplitude", content)?;
    let (radii, _) = polar_grid(height, width);
    let weights = radii.into_iter().map(|r| if r <= radius { weight } else { 0.0 }).collect();
    let dtype = content.dtype();
    // In half precision the factor of a vanishing amplitude would be infinite.
    let (content, style) = (widened(content)?, widened(style)?);
    let weights = constant(weights, (height, width / 2 + 1), &content)?;
    let (content, style) = (rfft2(&content, Norm::Ortho)?, rfft2(&style, Norm::Ortho)?);
    let own = content.magnitude(EPS)?;
    // own + w (other - own), as a factor on the values.
    let change = style.magnitude(EPS)?.sub(&own)?.broadcast_mul(&weights)?;
    let factor = change.div(&own)?.affine(1.0, 1.0)?;
    Ok(irfft2(&content.scale(&factor)?, None)?.to_dtype(dtype)?)
}

/// Shifts maps `[..., H, W]` circularly by `down` rows and `right` columns, by a phase ramp.
///
/// Exact for whole numbers; for fractions, the band-limited (sinc) interpolation. Negative shifts go up and left. At the Nyquist frequency of an
/// even side, whose phase cannot turn, a fraction takes the cosine.
///
/// # Errors
/// If a shift is not finite, or as [`phase_only`].
pub fn shift(maps: &Tensor, down: f64, right: f64) -> Result<Tensor> {
    if !(down.is_finite() && right.is_finite()) {
        return Err(Error::argument("shift", (down, right), "use finite numbers"));
    }
    let (height, width) = map_size("shift", maps)?;
    let wide = widened(maps)?;
    let spectrum = rfft2(&wide, Norm::Ortho)?;
    let rows = ramp(height, height, down);
    let columns = ramp(width, width / 2 + 1, right);
    let (mut re, mut im) = (Vec::new(), Vec::new());
    for (a, b) in &rows {
        for (c, d) in &columns {
            re.push(a * c - b * d);
            im.push(a * d + b * c);
        }
    }
    let shape = (height, width / 2 + 1);
    let transfer = ComplexTensor::new(&constant(re, shape, &wide)?, &constant(im, shape, &wide)?)?;
    Ok(irfft2(&spectrum.filter(&transfer)?, None)?.to_dtype(maps.dtype())?)
}

/// `exp(-2 pi i k d / n)` of the first `count` bins.
fn ramp(length: usize, count: usize, distance: f64) -> Vec<(f64, f64)> {
    (0..count)
        .map(|index| {
            // Whole turns first, so that large shifts lose no accuracy.
            let turns = signed(index, length) * (distance % length as f64) / length as f64;
            let (sin, cos) = (-TAU * turns).sin_cos();
            if 2 * index == length { (cos, 0.0) } else { (cos, sin) }
        })
        .collect()
}

/// Random phase changes that keep real maps real: odd-symmetric, zero at the zero and Nyquist frequencies, uniform in `[-limit, limit]` within a band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhaseNoise {
    limit: f64,
    band: (f64, f64),
}

impl PhaseNoise {
    /// Phase changes of at most `limit` radians (0 to pi), at radii in `band` (1: Nyquist).
    ///
    /// # Errors
    /// If the limit or the band is outside its range.
    pub fn new(limit: f64, band: (f64, f64)) -> Result<Self> {
        if !(0.0..=std::f64::consts::PI).contains(&limit) {
            return Err(Error::argument("limit", limit, "use 0 to pi radians"));
        }
        if !(band.0 >= 0.0 && band.0 <= band.1 && band.1.is_finite()) {
            return Err(Error::argument("band", band, "use radii with 0 <= low <= high"));
        }
        Ok(Self { limit, band })
    }

    /// The phase changes for half spectra of `[height, width]` maps, `height * (width / 2 + 1)` values in radians, row-major. The same seed gives
    /// the same phases.
    ///
    /// # Errors
    /// If a size is zero.
    pub fn phases(&self, height: usize, width: usize, seed: u64) -> Result<Vec<f64>> {
        if height == 0 || width == 0 {
            return Err(Error::argument("size", (height, width), "use sizes of at least 1"));
        }
        let columns = width / 2 + 1;
        let (radii, _) = polar_grid(height, width);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut phases: Vec<f64> = radii
            .iter()
            .map(|radius| {
                let phase = self.limit * rng.random_range(-1.0..=1.0);
                if (self.band.0..=self.band.1).contains(radius) { phase } else { 0.0 }
            })
            .collect();
        // Columns 0 and Nyquist hold their own mirror images.
        for column in (0..columns).filter(|column| *column == 0 || 2 * column == width) {
            for row in 0..height {
                let mirror = (height - row) % height;
                let phase = if mirror == row { 0.0 } else { -phases[mirror * columns + column] };
                if mirror <= row {
                    phases[row * columns + column] = phase;
                }
            }
        }
        Ok(phases)
    }

    /// Maps `[..., H, W]` with the phases of this noise added: the same phases for all maps, amplitudes unchanged.
    ///
    /// # Errors
    /// As [`phase_only`].
    pub fn apply(&self, maps: &Tensor, seed: u64) -> Result<Tensor> {
        let (height, width) = map_size("PhaseNoise", maps)?;
        let phases = self.phases(height, width, seed)?;
        let shape = (height, width / 2 + 1);
        let wide = widened(maps)?;
        let re = constant(phases.iter().map(|phase| phase.cos()).collect(), shape, &wide)?;
        let im = constant(phases.iter().map(|phase| phase.sin()).collect(), shape, &wide)?;
        let noisy = rfft2(&wide, Norm::Ortho)?.filter(&ComplexTensor::new(&re, &im)?)?;
        Ok(irfft2(&noisy, None)?.to_dtype(maps.dtype())?)
    }
}
