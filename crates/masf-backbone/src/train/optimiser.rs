//! AdamW with a running average of the weights.
//!
//! I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019; the average as in A. Tarvainen, H. Valpola, "Mean
//! teachers are better role models", 2017.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use super::layer::with_numbers;
use crate::{BackboneError, Result};

/// Decay of the first and the second moment.
const BETAS: (f32, f32) = (0.9, 0.99);
const EPSILON: f32 = 1e-8;
const WEIGHT_DECAY: f32 = 0.02;
/// Decay of the average, once the training is long enough.
const AVERAGE_DECAY: f32 = 0.998;

/// What belongs to one variable.
struct Slot {
    name: String,
    variable: Var,
    decays: bool,
    first: Vec<f32>,
    second: Vec<f32>,
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
            let zeros = vec![0f32; average.len()];
            Ok(Slot { name, variable, decays, first: zeros.clone(), second: zeros, average })
        };
        Ok(Self { slots: variables.into_iter().map(slot).collect::<Result<_>>()?, step: 0 })
    }

    /// One step with this learning rate. A gradient whose norm over all variables is above `clip` is shortened to it.
    pub(super) fn step(&mut self, gradients: &GradStore, rate: f32, clip: f32) -> Result<()> {
        let of = |slot: &Slot| -> Result<Vec<f32>> {
            let gradient = gradients.get(&slot.variable);
            Ok(match gradient {
                Some(gradient) => gradient.flatten_all()?.to_vec1()?,
                None => vec![0.0; slot.average.len()],
            })
        };
        let all: Vec<Vec<f32>> = self.slots.iter().map(of).collect::<Result<_>>()?;
        let norm = all.iter().flatten().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32;
        if !norm.is_finite() {
            return Err(BackboneError::argument("gradient", norm, "finite values; the learning rate is too high"));
        }
        let shorten = (clip / norm.max(1e-12)).min(1.0);
        self.step += 1;
        let step = self.step as f32;
        let (correct_first, correct_second) = (1.0 - BETAS.0.powf(step), 1.0 - BETAS.1.powf(step));
        let keep = AVERAGE_DECAY.min((1.0 + step) / (10.0 + step));
        for (slot, gradient) in self.slots.iter_mut().zip(&all) {
            let shrink = if slot.decays { 1.0 - rate * WEIGHT_DECAY } else { 1.0 };
            let mut values = slot.variable.flatten_all()?.to_vec1::<f32>()?;
            for (i, value) in values.iter_mut().enumerate() {
                let gradient = gradient[i] * shorten;
                slot.first[i] = BETAS.0 * slot.first[i] + (1.0 - BETAS.0) * gradient;
                slot.second[i] = BETAS.1 * slot.second[i] + (1.0 - BETAS.1) * gradient * gradient;
                let (first, second) = (slot.first[i] / correct_first, slot.second[i] / correct_second);
                *value = *value * shrink - rate * first / (second.sqrt() + EPSILON);
                slot.average[i] = keep * slot.average[i] + (1.0 - keep) * *value;
            }
            slot.variable.set(&Tensor::from_vec(values, slot.variable.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// Runs something with the averaged weights in place of the last ones.
    pub(super) fn with_average<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
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
            put("first", &slot.first)?;
            put("second", &slot.second)?;
            put("average", &slot.average)?;
        }
        Ok(tensors)
    }

    /// Continues from what [`tensors`](Self::tensors) gave.
    pub(super) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        for slot in &mut self.slots {
            let get = |part: &str| -> Result<Tensor> {
                let name = format!("{part}.{}", slot.name);
                let tensor = tensors.get(&name).filter(|tensor| tensor.shape() == slot.variable.shape());
                Ok(tensor.ok_or(candle_core::Error::CannotFindTensor { path: name })?.clone())
            };
            slot.variable.set(&get("value")?)?;
            slot.first = get("first")?.flatten_all()?.to_vec1()?;
            slot.second = get("second")?.flatten_all()?.to_vec1()?;
            slot.average = get("average")?.flatten_all()?.to_vec1()?;
        }
        self.step = step;
        Ok(())
    }
}
