//! AdamW (Loshchilov and Hutter 2019), with AMSGrad (Reddi et al. 2018) where wanted, and gradients clipped by their norm.

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;

use super::ops::values;

/// Values of one task; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;
/// Keeps the step finite.
const EPSILON: f64 = 1e-8;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamWParams {
    /// The largest learning rate.
    pub(crate) rate: f64,
    /// Decays of the mean of gradients and of their squares.
    pub(crate) betas: (f64, f64),
    pub(crate) weight_decay: f64,
    /// Whether the largest mean square so far divides, instead of the present one.
    pub(crate) amsgrad: bool,
    /// The largest norm of a gradient.
    pub(crate) clip: Option<f64>,
}

#[derive(Default)]
struct Moments {
    mean: Vec<f32>,
    square: Vec<f32>,
    largest: Vec<f32>,
}

/// The optimiser with its state.
pub(crate) struct AdamW {
    params: AdamWParams,
    moments: Vec<Moments>,
    count: i32,
}

impl AdamW {
    pub(crate) fn new(params: AdamWParams, variables: &[Var]) -> Self {
        let zero = |variable: &Var| {
            let zeros = vec![0f32; variable.elem_count()];
            let largest = if params.amsgrad { zeros.clone() } else { Vec::new() };
            Moments { mean: zeros.clone(), square: zeros, largest }
        };
        Self { params, moments: variables.iter().map(zero).collect(), count: 0 }
    }

    /// The norm of all gradients together.
    pub(crate) fn norm(&self, variables: &[Var], gradients: &GradStore) -> Result<f64> {
        let mut total = 0f64;
        for variable in variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            let parts: Vec<f64> = values(gradient)?
                .par_chunks(CHUNK)
                .map(|chunk| chunk.iter().map(|value| f64::from(*value).powi(2)).sum())
                .collect();
            total += parts.iter().sum::<f64>();
        }
        Ok(total.sqrt())
    }

    /// One step, with the learning rate times `factor`; `norm` is that of the gradients.
    pub(crate) fn step(&mut self, variables: &[Var], gradients: &GradStore, factor: f64, norm: f64) -> Result<()> {
        let AdamWParams { rate, betas: (first, second), weight_decay, amsgrad, clip } = self.params;
        self.count = self.count.saturating_add(1);
        let rate = rate * factor;
        let scale = clip.map_or(1.0, |clip| (clip / norm.max(1e-12)).min(1.0)) as f32;
        // The corrections of the first steps.
        let mean_factor = (rate / (1.0 - first.powi(self.count))) as f32;
        let root = (1.0 - second.powi(self.count)).sqrt() as f32;
        let (keep, epsilon) = ((1.0 - rate * weight_decay) as f32, EPSILON as f32);
        let (first, second) = (first as f32, second as f32);
        for (variable, moments) in variables.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(variable) else { continue };
            let gradient = values(gradient)?;
            let mut x = values(variable.as_tensor())?;
            let count = x.len();
            let step = |x: &mut f32, gradient: &f32, mean: &mut f32, square: &mut f32, largest: Option<&mut f32>| {
                let gradient = gradient * scale;
                *mean = first * *mean + (1.0 - first) * gradient;
                *square = second * *square + (1.0 - second) * gradient * gradient;
                let square = match largest {
                    Some(largest) => {
                        *largest = largest.max(*square);
                        *largest
                    }
                    None => *square,
                };
                *x = keep * *x - mean_factor * *mean / (square.sqrt() / root + epsilon);
            };
            let Moments { mean, square, largest } = moments;
            let main = x.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
            let main = main.zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)));
            if amsgrad {
                main.zip(largest.par_chunks_mut(CHUNK)).for_each(|(((x, g), (m, s)), l)| {
                    for ((((x, g), m), s), l) in x.iter_mut().zip(g).zip(m).zip(s).zip(l) {
                        step(x, g, m, s, Some(l));
                    }
                });
            } else {
                main.for_each(|((x, g), (m, s))| {
                    for (((x, g), m), s) in x.iter_mut().zip(g).zip(m).zip(s) {
                        step(x, g, m, s, None);
                    }
                });
            }
            debug_assert_eq!(x.len(), count);
            variable.set(&Tensor::from_vec(x, variable.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch.optim.AdamW([p], lr=0.1, betas=(0.9, 0.999), weight_decay=0.03, amsgrad=...), gradients (i + 1) sin(t) 0.5 for
    /// i in 0..3 and t in 1..=5, from [1, -2, 0.5], in 64 bits.
    #[test]
    fn steps_are_those_of_the_formula() -> Result<()> {
        for amsgrad in [false, true] {
            let params = AdamWParams { rate: 0.1, betas: (0.9, 0.999), weight_decay: 0.03, amsgrad, clip: None };
            let variable = Var::new(&[1f32, -2.0, 0.5], &Device::Cpu)?;
            let mut adam = AdamW::new(params, std::slice::from_ref(&variable));
            let (mut x, mut m, mut v, mut l) = ([1f64, -2.0, 0.5], [0f64; 3], [0f64; 3], [0f64; 3]);
            for t in 1..=5 {
                let factor = 0.5 * f64::from(t).sin();
                let weights = Tensor::new(&[factor as f32, 2.0 * factor as f32, 3.0 * factor as f32], &Device::Cpu)?;
                let gradients = variable.as_tensor().mul(&weights)?.sum_all()?.backward()?;
                let variables = std::slice::from_ref(&variable);
                let norm = adam.norm(variables, &gradients)?;
                assert!((norm - factor.abs() * 14f64.sqrt()).abs() < 1e-6);
                adam.step(variables, &gradients, 1.0, norm)?;
                for i in 0..3 {
                    let g = (i + 1) as f64 * factor;
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.999 * v[i] + 0.001 * g * g;
                    l[i] = if amsgrad { l[i].max(v[i]) } else { v[i] };
                    let root = (l[i] / (1.0 - 0.999f64.powi(t))).sqrt();
                    x[i] = x[i] * (1.0 - 0.1 * 0.03) - 0.1 * m[i] / (1.0 - 0.9f64.powi(t)) / (root + EPSILON);
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
        let params = AdamWParams { rate: 0.1, betas: (0.9, 0.999), weight_decay: 0.0, amsgrad: false, clip: Some(1.0) };
        let variable = Var::new(&[3f32, 4.0], &Device::Cpu)?;
        let mut adam = AdamW::new(params, std::slice::from_ref(&variable));
        let gradients = variable.as_tensor().sqr()?.sum_all()?.backward()?;
        let norm = adam.norm(std::slice::from_ref(&variable), &gradients)?;
        assert!((norm - 10.0).abs() < 1e-6);
        adam.step(std::slice::from_ref(&variable), &gradients, 1.0, norm)?;
        assert!((adam.moments[0].mean[0] - 0.06).abs() < 1e-6 && (adam.moments[0].mean[1] - 0.08).abs() < 1e-6);
        Ok(())
    }
}
