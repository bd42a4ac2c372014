//! Attention of spatial tokens to spectral tokens, several heads at once.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::simd;
use super::{kept, slice, tensor, with_slice};

/// `softmax(q k^T / sqrt(D / heads)) v` for queries `[B N, D]` and keys and values `[B F, 2 D]` (keys first).
pub(crate) struct Attention {
    shape: AttentionShape,
    keep: bool,
    weights: Mutex<Option<Vec<f32>>>,
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionShape {
    /// Queries an image.
    pub(crate) queries: usize,
    /// Keys an image.
    pub(crate) keys: usize,
    /// Channels of a query, a multiple of `heads`.
    pub(crate) width: usize,
    /// Heads.
    pub(crate) heads: usize,
}

impl AttentionShape {
    /// Channels of one head.
    pub(crate) fn head(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }
}

impl Attention {
    pub(crate) fn new(shape: AttentionShape, keep: bool) -> Self {
        Self { shape, keep, weights: Mutex::new(None) }
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "spectral-attention"
    }

    fn cpu_fwd(&self, q: &CpuStorage, ql: &Layout, kv: &CpuStorage, kl: &Layout) -> Result<(CpuStorage, Shape)> {
        let AttentionShape { queries, keys, width, heads } = self.shape;
        let (q, kv) = (slice(q, ql)?, slice(kv, kl)?);
        let head = self.shape.head();
        let mut weights = vec![0.0; q.len() / (queries * width) * heads * queries * keys];
        // Head by head, `[B, heads, queries, head]`.
        let mut parts = vec![0.0; q.len()];
        parts.par_chunks_mut(queries * head).zip(weights.par_chunks_mut(queries * keys)).enumerate().try_for_each(
            |(index, (part, weights))| {
                let (image, index) = (index / heads, index % heads);
                let (q, kv) = (&q[image * queries * width..], &kv[image * keys * 2 * width..]);
                let (q, kv) = (&q[..queries * width], &kv[..keys * 2 * width]);
                let (start, end) = (index * head, (index + 1) * head);
                let k = Matrix::columns(kv, keys, 2 * width, start, end);
                let v = Matrix::columns(kv, keys, 2 * width, width + start, width + end);
                let q = Matrix::columns(q, queries, width, start, end);
                product(weights, q, k.t(), self.shape.scale())?;
                softmax_rows(weights, keys);
                product(part, Matrix::new(weights, queries, keys), v, 1.0)
            },
        )?;
        let mut out = vec![0.0; q.len()];
        for (out, parts) in out.chunks_exact_mut(queries * width).zip(parts.chunks_exact(queries * width)) {
            for (index, part) in parts.chunks_exact(queries * head).enumerate() {
                put(out, part, width, index * head, head);
            }
        }
        if self.keep {
            *super::lock(&self.weights) = Some(weights);
        }
        Ok((CpuStorage::F32(out), ql.shape().clone()))
    }

    fn bwd(&self, q: &Tensor, kv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let AttentionShape { queries, keys, width, heads } = self.shape;
        let weights = kept(&self.weights, self.name())?;
        let head = self.shape.head();
        let (mut gq, mut gkv) = (vec![0.0; q.elem_count()], vec![0.0; kv.elem_count()]);
        with_slice(grad, |grad| {
            with_slice(q, |q| {
                with_slice(kv, |kv| {
                    gq.par_chunks_mut(queries * width)
                        .zip(gkv.par_chunks_mut(keys * 2 * width))
                        .zip(weights.par_chunks(heads * queries * keys).zip(grad.par_chunks(queries * width)))
                        .zip(q.par_chunks(queries * width).zip(kv.par_chunks(keys * 2 * width)))
                        .try_for_each(|(((gq, gkv), (weights, grad)), (q, kv))| {
                            let mut slopes = vec![0.0; queries * keys];
                            let (mut of_queries, mut of_keys) = (vec![0.0; queries * head], vec![0.0; keys * head]);
                            for (index, weights) in weights.chunks_exact(queries * keys).enumerate() {
                                let (start, end) = (index * head, (index + 1) * head);
                                let k = Matrix::columns(kv, keys, 2 * width, start, end);
                                let v = Matrix::columns(kv, keys, 2 * width, width + start, width + end);
                                let grad = Matrix::columns(grad, queries, width, start, end);
                                let p = Matrix::new(weights, queries, keys);
                                product(&mut of_keys, p.t(), grad, 1.0)?;
                                put(gkv, &of_keys, 2 * width, width + start, head);
                                product(&mut slopes, grad, v.t(), 1.0)?;
                                softmax_backward(&mut slopes, weights, keys);
                                let s = Matrix::new(&slopes, queries, keys);
                                product(&mut of_queries, s, k, self.shape.scale())?;
                                put(gq, &of_queries, width, start, head);
                                let q = Matrix::columns(q, queries, width, start, end);
                                product(&mut of_keys, s.t(), q, self.shape.scale())?;
                                put(gkv, &of_keys, 2 * width, start, head);
                            }
                            candle_core::Result::Ok(())
                        })
                })
            })
        })?;
        Ok((Some(tensor(gq, q.shape().clone())?), Some(tensor(gkv, kv.shape().clone())?)))
    }
}

/// Copies `[rows, head]` into columns `start..` of `[rows, width]`.
fn put(out: &mut [f32], part: &[f32], width: usize, start: usize, head: usize) {
    for (out, part) in out.chunks_exact_mut(width).zip(part.chunks_exact(head)) {
        out[start..start + head].copy_from_slice(part);
    }
}

/// The softmax of every row, in place.
fn softmax_rows(values: &mut [f32], width: usize) {
    vectorised(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(width) {
                let most = row.iter().fold(f32::NEG_INFINITY, |most, value| if *value > most { *value } else { most });
                for value in row.iter_mut() {
                    *value = simd::exp(*value - most);
                }
                let inverse = 1.0 / simd::sum(row);
                for value in row.iter_mut() {
                    *value *= inverse;
                }
            }
        },
    );
}

/// Turns gradients of softmax weights into those of their arguments: `p (g - sum(p g))`.
fn softmax_backward(grad: &mut [f32], weights: &[f32], width: usize) {
    vectorised(
        #[inline(always)]
        || {
            for (grad, weights) in grad.chunks_exact_mut(width).zip(weights.chunks_exact(width)) {
                let along = simd::dot(grad, weights);
                for (grad, weight) in grad.iter_mut().zip(weights) {
                    *grad = weight * (*grad - along);
                }
            }
        },
    );
}
