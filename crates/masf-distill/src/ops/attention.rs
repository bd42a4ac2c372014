//! Attention of spatial tokens to spectral tokens, several heads at once.
//!
//! The weights of a head, `[N, F]`, grow with the square of the grid. So only the heads at work have theirs, for a stretch of queries at a
//! time, and the gradient computes them anew.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::simd;
use super::{operand, tensor, with_slice};

/// Queries whose weights are held at once.
const QUERIES: usize = 1024;

/// `softmax(q k^T / sqrt(D / heads)) v` for queries `[B N, D]` and keys and values `[B F, 2 D]` (keys first).
pub(crate) struct Attention {
    pub(crate) shape: AttentionShape,
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

    /// Queries that are weighed at a time. None is left alone: a product with a single row takes another path, whose bits depend on the number
    /// of threads.
    fn stretch(&self) -> usize {
        if self.queries % QUERIES == 1 { QUERIES - 1 } else { QUERIES }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }
}

/// Queries, keys and values of one head of an image.
struct Head<'a> {
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
}

impl<'a> Head<'a> {
    /// Of an image's queries `[N, D]` and keys and values `[F, 2 D]`.
    fn of(q: &'a [f32], kv: &'a [f32], index: usize, shape: AttentionShape) -> Self {
        let AttentionShape { queries, keys, width, .. } = shape;
        let (start, end) = (index * shape.head(), (index + 1) * shape.head());
        Self {
            q: Matrix::columns(q, queries, width, start, end),
            k: Matrix::columns(kv, keys, 2 * width, start, end),
            v: Matrix::columns(kv, keys, 2 * width, width + start, width + end),
        }
    }

    /// The weights `[N, F]`.
    fn weigh(&self, weights: &mut [f32], shape: AttentionShape) -> Result<()> {
        product(weights, self.q, self.k.t(), shape.scale())?;
        softmax_rows(weights, shape.keys);
        Ok(())
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "spectral-attention"
    }

    fn cpu_fwd(&self, q: &CpuStorage, ql: &Layout, kv: &CpuStorage, kl: &Layout) -> Result<(CpuStorage, Shape)> {
        let AttentionShape { queries, keys, width, heads } = self.shape;
        let (q, kv) = (operand(q, ql)?, operand(kv, kl)?);
        let head = self.shape.head();
        // Head by head, `[B, heads, queries, head]`.
        let mut parts = vec![0.0; q.len()];
        let stretch = self.shape.stretch();
        parts.par_chunks_mut(queries * head).enumerate().try_for_each_init(
            || vec![0.0; queries.min(stretch) * keys],
            |weights: &mut Vec<f32>, (index, part)| {
                let (image, index) = (index / heads, index % heads);
                let q = &q[image * queries * width..][..queries * width];
                let kv = &kv[image * keys * 2 * width..][..keys * 2 * width];
                part.chunks_mut(stretch * head).zip(q.chunks(stretch * width)).try_for_each(|(part, q)| {
                    let shape = AttentionShape { queries: q.len() / width, ..self.shape };
                    let weights = &mut weights[..shape.queries * keys];
                    let of_head = Head::of(q, kv, index, shape);
                    of_head.weigh(weights, shape)?;
                    product(part, Matrix::new(weights, shape.queries, keys), of_head.v, 1.0)
                })
            },
        )?;
        let mut out = vec![0.0; q.len()];
        for (out, parts) in out.chunks_exact_mut(queries * width).zip(parts.chunks_exact(queries * width)) {
            for (index, part) in parts.chunks_exact(queries * head).enumerate() {
                put(out, part, width, index * head, head);
            }
        }
        Ok((CpuStorage::F32(out), ql.shape().clone()))
    }

    fn bwd(&self, q: &Tensor, kv: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let AttentionShape { queries, keys, width, heads } = self.shape;
        let head = self.shape.head();
        let (mut gq, mut gkv) = (vec![0.0; q.elem_count()], vec![0.0; kv.elem_count()]);
        with_slice(grad, |grad| {
            with_slice(q, |q| {
                with_slice(kv, |kv| {
                    gq.par_chunks_mut(queries * width)
                        .zip(gkv.par_chunks_mut(keys * 2 * width))
                        .zip(grad.par_chunks(queries * width))
                        .zip(q.par_chunks(queries * width).zip(kv.par_chunks(keys * 2 * width)))
                        .try_for_each(|(((gq, gkv), grad), (q, kv))| {
                            let most = queries.min(self.shape.stretch());
                            let (mut weights, mut slopes) = (vec![0.0; most * keys], vec![0.0; most * keys]);
                            let (mut of_queries, mut of_keys) = (vec![0.0; most * head], vec![0.0; keys * head]);
                            let stretch = self.shape.stretch() * width;
                            for index in 0..heads {
                                let start = index * head;
                                let parts = gq.chunks_mut(stretch).zip(grad.chunks(stretch)).zip(q.chunks(stretch));
                                for ((gq, grad), q) in parts {
                                    let shape = AttentionShape { queries: q.len() / width, ..self.shape };
                                    let queries = shape.queries;
                                    let weights = &mut weights[..queries * keys];
                                    let slopes = &mut slopes[..queries * keys];
                                    let of_queries = &mut of_queries[..queries * head];
                                    let of_head = Head::of(q, kv, index, shape);
                                    of_head.weigh(weights, shape)?;
                                    let grad = Matrix::columns(grad, queries, width, start, start + head);
                                    let p = Matrix::new(weights, queries, keys);
                                    product(&mut of_keys, p.t(), grad, 1.0)?;
                                    add(gkv, &of_keys, 2 * width, width + start, head);
                                    product(slopes, grad, of_head.v.t(), 1.0)?;
                                    softmax_backward(slopes, weights, keys);
                                    let s = Matrix::new(slopes, queries, keys);
                                    product(of_queries, s, of_head.k, shape.scale())?;
                                    put(gq, of_queries, width, start, head);
                                    product(&mut of_keys, s.t(), of_head.q, shape.scale())?;
                                    add(gkv, &of_keys, 2 * width, start, head);
                                }
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

/// Adds `[rows, head]` to columns `start..` of `[rows, width]`.
fn add(out: &mut [f32], part: &[f32], width: usize, start: usize, head: usize) {
    for (out, part) in out.chunks_exact_mut(width).zip(part.chunks_exact(head)) {
        out[start..start + head].iter_mut().zip(part).for_each(|(out, part)| *out += part);
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_query_beyond_a_stretch_has_the_bits_of_any_number_of_threads() -> Result<()> {
        let shape = AttentionShape { queries: QUERIES + 1, keys: 525, width: 128, heads: 2 };
        let values = |rows: usize, columns: usize| {
            let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919 % 1009) as f32 / 300.0).sin()).collect();
            Tensor::from_vec(values, (1, rows, columns), &Device::Cpu)
        };
        let (q, kv) = (Var::from_tensor(&values(QUERIES + 1, 128)?)?, Var::from_tensor(&values(525, 256)?)?);
        let with = |threads: usize| -> Result<Vec<Vec<f32>>> {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(candle_core::Error::wrap)?;
            pool.install(|| {
                let out = q.as_tensor().apply_op2(kv.as_tensor(), Attention { shape })?;
                let gradients = out.sqr()?.sum_all()?.backward()?;
                [&out, gradients.get(&q).expect("takes part"), gradients.get(&kv).expect("takes part")]
                    .map(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
                    .into_iter()
                    .collect()
            })
        };
        let one = with(1)?;
        for threads in 2..5 {
            assert_eq!(with(threads)?, one, "{threads} threads");
        }
        Ok(())
    }
}
