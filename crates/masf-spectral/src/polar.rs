//! Log-polar resampling and the Fourier-Mellin signature.
//!
//! In log-polar coordinates around a centre a rotation is a shift along the angle and a change of scale a shift along the radius. The magnitude of a
//! spectrum ignores translations; resampled log-polar and transformed once more, its magnitude ignores rotation and scale, too
//! (Q. Chen, M. Defrise, F. Deconinck, "Symmetric phase-only matched filtering of Fourier-Mellin transforms", 1994).

use crate::complex::{AMPLITUDE_EPS, ComplexTensor, widened};
use crate::error::{Error, Result};
use crate::frequency::{constant, fftshift, map_size};
use crate::norm::Norm;
use crate::spectrum::Axes;
use crate::transform::{fft2, rfft2};
use crate::window::Window;
use candle_core::Tensor;
use std::f64::consts::{PI, TAU};

/// A log-polar grid: `radii` radii from `inner` to `outer` in equal ratios, times `angles` angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogPolar {
    /// Number of radii, 2 to 4096.
    pub radii: usize,
    /// Number of angles, 2 to 4096.
    pub angles: usize,
    /// Smallest radius in samples, above 0.
    pub inner: f64,
    /// Largest radius in samples, above `inner`. `None` takes half the smaller side.
    pub outer: Option<f64>,
}

impl Default for LogPolar {
    /// 32 radii from 1 sample to half the smaller side, 64 angles.
    fn default() -> Self {
        Self { radii: 32, angles: 64, inner: 1.0, outer: None }
    }
}

impl LogPolar {
    /// Samples maps `[..., H, W]` around `centre = (row, column)`, over the full circle: `[..., radii, angles]`.
    ///
    /// Angle 0 points along the columns, angles rise towards rising rows. Bilinear; samples beyond the borders are 0. Differentiable.
    ///
    /// # Errors
    /// If a field or the centre is outside its range, if the maps are not of that form, or on failure of the backend.
    pub fn sample(&self, maps: &Tensor, centre: (f64, f64)) -> Result<Tensor> {
        self.sample_arc(maps, centre, TAU)
    }

    /// The Fourier-Mellin signature of maps `[..., H, W]`: `[..., radii, angles / 2 + 1]`.
    ///
    /// Magnitude of the windowed map's unitary spectrum, centred and sampled log-polar over half the circle (the other half is its mirror image), then
    /// the magnitude of the transform of that. Circular translations of an unwindowed map leave it exactly; rotations about any centre and changes of
    /// scale leave it up to resampling and what enters at the borders.
    ///
    /// # Errors
    /// As [`sample`](Self::sample).
    pub fn signature(&self, maps: &Tensor, window: Option<Window>) -> Result<Tensor> {
        let (height, width) = map_size("LogPolar::signature", maps)?;
        // In half precision the zero frequency of bright maps would be infinite.
        let wide = widened(maps)?;
        let windowed = match window {
            Some(window) => window.apply(&wide)?,
            None => wide,
        };
        let spectrum = fft2(&ComplexTensor::from_real(&windowed)?, Norm::Ortho)?;
        let centred = fftshift(&spectrum.magnitude(AMPLITUDE_EPS)?, Axes::Two)?;
        let polar = self.sample_arc(&centred, ((height / 2) as f64, (width / 2) as f64), PI)?;
        Ok(rfft2(&polar, Norm::Ortho)?.magnitude(AMPLITUDE_EPS)?.to_dtype(maps.dtype())?)
    }

    fn sample_arc(&self, maps: &Tensor, centre: (f64, f64), arc: f64) -> Result<Tensor> {
        let (height, width) = map_size("LogPolar", maps)?;
        if [self.radii, self.angles].iter().any(|count| !(2..=4096).contains(count)) {
            return Err(Error::argument("radii, angles", (self.radii, self.angles), "use 2 to 4096 of each"));
        }
        let outer = self.outer.unwrap_or(height.min(width) as f64 / 2.0);
        if !(self.inner > 0.0 && self.inner < outer && outer.is_finite()) {
            return Err(Error::argument("inner, outer", (self.inner, outer), "use 0 < inner < outer"));
        }
        if !(centre.0.is_finite() && centre.1.is_finite()) {
            return Err(Error::argument("centre", centre, "use finite coordinates"));
        }
        let ratio = (outer / self.inner).ln() / (self.radii - 1) as f64;
        let mut points = Vec::with_capacity(self.radii * self.angles);
        for i in 0..self.radii {
            let radius = self.inner * (ratio * i as f64).exp();
            for j in 0..self.angles {
                let (sin, cos) = (arc * j as f64 / self.angles as f64).sin_cos();
                points.push((centre.0 + radius * sin, centre.1 + radius * cos));
            }
        }
        let flat = maps.reshape(((), height * width))?;
        let sampled = bilinear(&flat, &points, height, width)?;
        let mut dims = maps.dims().to_vec();
        dims.truncate(dims.len() - 2);
        dims.extend([self.radii, self.angles]);
        Ok(sampled.reshape(dims)?)
    }
}

/// Samples flat maps `[N, H W]` at `(row, column)` points: `[N, points]`; 0 beyond the borders.
fn bilinear(flat: &Tensor, points: &[(f64, f64)], height: usize, width: usize) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (mut indices, mut weights) = (Vec::with_capacity(points.len()), Vec::with_capacity(points.len()));
        for (y, x) in points {
            let (row, column) = (y.floor() + f64::from(down), x.floor() + f64::from(right));
            let inside = row >= 0.0 && row < height as f64 && column >= 0.0 && column < width as f64;
            let weight = (1.0 - (y - row).abs()) * (1.0 - (x - column).abs());
            indices.push(if inside { (row as usize * width + column as usize) as u32 } else { 0 });
            weights.push(if inside { weight } else { 0.0 });
        }
        let count = points.len();
        let part = flat.index_select(&Tensor::new(indices, flat.device())?, 1)?.broadcast_mul(&constant(
            weights,
            (1, count),
            flat,
        )?)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&part)?,
            None => part,
        });
    }
    sum.ok_or_else(|| Error::argument("points", points.len(), "no points"))
}
