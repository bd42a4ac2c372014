//! A patch whose spectrum is disturbed: phases shuffled, a band amplified or damped.
//!
//! The phases added are those of the spectrum of real white noise, hence odd-symmetric; gains depend on the radius alone,
//! hence even. So the patch stays real up to rounding, except at Nyquist frequencies, whose imaginary part is dropped.

use std::sync::Arc;

use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftDirection, FftPlannerScalar};

use crate::synthetic::noise::Draw;

/// The patch `[height, width]` with a share `strength` of a random phase added to every frequency, and one radial band with
/// another gain.
pub(super) fn disturb(
    draw: &mut Draw,
    patch: &[[f64; 3]],
    height: usize,
    width: usize,
    strength: f64,
) -> Vec<[f64; 3]> {
    let field = draw.field();
    let cells = |index: usize| (index / width, index % width);
    let mut noise: Vec<Complex64> = (0..patch.len())
        .map(|index| {
            let (row, column) = cells(index);
            Complex64::new(field.white(column as i64, row as i64), 0.0)
        })
        .collect();
    let forward = Plan::new(height, width, FftDirection::Forward);
    let inverse = Plan::new(height, width, FftDirection::Inverse);
    forward.transform(&mut noise);
    let centre = draw.between(0.2, 0.8);
    // Amplified threefold or damped to a third at strength 1.
    let change = draw.between(-1.0, 1.0).signum() * strength * 3f64.ln();
    let factors: Vec<Complex64> = noise
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let (row, column) = cells(index);
            if index == 0 {
                return Complex64::new(1.0, 0.0);
            }
            let frequency = |k: usize, n: usize| 2.0 * k.min(n - k) as f64 / n as f64;
            let radius = frequency(row, height).hypot(frequency(column, width));
            let gain = (change * (-((radius - centre) / 0.2).powi(2)).exp()).exp();
            Complex64::from_polar(gain, strength * value.arg())
        })
        .collect();
    let mut out = vec![[0.0; 3]; patch.len()];
    for channel in 0..3 {
        let mut values: Vec<Complex64> = patch.iter().map(|colour| Complex64::new(colour[channel], 0.0)).collect();
        forward.transform(&mut values);
        for (value, factor) in values.iter_mut().zip(&factors) {
            *value *= factor;
        }
        inverse.transform(&mut values);
        for (out, value) in out.iter_mut().zip(&values) {
            out[channel] = value.re / patch.len() as f64;
        }
    }
    out
}

/// The unnormalised two-dimensional transform of one size and direction.
///
/// By RustFFT's scalar planner: patches are small, and its vector code for `f64` would take long to compile.
struct Plan {
    rows: Arc<dyn Fft<f64>>,
    columns: Arc<dyn Fft<f64>>,
}

impl Plan {
    fn new(height: usize, width: usize, direction: FftDirection) -> Self {
        let mut planner = FftPlannerScalar::new();
        Self { rows: planner.plan_fft(width, direction), columns: planner.plan_fft(height, direction) }
    }

    /// Transforms rows, then columns.
    fn transform(&self, values: &mut [Complex64]) {
        let (height, width) = (self.columns.len(), self.rows.len());
        for row in values.chunks_exact_mut(width) {
            self.rows.process(row);
        }
        let mut column = vec![Complex64::default(); height];
        for x in 0..width {
            for (y, value) in column.iter_mut().enumerate() {
                *value = values[y * width + x];
            }
            self.columns.process(&mut column);
            for (y, value) in column.iter().enumerate() {
                values[y * width + x] = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use masf_core::random_stream;

    use super::*;

    #[test]
    fn without_strength_nothing_changes_and_the_mean_always_stays() {
        for (height, width) in [(5, 7), (16, 16), (2, 31)] {
            let patch: Vec<[f64; 3]> =
                (0..height * width).map(|i| [(i * 37 % 101) as f64, (i * 11 % 53) as f64, 9.0]).collect();
            let disturbed = |strength| disturb(&mut Draw(random_stream(0, "test")), &patch, height, width, strength);
            for (a, b) in disturbed(0.0).iter().zip(&patch) {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9));
            }
            let strong = disturbed(1.0);
            for channel in 0..3 {
                let mean = |patch: &[[f64; 3]]| patch.iter().map(|c| c[channel]).sum::<f64>() / patch.len() as f64;
                assert!((mean(&strong) - mean(&patch)).abs() < 1e-9);
            }
            let change: f64 = strong.iter().zip(&patch).map(|(a, b)| (a[0] - b[0]).abs()).sum::<f64>();
            assert!(change / patch.len() as f64 > 5.0);
            assert!(strong.iter().all(|colour| (colour[2] - 9.0).abs() < 1e-9), "a constant has no other frequency");
        }
    }
}
