//! Convolution, batch norm over the batch (or a bias) and ReLU as one differentiable operation for Candle.
//!
//! Batch norm: S. Ioffe, C. Szegedy, "Batch Normalization", 2015. Channels-last; images are spread over rayon's threads, and
//! sums over images are taken in fixed groups, so results do not depend on the number of threads.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor};
use masf_core::{operand, vectorised};
use rayon::prelude::*;

use super::conv::Geometry;

/// Added to variances, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// Images whose weight gradients are summed by one task.
const GROUP: usize = 4;

/// What the forward pass leaves for the backward pass and for the running statistics.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// The convolution's output before the norm.
    raw: Vec<f32>,
    /// Mean and variance (biased) per channel over the batch.
    pub(super) mean: Vec<f64>,
    pub(super) variance: Vec<f64>,
}

/// `relu(norm(conv(x)))` for `x` `[B, H, W, I]`, weights `[k k I, O]` and `[2, O]` (scale, shift of the norm) or `[1, O]` (bias, no norm).
pub(super) struct ConvNorm {
    pub(super) geometry: Geometry,
    pub(super) norm: bool,
    pub(super) relu: bool,
    /// Whether the gradient of `x` is wanted.
    pub(super) through: bool,
    pub(super) saved: Arc<Mutex<Saved>>,
}

/// The numbers of a contiguous tensor in host memory.
pub(super) fn with_numbers<R>(tensor: &Tensor, use_them: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { candle_core::bail!("training runs on the CPU only") };
    Ok(use_them(operand(storage, layout)?))
}

/// Adds values, and values times others, per channel.
#[inline(always)]
fn add_sums(
    values: &[f32],
    others: impl Fn(usize, f32) -> f32,
    channels: usize,
    sums: &mut [f64],
    products: &mut [f64],
) {
    // Short sums in single precision, long ones in double.
    let mut part = vec![0f32; 2 * channels];
    for (block_index, block) in values.chunks(64 * channels).enumerate() {
        part.fill(0.0);
        let (sum, product) = part.split_at_mut(channels);
        for (p, pixel) in block.chunks_exact(channels).enumerate() {
            let start = (block_index * 64 + p) * channels;
            for (c, ((value, sum), product)) in pixel.iter().zip(&mut *sum).zip(&mut *product).enumerate() {
                *sum += value;
                *product += value * others(start + c, *value);
            }
        }
        sums.iter_mut().zip(&*sum).for_each(|(total, part)| *total += f64::from(*part));
        products.iter_mut().zip(&*product).for_each(|(total, part)| *total += f64::from(*part));
    }
}

/// Adds up what the images gave, in their order.
fn total(parts: Vec<(Vec<f64>, Vec<f64>)>, channels: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
    for (sum, product) in parts {
        sums.iter_mut().zip(sum).for_each(|(total, part)| *total += part);
        products.iter_mut().zip(product).for_each(|(total, part)| *total += part);
    }
    (sums, products)
}

impl ConvNorm {
    fn sizes(&self) -> Result<([usize; 3], usize, usize)> {
        let Some(shape) = self.geometry.output() else { candle_core::bail!("nothing is left of the image") };
        Ok((shape, self.geometry.input.iter().product(), shape.iter().product()))
    }

