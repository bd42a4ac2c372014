//! AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019), with AMSGrad (S. Reddi et al., "On the convergence
//! of Adam and beyond", 2018) where wanted, in place and in one pass over memory; clipping by the norm of all gradients.

use std::sync::{Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use rayon::prelude::*;

use crate::{vectorised, with_values};

/// Keeps the step finite.
const EPSILON: f64 = 1e-8;
/// Values of one task; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The norm of the gradients of some variables together, in double precision; a variable without a gradient adds nothing.
///
/// # Errors
/// Those of the tensor library.
pub fn gradient_norm<'a>(gradients: &GradStore, variables: impl IntoIterator<Item = &'a Var>) -> Result<f64> {
    let mut total = 0f64;
    for variable in variables {
        let Some(gradient) = gradients.get(variable) else { continue };
        total += with_values(gradient, |values| {
            let parts: Vec<f64> = values
                .par_chunks(CHUNK)
                .map(|chunk| chunk.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
                .collect();
            parts.iter().sum::<f64>()
        })?;
    }
    Ok(total.sqrt())
}

/// What gradients of this norm are multiplied with, so that it is at most `most`.
pub fn clip_factor(norm: f64, most: f64) -> f64 {
    (most / norm.max(1e-12)).min(1.0)
}

/// What AdamW keeps for one variable, in the order of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The decaying mean of the gradients, `m`.
    pub mean: Vec<f32>,
    /// The decaying mean of their squares, `v`.
    pub square: Vec<f32>,
    /// For AMSGrad the largest `v` so far, which divides instead of the present one; else empty.
    pub largest: Vec<f32>,
}

impl Moments {
    /// Those of a variable with so many values before the first step.
    pub fn zero(count: usize, amsgrad: bool) -> Self {
        Self { mean: vec![0.0; count], square: vec![0.0; count], largest: vec![0.0; if amsgrad { count } else { 0 }] }
    }
}

/// A step of AdamW: with the scaled gradient `g`, step `t`, rate `r`, decay `d` and betas `b`
///
/// ```text
/// m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
/// x = (1 - r d) x - r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + 1e-8)
/// ```
///
/// AMSGrad has the largest `v` so far in the last line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f64,
    /// Decays of the mean of gradients and of the mean of their squares, in `[0, 1)`.
    pub betas: (f64, f64),
    /// The share, times the rate, that a variable loses.
    pub weight_decay: f64,
    /// What gradients are multiplied with first, such as [`clip_factor`].
    pub scale: f64,
    /// The number of this step, from 1.
    pub count: usize,
}

impl AdamStep {
    /// Moves a variable against its gradient.
    ///
    /// # Errors
    /// Anything but contiguous `f32` on the CPU; a gradient or moments of another length than the variable.
    pub fn apply(&self, variable: &Var, gradient: &Tensor, moments: &mut Moments) -> Result<()> {
        // The corrections of the first steps, folded into the rate and the epsilon.
        let count = self.count.clamp(1, i32::MAX as usize) as i32;
        let (first, second) = (1.0 - self.betas.0.powi(count), 1.0 - self.betas.1.powi(count));
        let root = second.sqrt();
        let factors = Factors {
            rate: (self.rate * root / first) as f32,
            epsilon: (EPSILON * root) as f32,
            keep: (1.0 - self.rate * self.weight_decay) as f32,
            scale: self.scale as f32,
            betas: (self.betas.0 as f32, self.betas.1 as f32),
        };
        let update = Update { factors, moments: Mutex::new(moments) };
        variable.as_tensor().inplace_op2(&gradient.contiguous()?, &update)
    }
}

/// The numbers of a step as the values need them.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    epsilon: f32,
    keep: f32,
    scale: f32,
    betas: (f32, f32),
}

impl Factors {
    /// Moves the values of a chunk, which stays in the cache from loop to loop; `largest` is empty without AMSGrad.
    #[inline(always)]
    fn apply(self, x: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], largest: &mut [f32]) {
        let Self { rate, epsilon, keep, scale, betas: (b1, b2) } = self;
        for ((gradient, mean), square) in gradient.iter().zip(mean.iter_mut()).zip(square.iter_mut()) {
            let gradient = gradient * scale;
            *mean = b1 * *mean + (1.0 - b1) * gradient;
            *square = b2 * *square + (1.0 - b2) * gradient * gradient;
        }
        for (largest, square) in largest.iter_mut().zip(square.iter()) {
            *largest = largest.max(*square);
        }
        let divisors = if largest.is_empty() { square } else { largest };
        for ((x, mean), divisor) in x.iter_mut().zip(mean.iter()).zip(divisors.iter()) {
            *x = keep * *x - rate * *mean / (divisor.sqrt() + epsilon);
        }
    }
}

