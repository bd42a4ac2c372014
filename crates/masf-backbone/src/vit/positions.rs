//! Position embeddings for other image sizes than the trained one: antialiased bicubic resizing, as two matrix products.
//!
//! The weights are those of PyTorch's `interpolate(mode="bicubic", antialias=True)`, which timm's `resample_abs_pos_embed` calls
//! and which follow Pillow: Keys' cubic kernel with a = -1/2 at half-pixel centres, widened by the scale when shrinking, cut
//! at the border and normalised. (Keys, "Cubic convolution interpolation for digital image processing", 1981.)

use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};

use crate::Result;

/// Sizes whose positions are kept; views and tiles of one data set share a few.
const KEPT: usize = 4;

/// The positions of the patches of a trained size, resized on demand.
#[derive(Debug)]
pub(super) struct Positions {
    /// `[grid, grid, width]`.
    trained: Tensor,
    kept: Mutex<Vec<((usize, usize), Tensor)>>,
}

impl Positions {
    /// From the positions of `grid x grid` patches, `[grid * grid, width]`.
    pub(super) fn new(positions: &Tensor, grid: usize) -> Result<Self> {
        Ok(Self { trained: positions.reshape((grid, grid, ()))?, kept: Mutex::default() })
    }

    /// `[height * width, channels]` for images of `height x width` patches.
    pub(super) fn resized(&self, height: usize, width: usize) -> Result<Tensor> {
        let size = (height, width);
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, positions)) = lock().iter().find(|(kept, _)| *kept == size) {
            return Ok(positions.clone());
        }
        let positions = self.resize(height, width)?;
        let mut kept = lock();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((size, positions.clone()));
        Ok(positions)
    }

    fn resize(&self, height: usize, width: usize) -> Result<Tensor> {
        let (rows, columns, channels) = self.trained.dims3()?;
        if (rows, columns) == (height, width) {
            return Ok(self.trained.reshape((height * width, channels))?);
        }
        let device = self.trained.device();
        // [width, columns] x [columns, rows * C], then [height, rows] x [rows, width * C].
        let by_column = self.trained.transpose(0, 1)?.reshape((columns, rows * channels))?;
        let narrow = matrix(columns, width, device)?.matmul(&by_column)?.reshape((width, rows, channels))?;
        let by_row = narrow.transpose(0, 1)?.reshape((rows, width * channels))?;
        Ok(matrix(rows, height, device)?.matmul(&by_row)?.reshape((height * width, channels))?)
    }
}

/// Keys' kernel.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The weights `[output, input]` of every output position.
fn matrix(input: usize, output: usize, device: &Device) -> Result<Tensor> {
    let scale = input as f64 / output as f64;
    let widening = scale.max(1.0);
    let mut weights = vec![0f32; input * output];
    for (i, row) in weights.chunks_exact_mut(input).enumerate() {
        let centre = scale * (i as f64 + 0.5);
        let reach = 2.0 * widening;
        // Positions whose centres are in reach, rounded as PyTorch does.
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(input);
        let weight = |j: usize| cubic((j as f64 - centre + 0.5) / widening);
        let total: f64 = (first..end).map(weight).sum();
        for (j, value) in row.iter_mut().enumerate().take(end).skip(first) {
            *value = (weight(j) / total) as f32;
        }
    }
    Ok(Tensor::from_vec(weights, (output, input), device)?)
}
