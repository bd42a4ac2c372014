//! Windows that taper a signal to its borders, against the leakage of a cut that the transform takes for a jump.
//!
//! Formulas as in F. J. Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform", 1978.

use crate::error::{Error, Result};
use crate::frequency::{constant, map_size};
use candle_core::Tensor;
use std::f64::consts::TAU;

/// A window function.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Window {
    /// `0.5 - 0.5 cos`.
    Hann,
    /// `0.54 - 0.46 cos`.
    Hamming,
    /// `0.42 - 0.5 cos + 0.08 cos` of twice the angle.
    Blackman,
    /// Flat with cosine flanks, which take the share `alpha` in `[0, 1]` of the length: 0 is no window, 1 is Hann.
    Tukey {
        /// Share of the flanks.
        alpha: f64,
    },
}

/// Whether a window's end repeats its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// One period, without the last sample: for spectra. SciPy's `sym=False`.
    #[default]
    Periodic,
    /// Symmetric, with both ends: for filters and tapering. SciPy's `sym=True`.
    Symmetric,
}

impl Window {
    /// The `length` values of the window.
    ///
    /// # Errors
    /// If the length is zero or `alpha` outside `[0, 1]`.
    pub fn values(self, length: usize, sampling: Sampling) -> Result<Vec<f64>> {
        if length == 0 {
            return Err(Error::argument("length", length, "use at least one sample"));
        }
        if let Window::Tukey { alpha } = self
            && !(0.0..=1.0).contains(&alpha)
        {
            return Err(Error::argument("alpha", alpha, "use a share from 0 to 1"));
        }
        let period = match sampling {
            Sampling::Periodic => length,
            Sampling::Symmetric => length - 1,
        };
        if length == 1 {
            return Ok(vec![1.0]);
        }
        Ok((0..length).map(|index| self.at(index as f64 / period as f64)).collect())
    }

    /// The separable window over two axes, `[height, width]` row-major.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn values2(self, height: usize, width: usize, sampling: Sampling) -> Result<Vec<f64>> {
        let (rows, columns) = (self.values(height, sampling)?, self.values(width, sampling)?);
        Ok(rows.iter().flat_map(|row| columns.iter().map(move |column| row * column)).collect())
    }

    /// Multiplies maps `[..., H, W]` by the periodic window.
    ///
    /// # Errors
    /// If the tensor is not of that form, or as [`values`](Self::values).
    pub fn apply(self, maps: &Tensor) -> Result<Tensor> {
        let (height, width) = map_size("Window::apply", maps)?;
        let window = constant(self.values2(height, width, Sampling::Periodic)?, (height, width), maps)?;
        Ok(maps.broadcast_mul(&window)?)
    }

    /// Value at a position in `[0, 1]`.
    fn at(self, position: f64) -> f64 {
        let cos = (TAU * position).cos();
        match self {
            Window::Hann => 0.5 - 0.5 * cos,
            Window::Hamming => 0.54 - 0.46 * cos,
            Window::Blackman => 0.42 - 0.5 * cos + 0.08 * (2.0 * TAU * position).cos(),
            Window::Tukey { alpha } => {
                let from_border = position.min(1.0 - position);
                if 2.0 * from_border >= alpha { 1.0 } else { 0.5 - 0.5 * (TAU * from_border / alpha).cos() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_meet_their_definitions() -> Result<()> {
        let hann = Window::Hann.values(4, Sampling::Periodic)?;
        for (value, expected) in hann.iter().zip([0.0, 0.5, 1.0, 0.5]) {
            assert!((value - expected).abs() < 1e-15);
        }
        assert_eq!(Window::Tukey { alpha: 0.0 }.values(5, Sampling::Symmetric)?, [1.0; 5]);
        let (tukey, hann) = (Window::Tukey { alpha: 1.0 }, Window::Hann);
        for sampling in [Sampling::Periodic, Sampling::Symmetric] {
            for (a, b) in tukey.values(9, sampling)?.iter().zip(hann.values(9, sampling)?) {
                assert!((a - b).abs() < 1e-14);
            }
        }
        assert!(Window::Hann.values(0, Sampling::Periodic).is_err());
        assert!(Window::Tukey { alpha: 1.5 }.values(4, Sampling::Periodic).is_err());
        assert!(Window::Tukey { alpha: f64::NAN }.values(4, Sampling::Periodic).is_err());
        Ok(())
    }
}
