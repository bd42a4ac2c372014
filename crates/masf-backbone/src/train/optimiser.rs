//! AdamW with a running average of the weights.
//!
//! I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019; the average as in A. Tarvainen, H. Valpola, "Mean
//! teachers are better role models", 2017.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use masf_core::all_finite;
use masf_core::training::{AdamStep, Moments, clip_factor, gradient_norm};

use super::layer::with_numbers;
use crate::{BackboneError, Result};

/// Decay of the first and the second moment.
const BETAS: (f64, f64) = (0.9, 0.99);
const WEIGHT_DECAY: f64 = 0.02;
/// Decay of the average, once the training is long enough.
const AVERAGE_DECAY: f32 = 0.998;

/// What belongs to one variable.
struct Slot {
    name: String,
    variable: Var,
    decays: bool,
    moments: Moments,
    average: Vec<f32>,
}

pub(super) struct Optimiser {
    slots: Vec<Slot>,
    pub(super) step: u64,
}

impl Optimiser {
    pub(super) fn new(variables: Vec<(String, Var, bool)>) -> Result<Self> {
        let slot = |(name, variable, decays): (String, Var, bool)| {
            let average = variable.flatten_all()?.to_vec1::<f32>()?;
            let moments = Moments::zero(average.len(), false);
            Ok(Slot { name, variable, decays, moments, average })
        };
        Ok(Self { slots: variables.into_iter().map(slot).collect::<Result<_>>()?, step: 0 })
    }

    /// One step with this learning rate. A gradient whose norm over all variables is above `clip` is shortened to it.
    pub(super) fn step(&mut self, gradients: &GradStore, rate: f64, clip: f64) -> Result<()> {
        let norm = gradient_norm(gradients, self.slots.iter().map(|slot| &slot.variable))?;
        if !norm.is_finite() {
            return Err(BackboneError::argument("gradient", norm, "finite values; the learning rate is too high"));
        }
        self.step += 1;
        let step = self.step as f32;
        let keep = AVERAGE_DECAY.min((1.0 + step) / (10.0 + step));
        let (scale, count) = (clip_factor(norm, clip), self.step as usize);
        for slot in &mut self.slots {
            if let Some(gradient) = gradients.get(&slot.variable) {
                let weight_decay = if slot.decays { WEIGHT_DECAY } else { 0.0 };
                let adam = AdamStep { rate, betas: BETAS, weight_decay, scale, count };
                adam.apply(&slot.variable, gradient, &mut slot.moments)?;
            }
            with_numbers(&slot.variable, |values| {
                for (average, value) in slot.average.iter_mut().zip(values) {
                    *average = keep * *average + (1.0 - keep) * value;
                }
            })?;
        }
        Ok(())
    }

    /// Runs something with the averaged weights in place of the last ones.
    pub(super) fn with_average<R>(&mut self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let last: Vec<Tensor> =
            self.slots.iter().map(|slot| slot.variable.copy()).collect::<candle_core::Result<_>>()?;
        for slot in &self.slots {
            slot.variable.set(&Tensor::from_vec(slot.average.clone(), slot.variable.shape(), &Device::Cpu)?)?;
        }
        let result = work();
        for (slot, last) in self.slots.iter().zip(&last) {
            slot.variable.set(last)?;
        }
        result
    }

    /// Everything that a later run needs.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for slot in &self.slots {
            let mut put = |part: &str, values: &[f32]| -> Result<()> {
                let tensor = Tensor::from_slice(values, slot.variable.shape(), &Device::Cpu)?;
                tensors.insert(format!("{part}.{}", slot.name), tensor);
                Ok(())
            };
            with_numbers(&slot.variable, |values| put("value", values))??;
            put("first", &slot.moments.mean)?;
            put("second", &slot.moments.square)?;
            put("average", &slot.average)?;
        }
        Ok(tensors)
    }

    /// Continues from what [`tensors`](Self::tensors) gave; changes nothing if anything is missing.
    pub(super) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        let mut found = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let get = |part: &str| -> Result<&Tensor> {
                let name = format!("{part}.{}", slot.name);
                let shape = slot.variable.shape();
                let fits = |tensor: &&Tensor| tensor.shape() == shape && tensor.dtype() == DType::F32;
                let tensor = tensors.get(&name).filter(fits);
                Ok(tensor.ok_or(candle_core::Error::CannotFindTensor { path: name })?)
            };
            let numbers = |part: &str| -> Result<Vec<f32>> { Ok(get(part)?.flatten_all()?.to_vec1()?) };
            let (value, square) = (get("value")?, numbers("second")?);
            let finite = with_numbers(value, all_finite)?;
            let (first, average) = (numbers("first")?, numbers("average")?);
            if !(finite && [&first, &square, &average].iter().all(|values| all_finite(values)))
                || square.iter().any(|square| *square < 0.0)
            {
                let name = &slot.name;
                let problem = format!("the numbers of `{name}` are not finite, or a mean of squares is negative");
                return Err(candle_core::Error::Msg(problem).into());
            }
            found.push((value, first, square, average));
        }
        for (slot, (value, mean, square, average)) in self.slots.iter_mut().zip(found) {
            slot.variable.set(value)?;
            (slot.moments.mean, slot.moments.square, slot.average) = (mean, square, average);
        }
        self.step = step;
        Ok(())
    }
}
