//! Layer normalisation (Ba et al. 2016) without gain and bias: the affine map that follows absorbs these.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::simd;
use super::{kept, operand, tensor, with_slice};

/// Added to the variance.
pub(crate) const EPSILON: f64 = 1e-6;
/// Rows of one task.
const ROWS: usize = 32;

/// `(x - mean) / sqrt(variance + eps)` of every row `[R, D]`.
pub(crate) struct LayerNorm(Mutex<Option<Vec<f32>>>);

impl LayerNorm {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let (normal, inverse) = normalise_rows(operand(x, layout)?, width);
        *super::lock(&self.0) = Some(inverse);
        Ok((CpuStorage::F32(normal), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, normal: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = x.dims2()?;
        let inverse = kept(&self.0, self.name())?;
        let mut gx = with_slice(grad, |grad| Ok(grad.to_vec()))?;
        with_slice(normal, |normal| {
            normalise_backward(&mut gx, normal, &inverse, width);
            Ok(())
        })?;
        Ok(Some(tensor(gx, x.shape().clone())?))
    }
}

/// Normalised rows, and the inverse deviation of each.
pub(crate) fn normalise_rows(x: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let mut normal = vec![0.0; x.len()];
    let mut inverse = vec![0.0; x.len() / width];
    normal.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).zip(inverse.par_chunks_mut(ROWS)).for_each(
        |((normal, x), inverse)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((normal, x), inverse) in
                        normal.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(inverse.iter_mut())
                    {
                        let mean = simd::sum(x) / width as f32;
                        for (normal, x) in normal.iter_mut().zip(x) {
                            *normal = x - mean;
                        }
                        let variance = simd::dot(normal, normal) / width as f32;
                        *inverse = 1.0 / (variance + EPSILON as f32).sqrt();
                        for normal in normal.iter_mut() {
                            *normal *= *inverse;
                        }
                    }
                },
            );
        },
    );
    (normal, inverse)
}

/// Turns the gradient of the normalised rows into that of the rows: `(g - mean(g) - n mean(g n)) / deviation`.
pub(crate) fn normalise_backward(grad: &mut [f32], normal: &[f32], inverse: &[f32], width: usize) {
    grad.par_chunks_mut(ROWS * width).zip(normal.par_chunks(ROWS * width)).zip(inverse.par_chunks(ROWS)).for_each(
        |((grad, normal), inverse)| {
            vectorised(
                #[inline(always)]
                || {
                    for ((grad, normal), inverse) in
                        grad.chunks_exact_mut(width).zip(normal.chunks_exact(width)).zip(inverse)
                    {
                        let mean = simd::sum(grad) / width as f32;
                        let along = simd::dot(grad, normal) / width as f32;
                        for (grad, normal) in grad.iter_mut().zip(normal) {
                            *grad = (*grad - mean - normal * along) * inverse;
                        }
                    }
                },
            );
        },
    );
}