/// A step for one variable.
struct Update<'a> {
    factors: Factors,
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp2 for Update<'_> {
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
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let Moments { mean, square, largest } = &mut **moments;
        if [gradient.len(), mean.len(), square.len()] != [x.len(); 3] || ![0, x.len()].contains(&largest.len()) {
            candle_core::bail!("adam-w: a gradient or its moments are not as long as the variable");
        }
        // As many chunks as the others have, empty ones without AMSGrad.
        let mut largest = largest.chunks_mut(CHUNK);
        let largest: Vec<&mut [f32]> =
            (0..x.len().div_ceil(CHUNK)).map(|_| largest.next().unwrap_or_default()).collect();
        let factors = self.factors;
        x.par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)).zip(largest))
            .for_each(|((x, gradient), ((mean, square), largest))| {
                vectorised(
                    #[inline(always)]
                    || factors.apply(x, gradient, mean, square, largest),
                );
            });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The formula of torch.optim.AdamW(lr=0.1, weight_decay=0.03, amsgrad=...) in 64 bits.
    #[test]
    fn steps_follow_the_formula() -> Result<()> {
        // With the last betas a square is smaller than one before it.
        let cases = [((0.9, 0.99), false), ((0.9, 0.999), false), ((0.9, 0.999), true), ((0.9, 0.9), true)];
        for (betas, amsgrad) in cases {
            let (b1, b2): (f64, f64) = betas;
            let variable = Var::new(&[1f32, -2.0, 0.5], &Device::Cpu)?;
            let mut moments = Moments::zero(3, amsgrad);
            let (mut x, mut m, mut v, mut l) = ([1f64, -2.0, 0.5], [0f64; 3], [0f64; 3], [0f64; 3]);
            for count in 1..6 {
                let sine = (count as f64).sin();
                let weights: Vec<f32> = (1..4).map(|i| (f64::from(i) * sine) as f32).collect();
                let weights = Tensor::new(weights, &Device::Cpu)?;
                let gradients = variable.as_tensor().mul(&weights)?.sum_all()?.backward()?;
                let norm = gradient_norm(&gradients, [&variable])?;
                assert!((norm - sine.abs() * 14f64.sqrt()).abs() < 1e-6);
                let step = AdamStep { rate: 0.1, betas, weight_decay: 0.03, scale: 0.5, count };
                step.apply(&variable, gradients.get(&variable).expect("it takes part"), &mut moments)?;
                let count = count as i32;
                for i in 0..3 {
                    let g = 0.5 * (i + 1) as f64 * sine;
                    m[i] = b1 * m[i] + (1.0 - b1) * g;
                    v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                    l[i] = if amsgrad { l[i].max(v[i]) } else { v[i] };
                    let (mh, lh) = (m[i] / (1.0 - b1.powi(count)), l[i] / (1.0 - b2.powi(count)));
                    x[i] = x[i] * (1.0 - 0.1 * 0.03) - 0.1 * mh / (lh.sqrt() + EPSILON);
                }
            }
            for (found, expected) in variable.to_vec1::<f32>()?.iter().zip(x) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn long_gradients_are_shortened() -> Result<()> {
        // The first step of Adam does not depend on the scale of the gradient; the moments do.
        let variable = Var::new(&[3f32, 4.0], &Device::Cpu)?;
        let gradients = variable.as_tensor().sqr()?.sum_all()?.backward()?;
        let norm = gradient_norm(&gradients, [&variable])?;
        assert!((norm - 10.0).abs() < 1e-6);
        let scale = clip_factor(norm, 1.0);
        let mut moments = Moments::zero(2, false);
        let step = AdamStep { rate: 0.1, betas: (0.9, 0.999), weight_decay: 0.0, scale, count: 1 };
        step.apply(&variable, gradients.get(&variable).expect("it takes part"), &mut moments)?;
        assert!((moments.mean[0] - 0.06).abs() < 1e-6 && (moments.mean[1] - 0.08).abs() < 1e-6);
        assert_eq!((clip_factor(0.5, 1.0), clip_factor(0.0, 1.0)), (1.0, 1.0));
        Ok(())
    }

    #[test]
    fn all_chunks_move_alike_and_lengths_must_fit() -> Result<()> {
        let count = 2 * CHUNK + 3;
        let gradient = Tensor::ones(count, candle_core::DType::F32, &Device::Cpu)?;
        for amsgrad in [false, true] {
            let variable = Var::from_tensor(&gradient)?;
            let mut moments = Moments::zero(count, amsgrad);
            let step = AdamStep { rate: 0.1, betas: (0.9, 0.99), weight_decay: 0.0, scale: 1.0, count: 1 };
            step.apply(&variable, &gradient, &mut moments)?;
            let values = variable.to_vec1::<f32>()?;
            assert!((values[0] - 0.9).abs() < 1e-6 && values.iter().all(|value| *value == values[0]));
            assert!(step.apply(&variable, &gradient, &mut Moments::zero(count - 1, amsgrad)).is_err());
            assert!(step.apply(&variable, &gradient.narrow(0, 0, 2)?, &mut moments).is_err());
        }
        Ok(())
    }
}
