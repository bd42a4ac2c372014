//! Rotation-invariant descriptors: rings around every position, and the magnitudes of their Fourier coefficients along the angle.
//!
//! Turning the surroundings of a position by a multiple of the sampling angle permutes the samples of a ring in a circle, which changes the phases of
//! their transform and leaves the magnitudes.

use crate::error::{Error, Result};
use crate::frequency::map_size;
use crate::norm::Norm;
use crate::transform::rfft;
use candle_core::Tensor;
use std::f64::consts::TAU;

/// Keeps the gradient of vanishing magnitudes finite; shifts them by at most 1e-6.
const EPS: f64 = 1e-12;

/// One ring of samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ring {
    /// Radius in samples of the map, above 0.
    pub radius: f64,
    /// Number of samples on the ring, at least 3; multiples of 4 make the descriptor invariant under 90-degree turns.
    pub points: usize,
}

/// The descriptor of a set of rings.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use masf_spectral::RingDescriptor;
///
/// let rings = RingDescriptor::default();
/// let maps = Tensor::rand(0f32, 1f32, (1, 6, 28, 28), &Device::Cpu)?;
/// // Two rings with four harmonics each.
/// assert_eq!(rings.describe(&maps)?.dims(), [1, 6 * 8, 28, 28]);
/// # Ok::<(), masf_spectral::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RingDescriptor {
    rings: Vec<Ring>,
    harmonics: usize,
}

impl Default for RingDescriptor {
    /// Radius 1 with 8 points and radius 2 with 16, harmonics 0 to 3.
    fn default() -> Self {
        Self { rings: vec![Ring { radius: 1.0, points: 8 }, Ring { radius: 2.0, points: 16 }], harmonics: 4 }
    }
}

impl RingDescriptor {
    /// Rings of which the first `harmonics` magnitudes are kept (harmonic 0 is the mean of the ring).
    ///
    /// # Errors
    /// If there is no ring, a radius or number of points is outside its range, or a ring has fewer than `harmonics` frequencies (`points / 2 + 1`).
    pub fn new(rings: &[Ring], harmonics: usize) -> Result<Self> {
        if rings.is_empty() || harmonics == 0 {
            return Err(Error::argument("rings, harmonics", (rings.len(), harmonics), "use at least one of each"));
        }
        for ring in rings {
            if !(ring.radius > 0.0 && ring.radius <= 1024.0) || ring.points < 3 || ring.points > 4096 {
                return Err(Error::argument("ring", ring, "use a radius above 0 to 1024 and 3 to 4096 points"));
            }
            if ring.points / 2 + 1 < harmonics {
                return Err(Error::argument("harmonics", harmonics, "a ring of n points has n / 2 + 1 harmonics"));
            }
        }
        Ok(Self { rings: rings.to_vec(), harmonics })
    }

    /// Descriptor channels per channel of a map.
    pub fn size(&self) -> usize {
        self.rings.len() * self.harmonics
    }

    /// Magnitudes around every position of maps `[B, C, H, W]`: `[B, C * size, H, W]`, channel-major, then ring, then harmonic.
    ///
    /// Samples between grid points are bilinear; beyond the borders, the border repeats. The magnitudes are those of the mean-normalised transform
    /// (`1 / points`), so harmonic 0 is the absolute mean. Differentiable.
    ///
    /// # Errors
    /// If the maps are not `[B, C, H, W]`, have an empty axis or no float dtype, or on failure of the backend.
    pub fn describe(&self, maps: &Tensor) -> Result<Tensor> {
        let (height, width) = map_size("RingDescriptor", maps)?;
        let &[batch, channels, _, _] = maps.dims() else {
            return Err(Error::shape("RingDescriptor", maps.dims(), "expected [B, C, H, W]"));
        };
        let mut described = Vec::with_capacity(self.rings.len());
        for ring in &self.rings {
            let margin = ring.radius.ceil() as usize + 1;
            let padded = maps.pad_with_same(2, margin, margin)?.pad_with_same(3, margin, margin)?;
            let samples = (0..ring.points)
                .map(|point| {
                    let (sin, cos) = (TAU * point as f64 / ring.points as f64).sin_cos();
                    moved(&padded, margin, ring.radius * sin, ring.radius * cos, (height, width))
                })
                .collect::<Result<Vec<_>>>()?;
            let samples = Tensor::stack(&samples, 4)?;
            let magnitudes = rfft(&samples, Norm::Forward)?.magnitude(EPS)?;
            described.push(magnitudes.narrow(4, 0, self.harmonics)?);
        }
        let described = Tensor::cat(&described, 4)?;
        let channel_first = described.permute((0, 1, 4, 2, 3))?.contiguous()?;
        Ok(channel_first.reshape((batch, channels * self.size(), height, width))?)
    }
}

/// The map as seen from `(down, right)` away, bilinear, from a map padded by `margin`.
fn moved(padded: &Tensor, margin: usize, down: f64, right: f64, (height, width): (usize, usize)) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (row, row_weight) in taps(down, margin) {
        for (column, column_weight) in taps(right, margin) {
            let weight = row_weight * column_weight;
            if weight == 0.0 {
                continue;
            }
            let part = padded.narrow(2, row, height)?.narrow(3, column, width)?.affine(weight, 0.0)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&part)?,
                None => part,
            });
        }
    }
    sum.ok_or_else(|| Error::argument("ring", (down, right), "no sample has a weight"))
}

/// The two grid points around an offset, as starts in the padded axis, with their weights.
fn taps(offset: f64, margin: usize) -> [(usize, f64); 2] {
    // The sine of a right angle is off by 1e-16: such offsets are meant to be whole.
    let nearest = offset.round();
    let offset = if (offset - nearest).abs() < 1e-9 { nearest } else { offset };
    let floor = offset.floor();
    let start = (margin as f64 + floor) as usize;
    [(start, 1.0 - (offset - floor)), (start + 1, offset - floor)]
}
