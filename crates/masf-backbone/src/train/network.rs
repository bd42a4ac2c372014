//! A network of the registry with trainable weights.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use rand_chacha::rand_core::RngCore;

use super::conv::Geometry;
use super::layer::{ConvNorm, Saved};
use crate::graph::{Activation, NodeId, Padding};
use crate::networks::{Blueprint, ConvSpec, Offset, Step};
use crate::{BackboneError, Result};

/// Scale of the norms that end a residual branch: blocks start near the identity.
const BRANCH_SCALE: f32 = 0.2;

/// A convolution.
struct Layer {
    spec: ConvSpec,
    padding: usize,
    norm: bool,
    /// `[k k I, O]`.
    weight: Var,
    /// Scale and shift `[2, O]`, or bias `[1, O]`.
    affine: Var,
    /// The last batch's statistics.
    saved: Arc<Mutex<Saved>>,
}

enum Node {
    Input,
    Conv { input: NodeId, layer: usize, residual: Option<NodeId> },
}

/// The network; it computes with the statistics of the batch in its norms.
pub(super) struct Network {
    nodes: Vec<Node>,
    layers: Vec<Layer>,
    taps: Vec<NodeId>,
}

/// Nearly normal numbers: sums of twelve uniform ones.
fn normal(stream: &mut impl RngCore, deviation: f32) -> f32 {
    let sum: f32 = (0..12).map(|_| (stream.next_u32() >> 8) as f32 / (1 << 24) as f32).sum();
    (sum - 6.0) * deviation
}

impl Network {
    /// The network of a blueprint with weights drawn from the seed (K. He et al., "Delving deep into rectifiers", 2015).
    pub(super) fn new(blueprint: &Blueprint, seed: u64) -> Result<Self> {
        let (mut nodes, mut layers) = (Vec::new(), Vec::<Layer>::new());
        for step in blueprint.steps() {
            nodes.push(match step {
                Step::Input => Node::Input,
                Step::Conv { input, conv: spec, residual } if spec.groups == 1 => {
                    layers.push(Layer::new(spec, residual.is_some(), seed)?);
                    Node::Conv { input: *input, layer: layers.len() - 1, residual: *residual }
                }
                _ => {
                    let expected = "a network of dense convolutions alone";
                    return Err(BackboneError::argument("network to train", "one with other operations", expected));
                }
            });
        }
        let taps = blueprint.maps().iter().filter_map(|name| blueprint.layer(name)).map(|layer| layer.order).collect();
        Ok(Self { nodes, layers, taps })
    }

