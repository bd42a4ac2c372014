//! AdamW (Loshchilov and Hutter 2019) in one pass over memory, the one-cycle schedule (Smith and Topin 2019), and clipping.

use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use masf_core::vectorised;
use rayon::prelude::*;

use crate::ops::with_slice;

/// Decay of the mean of gradients.
const BETA_1: f64 = 0.9;
/// Decay of the mean of their squares.
const BETA_2: f64 = 0.99;
/// Keeps the step finite.
const EPSILON: f64 = 1e-8;
/// The share of steps over which the learning rate rises.
const RISE: f64 = 0.15;
/// Values of one task; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The learning rate of a step: a linear rise, then half a cosine down to nearly nothing.
pub(crate) fn one_cycle(step: usize, steps: usize, largest: f64) -> f64 {
    let position = (step as f64 + 0.5) / steps as f64;
    if position < RISE {
        return largest * (0.05 + 0.95 * position / RISE);
    }
    let fall = (position - RISE) / (1.0 - RISE);
    largest * (0.001 + 0.999 * 0.5 * (1.0 + (std::f64::consts::PI * fall).cos()))
}

/// The norm of the gradients of some variables, in double precision.
pub(crate) fn gradient_norm(gradients: &GradStore, variables: &[Var]) -> Result<f64> {
    let mut total = 0f64;
    for variable in variables {
        let Some(gradient) = gradients.get(variable) else { continue };
        total += with_slice(gradient, |values| {
            let parts: Vec<f64> = values
                .par_chunks(CHUNK)
                .map(|chunk| chunk.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
                .collect();
            Ok(parts.iter().sum::<f64>())
        })?;
    }
    Ok(total.sqrt())
}

/// The means of the gradient and of its square for one variable.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) square: Vec<f32>,
}

impl Moments {
    pub(crate) fn zero(count: usize) -> Self {
        Self { mean: vec![0.0; count], square: vec![0.0; count] }
    }
}

/// One step for one variable.
pub(crate) struct AdamStep<'a> {
    pub(crate) moments: Mutex<&'a mut Moments>,
    /// Learning rate.
    pub(crate) rate: f64,
    pub(crate) weight_decay: f64,
    /// What gradients are multiplied with first.
    pub(crate) scale: f64,
    /// The number of this step, from 1.
    pub(crate) count: usize,
}

impl AdamStep<'_> {
    /// Moves a variable against its gradient.
    pub(crate) fn apply(self, variable: &Var, gradient: &Tensor) -> Result<()> {
        variable.as_tensor().inplace_op2(&gradient.contiguous()?, &self)
    }
}

impl InplaceOp2 for AdamStep<'_> {
    fn name(&self) -> &'static str {
        "adam-w"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, gradient: &CpuStorage, gl: &Layout) -> Result<()> {
        let (CpuStorage::F32(x), Some((start, end))) = (x, xl.contiguous_offsets()) else {
            candle_core::bail!("adam-w: a variable is no contiguous f32 tensor");
        };
        let x = &mut x[start..end];
        let Some((start, end)) = gl.contiguous_offsets() else {
            candle_core::bail!("adam-w: a gradient is not contiguous");
        };
        let gradient = &gradient.as_slice::<f32>()?[start..end];
        let mut moments = self.moments.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Moments { mean, square } = &mut **moments;
        // The corrections of the first steps, folded into the rate and the epsilon.
        let (first, second) = (1.0 - BETA_1.powi(self.count as i32), 1.0 - BETA_2.powi(self.count as i32));
        let root = second.sqrt();
        let (rate, epsilon) = ((self.rate * root / first) as f32, (EPSILON * root) as f32);
        let keep = (1.0 - self.rate * self.weight_decay) as f32;
        let (scale, b1, b2) = (self.scale as f32, BETA_1 as f32, BETA_2 as f32);
        x.par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((x, gradient), (mean, square))| {
                vectorised(
                    #[inline(always)]
                    || {
                        for ((x, gradient), (mean, square)) in
                            x.iter_mut().zip(gradient).zip(mean.iter_mut().zip(square.iter_mut()))
                        {
                            let gradient = gradient * scale;
                            *mean = b1 * *mean + (1.0 - b1) * gradient;
                            *square = b2 * *square + (1.0 - b2) * gradient * gradient;
                            *x = keep * *x - rate * *mean / (square.sqrt() + epsilon);
                        }
                    },
                );
            });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn steps_follow_the_formula() -> Result<()> {
        let variable = Var::new(&[1f32, -2.0, 0.5], &Device::Cpu)?;
        let mut moments = Moments::zero(3);
        let (mut x, mut m, mut v) = ([1f64, -2.0, 0.5], [0f64; 3], [0f64; 3]);
        for count in 1..6 {
            let gradient: Vec<f64> = (0..3).map(|i| (i as f64 + 1.0) * (count as f64).sin()).collect();
            let tensor = Tensor::new(gradient.iter().map(|g| *g as f32).collect::<Vec<_>>(), &Device::Cpu)?;
            let step = AdamStep { moments: Mutex::new(&mut moments), rate: 0.1, weight_decay: 0.03, scale: 0.5, count };
            step.apply(&variable, &tensor)?;
            for i in 0..3 {
                let g = 0.5 * gradient[i];
                m[i] = BETA_1 * m[i] + (1.0 - BETA_1) * g;
                v[i] = BETA_2 * v[i] + (1.0 - BETA_2) * g * g;
                let (mh, vh) = (m[i] / (1.0 - BETA_1.powi(count as i32)), v[i] / (1.0 - BETA_2.powi(count as i32)));
                x[i] = x[i] * (1.0 - 0.1 * 0.03) - 0.1 * mh / (vh.sqrt() + EPSILON);
            }
        }
        for (found, expected) in variable.to_vec1::<f32>()?.iter().zip(x) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn the_rate_rises_and_falls() {
        let rates: Vec<f64> = (0..100).map(|step| one_cycle(step, 100, 1.0)).collect();
        let top = (0..100).max_by(|a, b| rates[*a].total_cmp(&rates[*b])).unwrap();
        assert!((13..17).contains(&top) && rates[top] > 0.99 && rates[0] < 0.1 && rates[99] < 0.01);
        assert!(rates[..top].is_sorted() && rates[top..].is_sorted_by(|a, b| a >= b));
    }
}
