//! Power spectra, their profiles over radius and angle, and spectra of patches.

use crate::complex::{ComplexTensor, widened};
use crate::error::{Error, Result};
use crate::frequency::{constant, fftshift, map_size, polar_grid};
use crate::norm::Norm;
use crate::spectrum::{Axes, Spectrum};
use crate::transform::{fft2, rfft2};
use crate::window::{Sampling, Window};
use candle_core::{D, Tensor};

/// Floor of a power before its logarithm.
const LOG_FLOOR: f64 = 1e-12;

/// Bound of the bins of a profile.
const MOST_BINS: usize = 1 << 20;

/// Power `|X|^2` of the unitary half spectrum of maps `[..., H, W]`, as `[..., H, W / 2 + 1]`, after taking the mean off and applying the window.
///
/// Without a window, the jump between opposite borders shows as a cross through the zero frequency. A power above 65,504 is infinite in f16.
///
/// # Errors
/// If the maps have fewer than two axes, an empty one or no float dtype, if the window is invalid, or on failure of the backend.
pub fn power_spectrum(maps: &Tensor, window: Option<Window>) -> Result<Tensor> {
    let power = rfft2(&prepare("power_spectrum", maps, window)?, Norm::Ortho)?.power()?;
    Ok(power.to_dtype(maps.dtype())?)
}

/// Logarithm of the power of all frequencies, the zero frequency in the centre, `[..., H, W]`: the usual picture of a spectrum.
///
/// # Errors
/// As [`power_spectrum`].
pub fn log_power_image(maps: &Tensor, window: Option<Window>) -> Result<Tensor> {
    let wide = prepare("log_power_image", maps, window)?;
    let power = fft2(&ComplexTensor::from_real(&wide)?, Norm::Ortho)?.power()?;
    fftshift(&power.affine(1.0, LOG_FLOOR)?.log()?.to_dtype(maps.dtype())?, Axes::Two)
}

/// Mean power over rings of the spectrum, `[..., bins]`: bin `i` holds radii in `[i, i + 1) / bins`, where 1 is the Nyquist frequency of an axis.
///
/// Frequencies in the corners, beyond radius 1, are left out. A ring without any frequency (maps with fewer than `2 bins` rows and columns have such) is 0.
///
/// # Errors
/// If the spectrum is not a half spectrum over two axes, if `bins` is zero or above 2^20, or on failure of the backend.
pub fn radial_profile(spectrum: &Spectrum, bins: usize) -> Result<Tensor> {
    profile("radial_profile", spectrum, bins, |radius, _| {
        // Rounding puts no frequency on a boundary into the ring below; the rim belongs to the last ring.
        let ring = radius * bins as f64 * (1.0 + 4.0 * f64::EPSILON);
        if radius <= 1.0 { Some((ring as usize).min(bins - 1)) } else { None }
    })
}

/// Mean power over directions, `[..., bins]`: bin `i` holds directions within half a bin of `pi i / bins`, counted from the column axis towards rising row
/// frequencies.
///
/// The zero frequency and the corners beyond radius 1 are left out. A texture of stripes shows as a peak in the direction across them.
///
/// # Errors
/// As [`radial_profile`].
pub fn angular_profile(spectrum: &Spectrum, bins: usize) -> Result<Tensor> {
    profile("angular_profile", spectrum, bins, |radius, angle| {
        let inside = radius > 0.0 && radius <= 1.0;
        inside.then(|| (angle / std::f64::consts::PI * bins as f64 + 0.5) as usize % bins)
    })
}