    fn run(&self, x: &[f32], weight: &[f32], affine: &[f32]) -> Result<(Vec<f32>, usize)> {
        let ([.., channels], input, output) = self.sizes()?;
        let images = x.len() / input.max(1);
        let mut out = vec![0f32; images * output];
        let parts: Vec<_> = (out.par_chunks_exact_mut(output).zip(x.par_chunks_exact(input)))
            .map_init(Vec::new, |scratch, (out, image)| {
                self.geometry.forward(image, weight, out, scratch);
                let (mut sums, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
                if self.norm {
                    vectorised(
                        #[inline(always)]
                        || add_sums(out, |_, value| value, channels, &mut sums, &mut squares),
                    );
                }
                (sums, squares)
            })
            .collect();
        let (mut scale, mut shift) = (vec![1f32; channels], affine[affine.len() - channels..].to_vec());
        let mut saved = Saved::default();
        if self.norm {
            let count = (out.len() / channels).max(1) as f64;
            let (sums, squares) = total(parts, channels);
            saved.mean = sums.iter().map(|sum| sum / count).collect();
            saved.variance =
                squares.iter().zip(&saved.mean).map(|(square, mean)| (square / count - mean * mean).max(0.0)).collect();
            let factors: Vec<f64> = (affine.iter().zip(&saved.variance))
                .map(|(scale, variance)| f64::from(*scale) / (variance + EPSILON).sqrt())
                .collect();
            shift =
                (0..channels).map(|c| (f64::from(affine[channels + c]) - factors[c] * saved.mean[c]) as f32).collect();
            scale = factors.into_iter().map(|factor| factor as f32).collect();
            saved.raw = out.clone();
        }
        let low = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        out.par_chunks_exact_mut(output).for_each(|out| {
            vectorised(
                #[inline(always)]
                || {
                    for pixel in out.chunks_exact_mut(channels) {
                        for ((value, scale), shift) in pixel.iter_mut().zip(&scale).zip(&shift) {
                            *value = (*value * scale + shift).max(low);
                        }
                    }
                },
            );
        });
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok((out, images))
    }

    /// The gradient before ReLU and norm, and the gradient of the affine parameters.
    fn before_norm(&self, affine: &[f32], result: &[f32], gradient: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let ([.., channels], _, output) = self.sizes()?;
        let saved = std::mem::take(&mut *self.saved.lock().unwrap_or_else(PoisonError::into_inner));
        let inverse: Vec<f32> =
            saved.variance.iter().map(|variance| (1.0 / (variance + EPSILON).sqrt()) as f32).collect();
        let mean: Vec<f32> = saved.mean.iter().map(|mean| *mean as f32).collect();
        let mut before = gradient.to_vec();
        let parts: Vec<_> = (before.par_chunks_exact_mut(output).zip(result.par_chunks_exact(output)).enumerate())
            .map(|(image, (before, result))| {
                let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
                let raw = saved.raw.get(image * output..(image + 1) * output).unwrap_or_default();
                vectorised(
                    #[inline(always)]
                    || {
                        if self.relu {
                            for (gradient, result) in before.iter_mut().zip(result) {
                                *gradient = if *result > 0.0 { *gradient } else { 0.0 };
                            }
                        }
                        if self.norm {
                            add_sums(before, |at, _| raw[at], channels, &mut sums, &mut products);
                        } else {
                            add_sums(before, |_, _| 0.0, channels, &mut sums, &mut products);
                        }
                    },
                );
                (sums, products)
            })
            .collect();
        let (sums, products) = total(parts, channels);
        if !self.norm {
            return Ok((before, sums.into_iter().map(|sum| sum as f32).collect()));
        }
        // products are with the raw values; with the normalised ones they are (product - mean sum) / deviation.
        let normalised: Vec<f64> = (0..channels)
            .map(|c| (products[c] - saved.mean[c] * sums[c]) / (saved.variance[c] + EPSILON).sqrt())
            .collect();
        let count = (gradient.len() / channels).max(1) as f64;
        // dy = gamma / sd (dz - mean(dz) - x mean(dz x)), as a factor of dz, one of the raw value and a constant.
        let of_gradient: Vec<f32> = affine.iter().zip(&inverse).map(|(scale, inverse)| scale * inverse).collect();
        let slope: Vec<f32> =
            normalised.iter().zip(&inverse).map(|(sum, inverse)| (sum / count) as f32 * inverse).collect();
        let of_raw: Vec<f32> = of_gradient.iter().zip(&slope).map(|(factor, slope)| -factor * slope).collect();
        let constant: Vec<f32> =
            (0..channels).map(|c| of_gradient[c] * (slope[c] * mean[c] - (sums[c] / count) as f32)).collect();
        before.par_chunks_exact_mut(output).zip(saved.raw.par_chunks_exact(output)).for_each(|(before, raw)| {
            vectorised(
                #[inline(always)]
                || {
                    for (pixel, raw) in before.chunks_exact_mut(channels).zip(raw.chunks_exact(channels)) {
                        let factors = of_gradient.iter().zip(&of_raw).zip(&constant);
                        for ((gradient, raw), ((of_gradient, of_raw), constant)) in
                            pixel.iter_mut().zip(raw).zip(factors)
                        {
                            *gradient = of_gradient * *gradient + of_raw * raw + constant;
                        }
                    }
                },
            );
        });
        let affine = normalised.into_iter().chain(sums).map(|sum| sum as f32).collect();
        Ok((before, affine))
    }

    /// Gradients of `x` (empty if not wanted) and of the weights.
    fn before_conv(&self, x: &[f32], weight: &[f32], gradient: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let (_, input, output) = self.sizes()?;
        let mut of_input = vec![0f32; if self.through { x.len() } else { 0 }];
        let partial: Vec<Vec<f32>> = gradient
            .par_chunks(GROUP * output)
            .zip(x.par_chunks(GROUP * input))
            .map_init(Vec::new, |scratch, (gradient, x)| {
                let mut sum = vec![0f32; weight.len()];
                for (gradient, image) in gradient.chunks_exact(output).zip(x.chunks_exact(input)) {
                    self.geometry.weight_gradient(image, gradient, &mut sum, scratch);
                }
                sum
            })
            .collect();
        if self.through {
            of_input
                .par_chunks_exact_mut(input)
                .zip(gradient.par_chunks_exact(output))
                .for_each_init(Vec::new, |scratch, (image, gradient)| {
                    self.geometry.input_gradient(gradient, weight, image, scratch)
                });
        }
        let mut of_weight = vec![0f32; weight.len()];
        for part in partial {
            of_weight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        Ok((of_input, of_weight))
    }
}

impl CustomOp3 for ConvNorm {
    fn name(&self) -> &'static str {
        "conv-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, affine) =
            (operand(x, x_layout)?, operand(weight, weight_layout)?, operand(affine, affine_layout)?);
        let ([height, width, channels], ..) = self.sizes()?;
        let (out, images) = self.run(x, weight, affine)?;
        Ok((CpuStorage::F32(out), Shape::from((images, height, width, channels))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        affine: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (before, of_affine) = with_numbers(affine, |affine| {
            with_numbers(result, |result| with_numbers(gradient, |gradient| self.before_norm(affine, result, gradient)))
        })????;
        let (of_x, of_weight) =
            with_numbers(x, |x| with_numbers(weight, |weight| self.before_conv(x, weight, &before)))???;
        let tensor = |numbers, like: &Tensor| Tensor::from_vec(numbers, like.shape(), &Device::Cpu);
        let of_x = if self.through { Some(tensor(of_x, x)?) } else { None };
        Ok((of_x, Some(tensor(of_weight, weight)?), Some(tensor(of_affine, affine)?)))
    }
}
