//! Turning images about their centre, for objects that lie at any angle.

use std::f64::consts::PI;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::error::{DataError, Result};

/// Images `[B, C, H, W]` turned counter-clockwise by an angle in degrees, in a frame of the same size.
///
/// Pixels between pixels are interpolated by cubics through their neighbours (Catmull and Rom, 1974; R. G. Keys, "Cubic convolution interpolation for digital image
/// processing", 1981, with a = -1/2), which keep edges about as sharp as they were and may reach a little beyond the range of the
/// values; what comes from beyond the frame is mirrored at its border. Multiples
/// of 90 degrees only move the pixels of square images, those of 180 degrees the pixels of all. `f32`, on the CPU.
///
/// ```
/// use candle_core::{Device, Tensor};
///
/// let image = Tensor::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu)?;
/// let turned = masf_data::turn(&image, 90.0)?;
/// assert_eq!(turned.flatten_all()?.to_vec1::<f32>()?, [2., 4., 1., 3.]);
/// # Ok::<(), masf_core::Error>(())
/// ```
///
/// # Errors
/// A tensor of another rank, or an angle that is not finite.
pub fn turn(images: &Tensor, degrees: f64) -> Result<Tensor> {
    if !degrees.is_finite() {
        return Err(DataError::argument("degrees", degrees, "a finite angle"));
    }
    let (batch, channels, height, width) = images.dims4()?;
    let values = images.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (sin, cos) = sine_and_cosine(degrees);
    let centre = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
    let mut taps = Vec::with_capacity(height * width);
    for row in 0..height {
        for column in 0..width {
            let (y, x) = (row as f64 - centre.0, column as f64 - centre.1);
            let (above, below) = tap(centre.0 + sin * x + cos * y);
            let (left, right) = tap(centre.1 + cos * x - sin * y);
            let rows = [-1, 0, 1, 2].map(|step| mirrored(above + step, height) * width);
            let columns = [-1, 0, 1, 2].map(|step| mirrored(left + step, width));
            taps.push((rows, columns, below, right));
        }
    }
    let mut turned = vec![0f32; values.len()];
    let size = (height * width).max(1);
    turned.par_chunks_mut(size).zip(values.par_chunks(size)).for_each(|(turned, plane)| {
        for (value, (rows, columns, below, right)) in turned.iter_mut().zip(&taps) {
            let line = |row: usize| cubic(columns.map(|column| plane[row + column]), *right);
            *value = cubic(rows.map(line), *below);
        }
    });
    Ok(Tensor::from_vec(turned, (batch, channels, height, width), &Device::Cpu)?)
}

/// Exact for multiples of 90 degrees.
fn sine_and_cosine(degrees: f64) -> (f64, f64) {
    match degrees.rem_euclid(360.0) {
        0.0 => (0.0, 1.0),
        90.0 => (1.0, 0.0),
        180.0 => (0.0, -1.0),
        270.0 => (-1.0, 0.0),
        other => (other * PI / 180.0).sin_cos(),
    }
}

/// The cubic through the second and the third of four neighbours, a share of the way between them; constants stay as they are to the bit.
fn cubic(values: [f32; 4], share: f32) -> f32 {
    let [before, here, next, after] = values;
    let (before, next, after) = (before - here, next - here, after - here);
    let cubed = 3.0 * -next + after - before;
    let squared = 2.0 * before + 4.0 * next - after;
    here + 0.5 * share * (next - before + share * (squared + share * cubed))
}

/// The index before a coordinate, and the weight of the one after.
fn tap(coordinate: f64) -> (i64, f32) {
    (coordinate.floor() as i64, (coordinate - coordinate.floor()) as f32)
}

/// The index that mirroring at the borders gives: d c b a | a b c d | d c b a.
fn mirrored(index: i64, length: usize) -> usize {
    let wrapped = index.rem_euclid(2 * length as i64) as usize;
    if wrapped < length { wrapped } else { 2 * length - 1 - wrapped }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize) -> Tensor {
        let values = (0..2 * height * width).map(|i| ((i * 7919) % 101) as f32).collect();
        Tensor::from_vec(values, (1, 2, height, width), &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn quarter_turns_move_pixels_only() {
        for side in [1, 2, 5, 8] {
            let original = image(side, side);
            let mut turned = original.clone();
            for quarter in 1..=4 {
                turned = turn(&turned, 90.0).unwrap();
                assert_eq!(values(&turned), values(&turn(&original, f64::from(quarter) * 90.0).unwrap()));
            }
            assert_eq!(values(&turned), values(&original));
            assert_eq!(values(&turn(&original, -90.0).unwrap()), values(&turn(&original, 270.0).unwrap()));
        }
    }

    #[test]
    fn half_turns_of_oblong_images_reverse_them() {
        let original = image(3, 7);
        let expected: Vec<f32> = values(&original).chunks(21).flat_map(|plane| plane.iter().rev().copied()).collect();
        assert_eq!(values(&turn(&original, 180.0).unwrap()), expected);
    }

    #[test]
    fn a_ramp_turns_with_its_frame() {
        // x + 2 y, and its square (these cubics reproduce squares), turned by 30 degrees.
        let n = 21usize;
        let ramp = (0..n * n).map(|i| (i % n) as f32 + 2.0 * (i / n) as f32);
        let ramp: Vec<f32> = ramp.clone().chain(ramp.map(|value| value * value)).collect();
        let ramp = Tensor::from_vec(ramp, (1, 2, n, n), &Device::Cpu).unwrap();
        let turned = values(&turn(&ramp, 30.0).unwrap());
        let (sin, cos) = (30f32 * std::f32::consts::PI / 180.0).sin_cos();
        for (y, x) in [(10, 10), (7, 12), (13, 9)] {
            let (dy, dx) = (y as f32 - 10.0, x as f32 - 10.0);
            let expected = 30.0 + (cos * dx - sin * dy) + 2.0 * (sin * dx + cos * dy);
            assert!((turned[y * n + x] - expected).abs() < 1e-3);
            assert!((turned[n * n + y * n + x] - expected * expected).abs() < 1e-2);
        }
    }

    #[test]
    fn constants_stay_at_any_angle() {
        let constant = Tensor::full(3f32, (2, 3, 9, 14), &Device::Cpu).unwrap();
        assert!(values(&turn(&constant, 37.0).unwrap()).iter().all(|value| *value == 3.0));
        assert!(turn(&constant, f64::NAN).is_err());
    }
}
