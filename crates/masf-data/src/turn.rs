//! Turning images about their centre, for objects that lie at any angle.

use std::f64::consts::PI;

use candle_core::{Device, Tensor};
use masf_core::{values, vectorised};
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
    let (_, _, height, width) = images.dims4()?;
    let (sin, cos) = sine_and_cosine(degrees);
    let centre = ((height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0);
    if sin == 0.0 || cos == 0.0 && height == width {
        return row_by_row(images, (height, width), |plane, row, turned| {
            for (column, value) in turned.iter_mut().enumerate() {
                let (y, x) = (row as f64 - centre.0, column as f64 - centre.1);
                let (from_row, from_column) = (centre.0 + sin * x + cos * y, centre.1 + cos * x - sin * y);
                *value = plane[from_row as usize * width + from_column as usize];
            }
        });
    }
    row_by_row(
        images,
        (height, width),
        #[inline(always)]
        |plane, row, turned| {
            for (column, value) in turned.iter_mut().enumerate() {
                let (y, x) = (row as f64 - centre.0, column as f64 - centre.1);
                let (above, below) = tap(centre.0 + sin * x + cos * y);
                let (left, right) = tap(centre.1 + cos * x - sin * y);
                // Loops, as the closures of `map` would be functions of their own, compiled for the least processor.
                let (mut columns, mut lines) = ([0; 4], [0.0; 4]);
                for (step, place) in (-1..).zip(&mut columns) {
                    *place = mirrored(left + step, width);
                }
                for (step, line) in (-1..).zip(&mut lines) {
                    let plane = &plane[mirrored(above + step, height) * width..][..width];
                    *line = cubic([plane[columns[0]], plane[columns[1]], plane[columns[2]], plane[columns[3]]], right);
                }
                *value = cubic(lines, below);
            }
        },
    )
}

/// A tensor `[B, C, rows, columns]` whose rows are made one by one, from the plane of `images` `[B, C, H, W]` that they belong to.
fn row_by_row(
    images: &Tensor,
    (rows, columns): (usize, usize),
    make: impl Fn(&[f32], usize, &mut [f32]) + Sync,
) -> Result<Tensor> {
    let (batch, channels, height, width) = images.dims4()?;
    let values = values(images)?;
    let mut made = vec![0f32; batch * channels * rows * columns];
    made.par_chunks_mut(columns.max(1)).enumerate().for_each(|(index, line)| {
        let plane = &values[index / rows * height * width..][..height * width];
        vectorised(
            #[inline(always)]
            || make(plane, index % rows, line),
        );
    });
    Ok(Tensor::from_vec(made, (batch, channels, rows, columns), &Device::Cpu)?)
}

/// Square images `[B, C, N, N]` in which the largest disc about the centre is kept, and goes on as its edge ends: all that an image shows at any
/// angle, without an edge that would be what stands out most. `f32`, on the CPU.
///
/// # Errors
/// A tensor of another rank, or images that are not square.
pub fn disc(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    if height != width {
        return Err(DataError::argument("size of images at any angle", format!("{height}x{width}"), "a square"));
    }
    let radius = width as f64 / 2.0;
    let place = |at: usize, inwards: f64| {
        let from_centre = at as f64 + 0.5 - radius;
        ((from_centre * inwards + radius) as usize).min(width - 1)
    };
    row_by_row(images, (height, width), |plane, row, kept| {
        for (column, value) in kept.iter_mut().enumerate() {
            let distance = (row as f64 + 0.5 - radius).hypot(column as f64 + 0.5 - radius);
            let inwards = ((radius - 1.0).max(0.0) / distance).min(1.0);
            *value = plane[place(row, inwards) * width + place(column, inwards)];
        }
    })
}

/// Images `[B, C, 2H, 2W]` at half their height and width, as [`Preprocess`](crate::Preprocess) resizes, without rounding: every pixel is the mean
/// of four by four, those in the middle weighing three times as much along each side. `f32`, on the CPU.
///
/// # Errors
/// A tensor of another rank, or an odd height or width.
pub fn halve(images: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = images.dims4()?;
    if !(height.is_multiple_of(2) && width.is_multiple_of(2)) {
        return Err(DataError::argument("size to halve", format!("{height}x{width}"), "an even height and width"));
    }
    row_by_row(images, (height / 2, width / 2), |plane, row, halved| {
        let line: Vec<f32> = (0..width).map(|column| half(row, height, |row| plane[row * width + column])).collect();
        for (column, value) in halved.iter_mut().enumerate() {
            *value = half(column, width, |column| line[column]);
        }
    })
}

