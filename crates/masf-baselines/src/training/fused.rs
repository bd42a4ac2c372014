//! Normalisation, softmax and cosines with their gradients, each in one operation: as chains of Candle's, every one of which writes new tensors of
//! megabytes, they took most of the time of RD++'s training.
//!
//! Sums run in lanes, or over positions in their order, so the bits do not depend on the number of threads.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Error, Layout, Result, Shape, Tensor};
use masf_core::{vectorised, with_values};
use rayon::prelude::*;

use super::{operand, values};

/// Keeps norms finite.
const EPSILON: f32 = 1e-5;
/// Keeps cosines finite where a vector is zero.
const LEAST_SQUARE: f32 = 1e-16;
/// Partial sums of a loop.
const LANES: usize = 16;
/// Rows of one task.
const ROWS: usize = 32;

/// What has mean 0 and variance 1 in [`normalise`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Over {
    /// Every channel of every image, over its positions.
    Positions,
    /// Every token, over its channels.
    Channels,
}

/// Tokens `[B, P, C]` of mean 0 and variance 1, then `max(y, slope y)`; a slope of 1 changes nothing.
pub(crate) fn normalise(x: &Tensor, over: Over, slope: f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Normalise { over, slope })
}

/// The softmax along the last axis.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Softmax)
}

/// The cosine along the last axis of two tensors of one shape; 0 where one of them is zero.
pub(crate) fn cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.apply_op2(&b.contiguous()?, Cosine)
}

fn tensor(values: Vec<f32>, shape: &Shape) -> Result<Option<Tensor>> {
    Tensor::from_vec(values, shape, &Device::Cpu).map(Some)
}

/// The length of the last axis, as that of a chunk: not 0.
fn last(dims: &[usize]) -> usize {
    dims.last().copied().unwrap_or(1).max(1)
}

/// The sum of `term` over all places of two rows of one length.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum::<f32>()
}

#[derive(Debug, Clone, Copy)]
struct Normalise {
    over: Over,
    slope: f32,
}

impl Normalise {
    /// Mean and inverse deviation of a row.
    #[inline(always)]
    fn row(row: &[f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = sum(row, row, |value, _| value) / count;
        let variance = sum(row, row, |value, _| (value - mean) * (value - mean)) / count;
        (mean, 1.0 / (variance + EPSILON).sqrt())
    }

    /// Means and inverse deviations of the columns of rows of `width` values.
    #[inline(always)]
    fn columns(rows: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
        let count = (rows.len() / width) as f32;
        let (mut mean, mut inverse) = (vec![0f32; width], vec![0f32; width]);
        for row in rows.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
        }
        mean.iter_mut().for_each(|mean| *mean /= count);
        for row in rows.chunks_exact(width) {
            let square = |((sum, value), mean): ((&mut f32, &f32), &f32)| *sum += (value - mean) * (value - mean);
            inverse.iter_mut().zip(row).zip(&mean).for_each(square);
        }
        inverse.iter_mut().for_each(|inverse| *inverse = 1.0 / (*inverse / count + EPSILON).sqrt());
        (mean, inverse)
    }

    #[inline(always)]
    fn bend(&self, normal: f32) -> f32 {
        if normal > 0.0 { normal } else { self.slope * normal }
    }

    /// The gradient before the bend.
    #[inline(always)]
    fn unbend(&self, gradient: f32, normal: f32) -> f32 {
        if normal > 0.0 { gradient } else { self.slope * gradient }
    }

    #[inline(always)]
    fn row_forward(&self, row: &mut [f32]) {
        let (mean, inverse) = Self::row(row);
        row.iter_mut().for_each(|value| *value = self.bend((*value - mean) * inverse));
    }

    #[inline(always)]
    fn columns_forward(&self, rows: &mut [f32], width: usize) {
        let (mean, inverse) = Self::columns(rows, width);
        for row in rows.chunks_exact_mut(width) {
            for ((value, mean), inverse) in row.iter_mut().zip(&mean).zip(&inverse) {
                *value = self.bend((*value - mean) * inverse);
            }
        }
    }

    /// Turns the gradient of the result into that of `x`: `(g - mean(g) - n mean(g n)) / deviation`.
    #[inline(always)]
    fn row_backward(&self, gradient: &mut [f32], x: &[f32]) {
        let (mean, inverse) = Self::row(x);
        let normal = |x: f32| (x - mean) * inverse;
        let count = x.len() as f32;
        let level = sum(gradient, x, |g, x| self.unbend(g, normal(x))) / count;
        let along = sum(gradient, x, |g, x| self.unbend(g, normal(x)) * normal(x)) / count;
        for (g, x) in gradient.iter_mut().zip(x) {
            *g = (self.unbend(*g, normal(*x)) - level - normal(*x) * along) * inverse;
        }
    }