fn profile(
    operation: &'static str,
    spectrum: &Spectrum,
    bins: usize,
    bin_of: impl Fn(f64, f64) -> Option<usize>,
) -> Result<Tensor> {
    if !(1..=MOST_BINS).contains(&bins) {
        return Err(Error::argument("bins", bins, "use 1 to 2^20 bins"));
    }
    if spectrum.axes() != Axes::Two || matches!(spectrum.extent(), crate::spectrum::Extent::Full) {
        return Err(Error::shape(operation, spectrum.dims(), "expected a half spectrum over two axes, from rfft2"));
    }
    let (height, width) = (spectrum.height(), spectrum.width());
    let columns = width / 2 + 1;
    let (radii, angles) = polar_grid(height, width);
    let count = radii.len();
    // Every block of rows has sums of its own: rounding adds up in long ones. All sums take no more space than the spectrum or the result.
    let blocks = (count / bins).min(height).max(1);
    let (mut places, mut weights, mut totals) = (vec![0u32; count], vec![0.0; count], vec![0.0; bins]);
    for (index, (radius, angle)) in radii.into_iter().zip(angles).enumerate() {
        let (row, column) = (index / columns, index % columns);
        if let Some(bin) = bin_of(radius, angle) {
            places[index] = (row * blocks / height * bins + bin) as u32;
            // A column between stands for its mirror image, too, which has the same radius and direction.
            weights[index] = if column == 0 || 2 * column == width { 1.0 } else { 2.0 };
            totals[bin] += weights[index];
        }
    }
    // A frequency that is left out weighs nothing in place 0.
    for (weight, place) in weights.iter_mut().zip(&places) {
        *weight /= f64::max(totals[*place as usize % bins], 1.0);
    }
    // An infinite power would make a NaN of every bin, and so does an infinite value that is left out, as the zero frequency may be.
    let power = spectrum.values().widened()?.power()?;
    let counts =
        Tensor::from_vec(weights.iter().map(|weight| u8::from(*weight > 0.0)).collect(), (1, count), power.device())?;
    let mut dims = power.dims().to_vec();
    dims.truncate(dims.len() - 2);
    dims.push(bins);
    let power = power.reshape(((), count))?;
    let power = counts.broadcast_as(power.shape())?.where_cond(&power, &power.zeros_like()?)?;
    let weighed = power.broadcast_mul(&constant(weights, (1, count), &power)?)?;
    let zeros = Tensor::zeros((weighed.dim(0)?, blocks * bins), power.dtype(), power.device())?;
    let sums = zeros.index_add(&Tensor::new(places, power.device())?, &weighed, 1)?;
    let means = sums.reshape(((), blocks, bins))?.sum(1)?.reshape(dims)?;
    Ok(means.to_dtype(spectrum.values().dtype())?)
}

/// Spectra of windowed square patches: where a map has which frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalSpectra {
    /// Side of a patch, at least 1.
    pub patch: usize,
    /// Distance of neighbouring patches, at least 1.
    pub stride: usize,
    /// Window of a patch; `None` cuts it out as it is.
    pub window: Option<Window>,
}

impl LocalSpectra {
    /// Unitary half spectra `[..., rows, columns, patch, patch / 2 + 1]` of the patches that lie inside maps `[..., H, W]`;
    /// `rows = (H - patch) / stride + 1`.
    ///
    /// # Errors
    /// If `patch` or `stride` is zero, the patch is larger than the maps, or as [`rfft2`].
    pub fn of(&self, maps: &Tensor) -> Result<Spectrum> {
        let (height, width) = map_size("LocalSpectra", maps)?;
        if self.patch == 0 || self.stride == 0 {
            return Err(Error::argument("patch, stride", (self.patch, self.stride), "use at least 1"));
        }
        if self.patch > height.min(width) {
            return Err(Error::shape("LocalSpectra", maps.dims(), "the maps are smaller than a patch"));
        }
        let counts = ((height - self.patch) / self.stride + 1, (width - self.patch) / self.stride + 1);
        let indices = |count: usize| -> Result<Tensor> {
            let indices = (0..count).flat_map(|at| (0..self.patch).map(move |i| (at * self.stride + i) as u32));
            Ok(Tensor::from_iter(indices, maps.device())?)
        };
        let flat = maps.reshape(((), height, width))?;
        let rows = flat.index_select(&indices(counts.0)?, 1)?.index_select(&indices(counts.1)?, 2)?;
        let patches = rows.reshape(((), counts.0, self.patch, counts.1, self.patch))?.permute((0, 1, 3, 2, 4))?;
        let mut dims = maps.dims().to_vec();
        dims.truncate(dims.len() - 2);
        dims.extend([counts.0, counts.1, self.patch, self.patch]);
        let mut patches = patches.contiguous()?.reshape(dims)?;
        if let Some(window) = self.window {
            patches = window.apply(&patches)?;
        }
        rfft2(&patches, Norm::Ortho)
    }
}

/// Takes the mean off and applies a window; half-precision maps become f32, in which sums and the floor of powers are not lost.
fn prepare(operation: &'static str, maps: &Tensor, window: Option<Window>) -> Result<Tensor> {
    let (height, width) = map_size(operation, maps)?;
    let maps = widened(maps)?;
    let centred = maps.broadcast_sub(&maps.mean_keepdim((D::Minus1, D::Minus2))?)?;
    match window {
        None => Ok(centred),
        Some(window) => {
            let values = window.values2(height, width, Sampling::Periodic)?;
            Ok(centred.broadcast_mul(&constant(values, (height, width), &maps)?)?)
        }
    }
}