    /// The maps `[B, h, w, C]` of images `[B, H, W, 3]`, finest first.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let mut values: Vec<Tensor> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            values.push(match node {
                Node::Input => images.clone(),
                &Node::Conv { input, layer, residual } => self.layers[layer].forward(
                    &values[input],
                    input != Blueprint::INPUT,
                    residual.map(|r| &values[r]),
                )?,
            });
        }
        Ok(self.taps.iter().map(|&tap| values[tap].clone()).collect())
    }

    /// Trainable values by name; `decays` tells whether weight decay is for them.
    pub(super) fn variables(&self) -> Vec<(String, Var, bool)> {
        let both = |layer: &Layer| {
            let name = &layer.spec.tensor;
            [
                (format!("{name}.kernel"), layer.weight.clone(), true),
                (format!("{name}.affine"), layer.affine.clone(), false),
            ]
        };
        self.layers.iter().flat_map(both).collect()
    }

    /// Mean and variance per channel of every norm in the last batch.
    pub(super) fn statistics(&self) -> Vec<(Vec<f64>, Vec<f64>)> {
        let of = |layer: &Layer| {
            let saved = layer.saved.lock().unwrap_or_else(PoisonError::into_inner);
            (saved.mean.clone(), saved.variance.clone())
        };
        self.layers.iter().map(of).collect()
    }

    /// Rounds the convolutions to what a file of weights holds.
    pub(super) fn round_kernels(&self) -> Result<()> {
        for layer in &self.layers {
            layer.weight.set(&layer.weight.to_dtype(DType::F16)?.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }

    /// The tensors of a file of weights: convolutions in `f16`, the rest in `f32`. They are copies, as the variables change later.
    pub(super) fn tensors(&self, statistics: &[(Vec<f64>, Vec<f64>)]) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (layer, (mean, variance)) in self.layers.iter().zip(statistics) {
            let [out, incoming, kernel, _] = layer.spec.shape;
            let weight = layer.weight.reshape((kernel, kernel, incoming, out))?.permute((3, 2, 0, 1))?;
            let name = &layer.spec.tensor;
            tensors.insert(format!("{name}.weight"), weight.contiguous()?.to_dtype(DType::F16)?);
            match &layer.spec.offset {
                Offset::BatchNorm(norm) => {
                    tensors.insert(format!("{norm}.weight"), layer.affine.get(0)?.copy()?);
                    tensors.insert(format!("{norm}.bias"), layer.affine.get(1)?.copy()?);
                    for (part, values) in [("running_mean", mean), ("running_var", variance)] {
                        let values = values.iter().map(|value| *value as f32);
                        tensors.insert(format!("{norm}.{part}"), Tensor::from_iter(values, &Device::Cpu)?);
                    }
                }
                _ => drop(tensors.insert(format!("{name}.bias"), layer.affine.get(0)?.copy()?)),
            }
        }
        Ok(tensors)
    }
}

impl Layer {
    fn new(spec: &ConvSpec, ends_branch: bool, seed: u64) -> Result<Self> {
        let [out, incoming, kernel, _] = spec.shape;
        let Padding::Symmetric(padding) = spec.padding else {
            let expected = "a network with symmetric padding";
            return Err(BackboneError::argument("network to train", "one with SAME padding", expected));
        };
        let norm = matches!(spec.offset, Offset::BatchNorm(_));
        let depth = incoming * kernel * kernel;
        let mut stream = masf_core::random_stream(seed, &format!("train/{}", spec.tensor));
        let deviation = (2.0 / depth as f32).sqrt();
        let values: Vec<f32> = (0..depth * out).map(|_| normal(&mut stream, deviation)).collect();
        let weight = Var::from_tensor(&Tensor::from_vec(values, (depth, out), &Device::Cpu)?)?;
        let scale = if !norm {
            0.0
        } else if ends_branch {
            BRANCH_SCALE
        } else {
            1.0
        };
        let affine: Vec<f32> = std::iter::repeat_n(scale, out).chain(std::iter::repeat_n(0.0, out)).collect();
        let affine = Tensor::from_vec(affine, (2, out), &Device::Cpu)?;
        let affine = Var::from_tensor(&if norm { affine } else { affine.narrow(0, 1, 1)?.contiguous()? })?;
        Ok(Self { spec: spec.clone(), padding, norm, weight, affine, saved: Arc::default() })
    }

    fn forward(&self, x: &Tensor, through: bool, residual: Option<&Tensor>) -> Result<Tensor> {
        let (_, height, width, channels) = x.dims4()?;
        let [out, _, kernel, _] = self.spec.shape;
        let geometry = Geometry {
            kernel,
            stride: self.spec.stride,
            padding: self.padding,
            input: [height, width, channels],
            channels: out,
        };
        let relu = self.spec.activation != Activation::Identity;
        let layer = ConvNorm {
            geometry,
            norm: self.norm,
            relu: relu && residual.is_none(),
            through,
            saved: Arc::clone(&self.saved),
        };
        let y = x.apply_op3(&self.weight, &self.affine, layer)?;
        Ok(match residual {
            Some(residual) if relu => (y + residual)?.relu()?,
            Some(residual) => (y + residual)?,
            None => y,
        })
    }
}