    #[inline(always)]
    fn columns_backward(&self, gradient: &mut [f32], x: &[f32], width: usize) {
        let (mean, inverse) = Self::columns(x, width);
        let count = (x.len() / width) as f32;
        let (mut level, mut along) = (vec![0f32; width], vec![0f32; width]);
        for (row, x) in gradient.chunks_exact(width).zip(x.chunks_exact(width)) {
            for (index, (level, along)) in level.iter_mut().zip(&mut along).enumerate() {
                let normal = (x[index] - mean[index]) * inverse[index];
                let g = self.unbend(row[index], normal);
                *level += g;
                *along += g * normal;
            }
        }
        for (row, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            for (index, (g, x)) in row.iter_mut().zip(x).enumerate() {
                let normal = (x - mean[index]) * inverse[index];
                *g = (self.unbend(*g, normal) - (level[index] + normal * along[index]) / count) * inverse[index];
            }
        }
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, positions, channels) = layout.shape().dims3()?;
        let mut y = operand(x, layout)?.to_vec();
        match self.over {
            Over::Channels => y.par_chunks_mut(ROWS * channels).for_each(|rows| {
                vectorised(
                    #[inline(always)]
                    || rows.chunks_exact_mut(channels).for_each(|row| self.row_forward(row)),
                );
            }),
            Over::Positions => y.par_chunks_mut(positions * channels).for_each(|image| {
                vectorised(
                    #[inline(always)]
                    || self.columns_forward(image, channels),
                );
            }),
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, positions, channels) = x.dims3()?;
        let mut slopes = values(gradient)?;
        with_values(x, |x| match self.over {
            Over::Channels => {
                slopes.par_chunks_mut(ROWS * channels).zip(x.par_chunks(ROWS * channels)).for_each(|(slopes, x)| {
                    vectorised(
                        #[inline(always)]
                        || {
                            let rows = slopes.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                            rows.for_each(|(slopes, x)| self.row_backward(slopes, x));
                        },
                    );
                });
            }
            Over::Positions => {
                let image = positions * channels;
                slopes.par_chunks_mut(image).zip(x.par_chunks(image)).for_each(|(slopes, x)| {
                    vectorised(
                        #[inline(always)]
                        || self.columns_backward(slopes, x, channels),
                    );
                });
            }
        })?;
        tensor(slopes, x.shape())
    }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = last(layout.dims());
        let mut y = operand(x, layout)?.to_vec();
        y.par_chunks_mut(ROWS * width).for_each(|rows| {
            for row in rows.chunks_exact_mut(width) {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|value| *value = (*value - most).exp());
                let inverse = 1.0 / sum(row, row, |value, _| value);
                row.iter_mut().for_each(|value| *value *= inverse);
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let width = last(y.dims());
        let mut slopes = values(gradient)?;
        with_values(y, |y| {
            slopes.par_chunks_mut(ROWS * width).zip(y.par_chunks(ROWS * width)).for_each(|(slopes, y)| {
                vectorised(
                    #[inline(always)]
                    || {
                        for (slopes, y) in slopes.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                            let mean = sum(slopes, y, |g, y| g * y);
                            slopes.iter_mut().zip(y).for_each(|(g, y)| *g = (*g - mean) * y);
                        }
                    },
                );
            });
        })?;
        tensor(slopes, y.shape())
    }
}

struct Cosine;

impl Cosine {
    /// The product of two rows, and their squares.
    fn sums(a: &[f32], b: &[f32]) -> [f32; 3] {
        // Long rows are maps of half a million values: sums of sums lose less.
        let mut sums = [0f32; 3];
        for (a, b) in a.chunks(4096).zip(b.chunks(4096)) {
            vectorised(
                #[inline(always)]
                || {
                    let of = [sum(a, b, |a, b| a * b), sum(a, a, |a, b| a * b), sum(b, b, |a, b| a * b)];
                    sums.iter_mut().zip(of).for_each(|(sum, of)| *sum += of);
                },
            );
        }
        sums
    }

    /// `a.b`, `1 / |a|` and `1 / |b|` of every row.
    fn rows(a: &[f32], b: &[f32], width: usize) -> Vec<[f32; 3]> {
        let norms =
            |[product, a, b]: [f32; 3]| [product, 1.0 / (a + LEAST_SQUARE).sqrt(), 1.0 / (b + LEAST_SQUARE).sqrt()];
        a.par_chunks(width).zip(b.par_chunks(width)).map(|(a, b)| norms(Self::sums(a, b))).collect()
    }
}

