//! The Morlet filter bank, in closed form in the Fourier domain.
//!
//! In space a Gabor filter is `g(u) = exp(-u^T C u + i xi^T u) / Z` with `C = R diag(1, s^2) R^T / (2 sigma^2)`: a Gaussian of width `sigma`
//! along the wave vector and `sigma / s` across it. On a grid of period `M x N` its Fourier transform is the periodised continuous one,
//! `G(w) = (Z0 / Z) sum_m exp(-(d_1^2 + d_2^2 / s^2) sigma^2 / 2)`, `d = R^T (w + 2 pi m - xi)`, `Z0 = 2 pi sigma^2 / s`. A Morlet wavelet subtracts the
//! envelope, scaled so that the value at zero frequency vanishes. Constants as in Kymatio: `sigma = 0.8 * 2^j`, `|xi| = 3 pi / 4 / 2^j`,
//! `s = 4 / L`, low-pass `sigma = 0.8 * 2^(J-1)`, angles `(floor(L - L/2 - 1) - l) pi / L` from the first (row) axis.

use std::f64::consts::{PI, TAU};

/// Kymatio normalises by `2 * 3.1415 * sigma^2 / s`; with the same constant the values agree to f32 accuracy.
#[allow(clippy::approx_constant, reason = "the constant is theirs")]
const KYMATIO_PI: f64 = 3.1415;

/// Aliases on each side that count: beyond, the widest filter (`sigma = 0.8`) is below 1e-30.
const ALIASES: i32 = 2;

/// One oriented Gaussian in frequency.
struct Gabor {
    sigma: f64,
    slant: f64,
    cos: f64,
    sin: f64,
    frequency: f64,
}

impl Gabor {
    /// Value at the angular frequency `(row, column)`, aliases included.
    fn at(&self, row: f64, column: f64) -> f64 {
        let mut sum = 0.0;
        for m in -ALIASES..=ALIASES {
            for n in -ALIASES..=ALIASES {
                let dr = row + TAU * f64::from(m) - self.frequency * self.cos;
                let dc = column + TAU * f64::from(n) - self.frequency * self.sin;
                let along = self.cos * dr + self.sin * dc;
                let across = self.cos * dc - self.sin * dr;
                let exponent = along * along + across * across / (self.slant * self.slant);
                sum += (-0.5 * self.sigma * self.sigma * exponent).exp();
            }
        }
        sum * PI / KYMATIO_PI
    }
}

/// The wavelet of scale `scale` and orientation `angle` on a frequency grid `[height, width]`, row-major; real.
pub(super) fn morlet(height: usize, width: usize, scale: usize, angle: usize, angles: usize) -> Vec<f64> {
    let octave = (1usize << scale) as f64;
    // floor(L - L/2 - 1), as Kymatio's int().
    let first = (angles as f64 / 2.0 - 1.0).trunc();
    let theta = (first - angle as f64) * PI / angles as f64;
    let gabor = Gabor {
        sigma: 0.8 * octave,
        slant: 4.0 / angles as f64,
        cos: theta.cos(),
        sin: theta.sin(),
        frequency: 0.75 * PI / octave,
    };
    let envelope = Gabor { frequency: 0.0, ..gabor };
    let balance = gabor.at(0.0, 0.0) / envelope.at(0.0, 0.0);
    let mut values = Vec::with_capacity(height * width);
    for row in 0..height {
        for column in 0..width {
            let (wr, wc) = (angular(row, height), angular(column, width));
            values.push(gabor.at(wr, wc) - balance * envelope.at(wr, wc));
        }
    }
    values
}

/// Restricts a filter on the grid `[height, width]` to the frequencies that remain after subsampling by `factor` per axis.
pub(super) fn restrict(filter: &[f64], height: usize, width: usize, factor: usize) -> Vec<f64> {
    let (rows, columns) = (height / factor, width / factor);
    let at = |index: usize, kept: usize, all: usize| if index < kept / 2 { index } else { all - kept + index };
    (0..rows * columns)
        .map(|index| filter[at(index / columns, rows, height) * width + at(index % columns, columns, width)])
        .collect()
}

/// Averaging by the Gaussian low-pass of width `sigma` (in samples of the finest grid) and subsampling along one axis, as a matrix
/// `[outputs, length / factor]`, row-major.
///
/// The input is a periodic signal of `length` fine samples, given at every `factor`-th one. Output `i` lies at the fine sample
/// `first + i * stride`. The low-pass is isotropic, so two such matrices make the two-dimensional one.
pub(super) fn averaging(
    length: usize,
    factor: usize,
    sigma: f64,
    first: usize,
    stride: usize,
    outputs: usize,
) -> Vec<f64> {
    let samples = length / factor;
    let response: Vec<f64> = (0..samples)
        .map(|k| {
            let fine = if k < samples / 2 { k } else { length - samples + k };
            gaussian(angular(fine, length), sigma)
        })
        .collect();
    // Kernel on the fine grid: the response is even, so its inverse transform is real.
    let kernel: Vec<f64> = (0..length)
        .map(|n| {
            let sum: f64 = (response.iter().enumerate())
                .map(|(k, value)| {
                    let signed = if k < samples.div_ceil(2) { k } else { length - samples + k };
                    value * (TAU * ((signed * n) % length) as f64 / length as f64).cos()
                })
                .sum();
            sum / samples as f64
        })
        .collect();
    let mut matrix = Vec::with_capacity(outputs * samples);
    for output in 0..outputs {
        let centre = first + output * stride;
        for sample in 0..samples {
            matrix.push(kernel[(centre + length - (sample * factor) % length) % length]);
        }
    }
    matrix
}

/// One axis of the low-pass: the square root of Kymatio's constant belongs to each.
fn gaussian(frequency: f64, sigma: f64) -> f64 {
    let sum: f64 =
        (-ALIASES..=ALIASES).map(|m| (-0.5 * (sigma * (frequency + TAU * f64::from(m))).powi(2)).exp()).sum();
    sum * (PI / KYMATIO_PI).sqrt()
}

/// Angular frequency of an index, in `[-pi, pi)`.
fn angular(index: usize, length: usize) -> f64 {
    let signed = if 2 * index < length { index as f64 } else { index as f64 - length as f64 };
    TAU * signed / length as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wavelets_have_no_mean_and_averages_keep_it() {
        for angle in 0..8 {
            assert!(morlet(24, 32, 1, angle, 8)[0].abs() < 1e-15);
        }
        // A constant stays what it is, up to Kymatio's constant.
        for (factor, first, stride) in [(1, 8, 8), (2, 0, 4), (4, 8, 8)] {
            let matrix = averaging(64, factor, 3.2, first, stride, 6);
            for row in matrix.chunks_exact(64 / factor) {
                let sum: f64 = row.iter().sum();
                assert!((sum - (PI / KYMATIO_PI).sqrt()).abs() < 1e-12, "{sum}");
            }
        }
    }

    #[test]
    fn restriction_keeps_the_low_frequencies() {
        let filter: Vec<f64> = (0..64).map(f64::from).collect();
        assert_eq!(restrict(&filter, 8, 8, 4), [0.0, 7.0, 56.0, 63.0]);
    }
}
