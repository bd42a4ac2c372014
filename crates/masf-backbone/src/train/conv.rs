//! A dense convolution of one channels-last image, forward and backward, as matrix products over blocks of output rows.
//!
//! Patches of a block (im2col) stay in the second-level cache; weights are `[k k I, O]`, rows in the order (y, x, channel).

use super::matmul::{Matrix, multiply};

/// Output pixels per block, about.
const BLOCK: usize = 192;

/// Geometry for one size of image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    /// Input height, width and channels.
    pub(super) input: [usize; 3],
    /// Output channels.
    pub(super) channels: usize,
}

impl Geometry {
    /// Output height, width and channels; none if nothing is left.
    pub(super) fn output(&self) -> Option<[usize; 3]> {
        let side = |len: usize| Some((len + 2 * self.padding).checked_sub(self.kernel)? / self.stride + 1);
        Some([side(self.input[0])?, side(self.input[1])?, self.channels])
    }

    /// Rows of the weights.
    pub(super) fn depth(&self) -> usize {
        self.kernel * self.kernel * self.input[2]
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Calls `block(first pixel, pixels, first row, rows)` for every block of output rows.
    fn blocks(&self, [height, width, _]: [usize; 3], mut block: impl FnMut(usize, usize, usize, usize)) {
        let rows = (BLOCK / width.max(1)).max(1);
        for first in (0..height).step_by(rows) {
            let rows = rows.min(height - first);
            block(first * width, rows * width, first, rows);
        }
    }

    /// For every tap of the window at output row `y`, column `x` that lies inside: its place in the patch and in the input.
    #[inline]
    fn taps(&self, y: usize, x: usize, mut tap: impl FnMut(usize, usize)) {
        let [height, width, channels] = self.input;
        for dy in 0..self.kernel {
            let Some(row) = (y * self.stride + dy).checked_sub(self.padding).filter(|row| *row < height) else {
                continue;
            };
            for dx in 0..self.kernel {
                let Some(column) = (x * self.stride + dx).checked_sub(self.padding).filter(|c| *c < width) else {
                    continue;
                };
                tap((dy * self.kernel + dx) * channels, (row * width + column) * channels);
            }
        }
    }

    /// The patches of some output rows.
    fn gather(&self, image: &[f32], width: usize, first: usize, rows: usize, patches: &mut [f32]) {
        let (depth, channels) = (self.depth(), self.input[2]);
        for (pixel, patch) in patches.chunks_exact_mut(depth).enumerate().take(rows * width) {
            let (y, x) = (first + pixel / width, pixel % width);
            let inside = y * self.stride >= self.padding
                && x * self.stride >= self.padding
                && y * self.stride + self.kernel <= self.input[0] + self.padding
                && x * self.stride + self.kernel <= self.input[1] + self.padding;
            if inside {
                // The taps of a row are neighbours.
                let run = self.kernel * channels;
                for dy in 0..self.kernel {
                    let row = y * self.stride + dy - self.padding;
                    let from = (row * self.input[1] + x * self.stride - self.padding) * channels;
                    patch[dy * run..][..run].copy_from_slice(&image[from..][..run]);
                }
            } else {
                patch.fill(0.0);
                self.taps(y, x, |to, from| patch[to..][..channels].copy_from_slice(&image[from..][..channels]));
            }
        }
    }

    /// Adds patches back to where they came from.
    fn scatter(&self, patches: &[f32], width: usize, first: usize, rows: usize, image: &mut [f32]) {
        let (depth, channels) = (self.depth(), self.input[2]);
        for (pixel, patch) in patches.chunks_exact(depth).enumerate().take(rows * width) {
            self.taps(first + pixel / width, pixel % width, |from, to| {
                image[to..][..channels]
                    .iter_mut()
                    .zip(&patch[from..][..channels])
                    .for_each(|(sum, value)| *sum += value);
            });
        }
    }

    /// The convolution of an image into `out`.
    pub(super) fn forward(&self, image: &[f32], weight: &[f32], out: &mut [f32], scratch: &mut Vec<f32>) {
        let weight = Matrix::new(weight, self.channels);
        if self.is_pointwise() {
            return multiply(Matrix::new(image, self.input[2]), weight, out, false);
        }
        let Some(shape) = self.output() else { return };
        self.blocks(shape, |pixel, pixels, first, rows| {
            scratch.resize(pixels * self.depth(), 0.0);
            self.gather(image, shape[1], first, rows, scratch);
            let out = &mut out[pixel * self.channels..][..pixels * self.channels];
            multiply(Matrix::new(scratch, self.depth()), weight, out, false);
        });
    }

    /// Adds the gradient with respect to the weights, from the output's gradient.
    pub(super) fn weight_gradient(&self, image: &[f32], gradient: &[f32], sum: &mut [f32], scratch: &mut Vec<f32>) {
        if self.is_pointwise() {
            let patches = Matrix::new(image, self.input[2]).transposed();
            return multiply(patches, Matrix::new(gradient, self.channels), sum, true);
        }
        let Some(shape) = self.output() else { return };
        self.blocks(shape, |pixel, pixels, first, rows| {
            scratch.resize(pixels * self.depth(), 0.0);
            self.gather(image, shape[1], first, rows, scratch);
            let gradient = Matrix::new(&gradient[pixel * self.channels..][..pixels * self.channels], self.channels);
            multiply(Matrix::new(scratch, self.depth()).transposed(), gradient, sum, true);
        });
    }

    /// The gradient with respect to the image, which is all zeros before.
    pub(super) fn input_gradient(&self, gradient: &[f32], weight: &[f32], image: &mut [f32], scratch: &mut Vec<f32>) {
        let weight = Matrix::new(weight, self.channels).transposed();
        if self.is_pointwise() {
            return multiply(Matrix::new(gradient, self.channels), weight, image, false);
        }
        let Some(shape) = self.output() else { return };
        self.blocks(shape, |pixel, pixels, first, rows| {
            scratch.resize(pixels * self.depth(), 0.0);
            let gradient = Matrix::new(&gradient[pixel * self.channels..][..pixels * self.channels], self.channels);
            multiply(gradient, weight, scratch, false);
            self.scatter(scratch, shape[1], first, rows, image);
        });
    }
}
