//! An RGB image in floating point, and what can be done to it.

use super::field::Field;
use super::shape::Shape;

/// Red, green and blue, roughly in `[0, 1]`.
pub(super) type Colour = [f32; 3];

/// The image, row by row.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<Colour>,
}

/// Between two colours.
pub(super) fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    std::array::from_fn(|c| a[c] + t * (b[c] - a[c]))
}

impl Canvas {
    /// One colour.
    pub(super) fn plain(width: usize, height: usize, colour: Colour) -> Self {
        Self { width, height, pixels: vec![colour; width * height] }
    }

    /// A field whose values run through three colours.
    pub(super) fn coloured(field: &Field, [low, middle, high]: [Colour; 3]) -> Self {
        let shade = |&value: &f32| {
            if value < 0.5 { mix(low, middle, 2.0 * value) } else { mix(middle, high, 2.0 * value - 1.0) }
        };
        let pixels: Vec<Colour> = field.values.iter().map(shade).collect();
        Self { width: field.width, height: pixels.len() / field.width.max(1), pixels }
    }

    /// Lays colours over the pixels of a shape; `colour` gets the pixel's index, its place and its distance from the outline.
    pub(super) fn lay(&mut self, shape: &Shape, softness: f32, colour: impl Fn(usize, f32, f32, f32) -> Colour) {
        let [left, right, top, bottom] = shape.bounds(self.width, self.height, softness);
        for y in top..bottom {
            for x in left..right {
                let distance = shape.distance(x as f32, y as f32);
                let cover = (0.5 - distance / softness).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let at = y * self.width + x;
                    self.pixels[at] = mix(self.pixels[at], colour(at, x as f32, y as f32, distance), cover);
                }
            }
        }
    }

    /// Changes every pixel.
    pub(super) fn change(&mut self, mut pixel: impl FnMut(usize, Colour) -> Colour) {
        self.pixels.iter_mut().enumerate().for_each(|(at, value)| *value = pixel(at, *value));
    }

    /// Blurs with two passes of a box in each direction, which is close to a Gaussian.
    pub(super) fn blur(&mut self, sigma: f32) {
        // Two boxes of side s have the variance (s^2 - 1) / 6.
        let reach = (((6.0 * sigma * sigma + 1.0).sqrt() - 1.0) / 2.0).round() as usize;
        if reach == 0 {
            return;
        }
        for _ in 0..2 {
            for row in self.pixels.chunks_exact_mut(self.width) {
                box_line(row, reach);
            }
        }
        let mut column = vec![[0.0; 3]; self.height];
        for x in 0..self.width {
            for (y, value) in column.iter_mut().enumerate() {
                *value = self.pixels[y * self.width + x];
            }
            box_line(&mut column, reach);
            box_line(&mut column, reach);
            for (y, value) in column.iter().enumerate() {
                self.pixels[y * self.width + x] = *value;
            }
        }
    }
}

/// Moving average over `2 reach + 1` pixels; the ends are repeated.
fn box_line(line: &mut [Colour], reach: usize) {
    let Some((&first, &last)) = line.first().zip(line.last()) else { return };
    let source = line.to_vec();
    let at = |i: isize| match usize::try_from(i) {
        Ok(i) => source.get(i).copied().unwrap_or(last),
        Err(_) => first,
    };
    let reach = reach as isize;
    let scale = 1.0 / (2 * reach + 1) as f32;
    let mut sum = [0.0; 3];
    for i in -reach..=reach {
        sum = std::array::from_fn(|c| sum[c] + at(i)[c]);
    }
    for (i, value) in line.iter_mut().enumerate() {
        *value = sum.map(|sum| sum * scale);
        let (enters, leaves) = (at(i as isize + reach + 1), at(i as isize - reach));
        sum = std::array::from_fn(|c| sum[c] + enters[c] - leaves[c]);
    }
}