/// The value at `index` of a line that is half as long as the given one: a triangle of four weights, those that exist.
#[inline(always)]
fn half(index: usize, length: usize, value: impl Fn(usize) -> f32) -> f32 {
    let (before, after) = ((2 * index).checked_sub(1), Some(2 * index + 2).filter(|next| *next < length));
    let outer = before.iter().chain(&after);
    let weight = 6.0 + outer.clone().count() as f32;
    (3.0 * (value(2 * index) + value(2 * index + 1)) + outer.map(|place| value(*place)).sum::<f32>()) / weight
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
#[inline(always)]
fn cubic(values: [f32; 4], share: f32) -> f32 {
    let [before, here, next, after] = values;
    let (before, next, after) = (before - here, next - here, after - here);
    let cubed = 3.0 * -next + after - before;
    let squared = 2.0 * before + 4.0 * next - after;
    here + 0.5 * share * (next - before + share * (squared + share * cubed))
}

/// The index before a coordinate, and the weight of the one after.
#[inline(always)]
fn tap(coordinate: f64) -> (i64, f32) {
    (coordinate.floor() as i64, (coordinate - coordinate.floor()) as f32)
}

/// The index that mirroring at the borders gives: d c b a | a b c d | d c b a.
#[inline(always)]
fn mirrored(index: i64, length: usize) -> usize {
    if (0..length as i64).contains(&index) {
        return index as usize;
    }
    let wrapped = index.rem_euclid(2 * length as i64) as usize;
    if wrapped < length { wrapped } else { 2 * length - 1 - wrapped }
}

#[cfg(test)]
mod tests {
    use masf_core::Normalisation;

    use super::*;
    use crate::{Preprocess, Resize, Size};

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
    fn a_disc_is_kept_and_goes_on_as_its_edge_ends() {
        let n = 20;
        let original = image(n, n);
        let (before, after) = (values(&original), values(&disc(&original).unwrap()));
        for index in 0..n * n {
            let (y, x) = ((index / n) as f32 + 0.5 - 10.0, (index % n) as f32 + 0.5 - 10.0);
            assert!(y.hypot(x) > 9.0 || before[index] == after[index], "{index}");
        }
        // The corner is what lies towards the centre, on the edge.
        assert_eq!(after[0], before[3 * n + 3]);
        // A second time changes nothing, and turns by 90 degrees do not matter.
        assert_eq!(values(&disc(&disc(&original).unwrap()).unwrap()), after);
        assert_eq!(
            values(&disc(&turn(&original, 90.0).unwrap()).unwrap()),
            values(&turn(&disc(&original).unwrap(), 90.0).unwrap())
        );
        assert!(disc(&image(4, 5)).is_err());
    }

    #[test]
    fn halves_are_those_of_the_preprocessing() {
        let plain = Preprocess::new(Size::new(17, 23), Normalisation::IMAGENET).unwrap();
        let picture = image::RgbImage::from_fn(46, 34, |x, y| {
            image::Rgb([((x * 31 + y * y * 7) % 256) as u8, (5 * x) as u8, ((x * y) % 200) as u8])
        });
        let picture = image::DynamicImage::ImageRgb8(picture);
        let doubled = plain.doubled_tensor(&picture).unwrap();
        assert_eq!(doubled.dims(), [3, 34, 46]);
        let halved = values(&halve(&doubled.unsqueeze(0).unwrap()).unwrap());
        // That one rounds to 8 bits twice.
        let error = values(&plain.tensor(&picture).unwrap())
            .iter()
            .zip(&halved)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(error > 0.0 && error < 1.01 / 255.0 / 0.224, "{error}");
        assert!(halve(&image(3, 4)).is_err() && halve(&image(4, 3)).is_err());
    }

    #[test]
    fn halves_show_the_same_part() {
        let ramp = image::RgbImage::from_fn(44, 20, |x, _| image::Rgb([(5 * x) as u8; 3]));
        let ramp = image::DynamicImage::ImageRgb8(ramp);
        // 8 columns of 17 are kept: an odd surplus, and 17 is not half of the 35 that twice the height would make.
        for resize in [Resize::ShorterSide(8), Resize::Exact(Size::new(8, 17))] {
            let plain = Preprocess::new(Size::square(8), Normalisation::IMAGENET).unwrap();
            let plain = plain.with_crop_from(resize).unwrap();
            let halved = halve(&plain.doubled_tensor(&ramp).unwrap().unsqueeze(0).unwrap()).unwrap();
            // The outer columns are halved without their neighbours beyond the crop.
            let error = (plain.tensor(&ramp).unwrap() - halved.squeeze(0).unwrap()).unwrap().narrow(2, 1, 6).unwrap();
            let error = values(&error).into_iter().map(f32::abs).fold(0.0, f32::max);
            assert!(error < 2.0 / 255.0 / 0.224, "{resize:?}: {error}");
        }
    }

    #[test]
    fn constants_stay_at_any_angle() {
        let constant = Tensor::full(3f32, (2, 3, 9, 14), &Device::Cpu).unwrap();
        assert!(values(&turn(&constant, 37.0).unwrap()).iter().all(|value| *value == 3.0));
        assert!(turn(&constant, f64::NAN).is_err());
    }
}
