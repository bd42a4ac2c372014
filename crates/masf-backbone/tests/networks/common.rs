//! Weights from a formula, the same as in `tests/reference/backbone_torchvision.py`.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use masf_backbone::{Backbone, BackboneError, Problem, Weights};

use crate::noise::noise;

/// Images `[batch, 3, height, width]` between -2 and 2.
pub(crate) fn images(batch: usize, height: usize, width: usize) -> Tensor {
    let pixels = noise("image", batch * 3 * height * width).map(|u| (2.0 * u) as f32);
    Tensor::from_iter(pixels, &Device::Cpu).unwrap().reshape((batch, 3, height, width)).unwrap()
}

/// The tensors that a network needs: what it misses in an empty file.
pub(crate) fn requirements(network: &str) -> Vec<(String, Vec<usize>)> {
    let empty = safetensors::serialize(HashMap::<String, Tensor>::new(), None).unwrap();
    let error = Backbone::builder(network).unwrap().build(Weights::from_bytes(&empty, "nothing").unwrap()).unwrap_err();
    let BackboneError::Weights { problems, .. } = error else { panic!("{error}") };
    let missing = problems.0.into_iter().map(|problem| match problem {
        Problem::Missing { name, shape } => (name, shape),
        other => panic!("{other}"),
    });
    missing.collect()
}

/// Weights of a network: He-scaled convolutions and batch norms near the identity.
pub(crate) fn tensors(network: &str) -> HashMap<String, Tensor> {
    let last_norm = if ["resnet18", "resnet34"].contains(&network) { ".bn2." } else { ".bn3." };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let fan_in: usize = shape.iter().skip(1).product();
        let convolution = (6.0 / fan_in as f64).sqrt();
        let damping = if name.contains(last_norm) { 0.25 } else { 1.0 };
        let scaled = |u: f64| match name.rsplit('.').next() {
            _ if shape.len() == 4 => u * convolution,
            Some("running_var") => 1.0 + 0.5 * u,
            Some("weight" | "scale") => (1.0 + 0.25 * u) * damping,
            _ => 0.125 * u,
        };
        let values = noise(&name, shape.iter().product()).map(|u| scaled(u) as f32);
        let tensor = Tensor::from_iter(values, &Device::Cpu).unwrap().reshape(shape.as_slice()).unwrap();
        (name, tensor)
    };
    requirements(network).into_iter().map(tensor).collect()
}

/// Tensors as a file of weights.
pub(crate) fn file(tensors: &HashMap<String, Tensor>) -> Vec<u8> {
    safetensors::serialize(tensors, None).unwrap()
}

/// As [`tensors`], read as a file.
pub(crate) fn weights(network: &str) -> Weights {
    Weights::from_bytes(&file(&tensors(network)), "generated").unwrap()
}