impl CustomOp2 for Cosine {
    fn name(&self) -> &'static str {
        "cosine"
    }

    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        let (dims, same) = (la.dims(), la.shape() == lb.shape());
        let (Some((&width, rows)), true) = (dims.split_last(), same) else {
            return Err(Error::Msg(format!("cosines of {:?} and {:?}", la.shape(), lb.shape())));
        };
        let cosines = Self::rows(operand(a, la)?, operand(b, lb)?, width.max(1));
        let cosines = cosines.into_iter().map(|[product, a, b]| product * a * b).collect();
        Ok((CpuStorage::F32(cosines), Shape::from(rows)))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = last(a.dims());
        let gradient = values(gradient)?;
        // Of one of them along the other, `s` being the inverse of its norm and `o` that of the other's: `(other o - cos own s) s`.
        let slopes = |own: &[f32], other: &[f32], rows: &[[f32; 3]], of: fn(&[f32; 3]) -> (f32, f32)| {
            let mut slopes = vec![0f32; own.len()];
            let each = slopes.par_chunks_mut(width).zip(own.par_chunks(width)).zip(other.par_chunks(width));
            each.zip(rows).zip(&gradient).for_each(|((((slopes, own), other), row), gradient)| {
                let (product, (s, o)) = (row[0], of(row));
                let (across, along) = (gradient * s * o, gradient * product * s * o * s * s);
                for ((slope, own), other) in slopes.iter_mut().zip(own).zip(other) {
                    *slope = across * other - along * own;
                }
            });
            slopes
        };
        let (to_a, to_b) = with_values(a, |x| {
            with_values(b, |y| {
                let rows = Self::rows(x, y, width);
                let to_a = a.track_op().then(|| slopes(x, y, &rows, |[_, x, y]| (*x, *y)));
                (to_a, b.track_op().then(|| slopes(y, x, &rows, |[_, x, y]| (*y, *x))))
            })
        })??;
        let of = |slopes: Option<Vec<f32>>| slopes.map_or(Ok(None), |slopes| tensor(slopes, a.shape()));
        Ok((of(to_a)?, of(to_b)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Var};

    use super::*;

    type Operation = fn(&Tensor, &Tensor) -> Result<Tensor>;

    fn plain_norm(x: &Tensor, axis: usize, slope: f64) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(axis)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(axis)? + f64::from(EPSILON))?.sqrt()?;
        let normal = centred.broadcast_div(&deviation)?;
        normal.relu()? - (normal.neg()?.relu()? * slope)?
    }

    fn plain_softmax(x: &Tensor) -> Result<Tensor> {
        let powers = x.exp()?;
        powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
    }

    fn plain_cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let norm = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.sqrt();
        (a * b)?.sum(D::Minus1)? / (norm(a)? * norm(b)?)?
    }

    #[test]
    fn results_and_gradients_are_those_of_plain_operations() -> Result<()> {
        let cases: [(&str, Operation, Operation); 5] = [
            ("leaky channels", |x, _| normalise(x, Over::Channels, 0.01), |x, _| plain_norm(x, 2, 0.01)),
            ("channels", |x, _| normalise(x, Over::Channels, 1.0), |x, _| plain_norm(x, 2, 1.0)),
            ("leaky positions", |x, _| normalise(x, Over::Positions, 0.01), |x, _| plain_norm(x, 1, 0.01)),
            ("softmax", |x, _| softmax(x), |x, _| plain_softmax(x)),
            ("cosine", cosine, plain_cosine),
        ];
        // More than a task's rows, and rows that are no multiple of the lanes.
        let shape = (2, 37, 53);
        let noise = |seed: &str| {
            use rand::Rng;
            let mut random = masf_core::random_stream(0, seed);
            let values = (0..2 * 37 * 53).map(|_| random.random_range(-2.0f32..2.5)).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        let (x, y) = (Var::from_tensor(&noise("x")?)?, Var::from_tensor(&noise("y")?)?);
        let weights = noise("weights")?;
        for (name, fused, plain) in cases {
            let both = |operation: Operation| -> Result<Vec<Vec<f32>>> {
                // A view that is not contiguous, as transposed heads of an attention are.
                let result = operation(&x.transpose(0, 1)?.transpose(0, 1)?, y.as_tensor())?;
                let weights = weights.flatten_all()?.narrow(0, 0, result.elem_count())?.reshape(result.shape())?;
                let gradients = (&result * weights)?.sum_all()?.backward()?;
                let gradient = |of: &Var| gradients.get(of).map_or(Ok(Vec::new()), values);
                Ok(vec![values(&result)?, gradient(&x)?, gradient(&y)?])
            };
            for (found, expected) in both(fused)?.iter().zip(&both(plain)?) {
                assert_eq!(found.len(), expected.len(), "{name}");
                let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() <= 2e-5 * scale, "{name}: {found} {expected}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_zero_vector_has_no_direction_and_a_constant_takes_no_gradient() -> Result<()> {
        let zero = Var::zeros((2, 4), candle_core::DType::F32, &Device::Cpu)?;
        let ones = Tensor::ones((2, 4), candle_core::DType::F32, &Device::Cpu)?;
        let cosines = cosine(zero.as_tensor(), &ones)?;
        assert_eq!(values(&cosines)?, [0.0, 0.0]);
        let gradients = cosines.sum_all()?.backward()?;
        let slopes = values(gradients.get(&zero).expect("it takes part"))?;
        assert!(slopes.iter().all(|slope| slope.is_finite()), "{slopes:?}");
        assert!(gradients.get(&ones).is_none());
        assert!(cosine(&ones, &ones.narrow(1, 0, 2)?).is_err());
        Ok(())
    }
}
