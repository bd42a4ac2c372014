//! A network before its weights are known: operations that name the tensors they need.
//!
//! From a blueprint follow the tensors that a file must hold, the part of the network that chosen maps need, and, with
//! weights, the [`Graph`] that is executed (batch norm folded into convolutions).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use candle_core::{DType, Device, Tensor};

use super::Layer;
use crate::Result;
use crate::graph::{Activation, Conv, Factors, Graph, NodeId, Op, Padding, Tap};
use crate::weights::{Requirement, Weights};

/// The constant that PyTorch's batch norm adds to variances.
const BATCH_NORM_EPS: f64 = 1e-5;

/// The additive part of a convolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offset {
    /// None.
    Zero,
    /// The tensor `{convolution}.bias`.
    Bias,
    /// A batch norm of this name follows.
    BatchNorm(String),
}

/// A convolution; its weight is `{tensor}.weight`.
#[derive(Debug, Clone)]
pub(crate) struct ConvSpec {
    pub(crate) tensor: String,
    /// `[O, I / groups, k, k]`.
    pub(crate) shape: [usize; 4],
    pub(crate) offset: Offset,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
    pub(crate) groups: usize,
    pub(crate) activation: Activation,
}

/// An operation; the tensors of an affine map are `{name}.scale` and `{name}.shift`.
pub(crate) type Step = Op<ConvSpec, String>;

#[derive(Debug, Clone)]
struct Node {
    step: Step,
    /// Channels of the value, and input pixels per step.
    channels: usize,
    stride: usize,
}

/// The network.
#[derive(Debug, Clone)]
pub(crate) struct Blueprint {
    nodes: Vec<Node>,
    names: BTreeMap<String, NodeId>,
    /// The names of the maps that the network offers by default, finest first.
    maps: Vec<String>,
    /// Names, or ends of names, of tensors that may be in a file and are not used.
    ignored: &'static [&'static str],
}

impl Blueprint {
    /// The input alone.
    pub(crate) fn new(ignored: &'static [&'static str]) -> Self {
        let input = Node { step: Step::Input, channels: 3, stride: 1 };
        Self { nodes: vec![input], names: BTreeMap::new(), maps: Vec::new(), ignored }
    }

    /// The input node.
    pub(crate) const INPUT: NodeId = 0;

    /// The operations, in order.
    #[cfg(feature = "train")]
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.nodes.iter().map(|node| &node.step)
    }

    /// Channels of a node's value.
    pub(crate) fn channels(&self, node: NodeId) -> usize {
        self.nodes.get(node).map_or(0, |node| node.channels)
    }

    fn push(&mut self, step: Step, channels: Option<usize>, stride: usize) -> NodeId {
        let input = step.inputs().next().and_then(|input| self.nodes.get(input));
        let (before, inherited) = input.map_or((1, 3), |node| (node.stride, node.channels));
        self.nodes.push(Node { step, channels: channels.unwrap_or(inherited), stride: before * stride });
        self.nodes.len() - 1
    }

    /// Adds a convolution.
    pub(crate) fn conv(&mut self, input: NodeId, spec: ConvSpec, residual: Option<NodeId>) -> NodeId {
        let (channels, stride) = (spec.shape[0], spec.stride);
        self.push(Step::Conv { input, conv: spec, residual }, Some(channels), stride)
    }

    /// Adds the 3x3 max-pool with stride 2 of the ResNets.
    pub(crate) fn max_pool(&mut self, input: NodeId) -> NodeId {
        self.push(Step::MaxPool { input, kernel: 3, stride: 2, padding: 1 }, None, 2)
    }

    /// Adds `activation(x * scale + shift)`.
    pub(crate) fn affine(&mut self, input: NodeId, tensor: &str, activation: Activation) -> NodeId {
        self.push(Step::Affine { input, factors: tensor.to_owned(), activation }, None, 1)
    }

    /// Gives a node a name under which it can be chosen as a map.
    pub(crate) fn name(&mut self, node: NodeId, name: impl Into<String>) {
        self.names.insert(name.into(), node);
    }

    /// Declares a named node as one of the network's default maps.
    pub(crate) fn offer(&mut self, name: impl Into<String>) {
        self.maps.push(name.into());
    }

    /// The names of the default maps, finest first.
    pub(crate) fn maps(&self) -> &[String] {
        &self.maps
    }

    /// The names of all nodes that can be chosen.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The node of a name.
    pub(crate) fn layer(&self, name: &str) -> Option<Layer> {
        let order = *self.names.get(name)?;
        let Node { channels, stride, .. } = *self.nodes.get(order)?;
        Some(Layer { stride, order, channels })
    }

    /// The part that the maps of these names need, with the maps as its default ones. Unknown names are left out.
    pub(crate) fn select(&self, maps: &[String]) -> Self {
        let mut needed: BTreeSet<NodeId> = BTreeSet::from([Self::INPUT]);
        let mut open: Vec<NodeId> = maps.iter().filter_map(|name| self.names.get(name).copied()).collect();
        while let Some(node) = open.pop() {
            if needed.insert(node) {
                open.extend(self.nodes.get(node).into_iter().flat_map(|node| node.step.inputs()));
            }
        }
        let new: BTreeMap<NodeId, NodeId> = needed.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let renumber = |old| new.get(&old).copied().unwrap_or(Self::INPUT);
        let renumbered = |node: &Node| {
            let step = node.step.try_map(renumber, |conv| Ok(conv.clone()), |factors| Ok(factors.clone()));
            let Ok(step) = step.map_err(|never: Infallible| never);
            Node { step, ..*node }
        };
        let nodes = needed.iter().filter_map(|old| self.nodes.get(*old).map(renumbered)).collect();
        let names = self.names.iter().filter_map(|(name, old)| Some((name.clone(), *new.get(old)?))).collect();
        Self { nodes, names, maps: maps.to_vec(), ignored: self.ignored }
    }

    /// The tensors that are needed.
    pub(crate) fn requirements(&self) -> Vec<Requirement> {
        let mut required = Vec::new();
        let mut need = |name: String, shape: &[usize], non_negative: bool| {
            required.push(Requirement { name, shape: shape.to_vec(), non_negative });
        };
        for node in &self.nodes {
            let channels = [node.channels];
            match &node.step {
                Step::Input | Step::MaxPool { .. } => {}
                Step::Conv { conv: spec, .. } => {
                    need(format!("{}.weight", spec.tensor), &spec.shape, false);
                    match &spec.offset {
                        Offset::Zero => {}
                        Offset::Bias => need(format!("{}.bias", spec.tensor), &channels, false),
                        Offset::BatchNorm(norm) => {
                            for part in ["weight", "bias", "running_mean", "running_var"] {
                                need(format!("{norm}.{part}"), &channels, part == "running_var");
                            }
                        }
                    }
                }
                Step::Affine { factors: tensor, .. } => {
                    need(format!("{tensor}.scale"), &channels, false);
                    need(format!("{tensor}.shift"), &channels, false);
                }
            }
        }
        required
    }

    /// Whether a tensor may be in a file although it is not used.
    pub(crate) fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|end| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }

    /// The network with its weights, on a device. The weights have been checked.
    pub(crate) fn assemble(&self, weights: &Weights, device: &Device) -> Result<Graph> {
        let factors = |tensor: &String| -> Result<Factors> {
            let part = |part: &str| weights.get(&format!("{tensor}.{part}"), device);
            Ok(Factors { scale: part("scale")?, shift: part("shift")? })
        };
        let op = |node: &Node| node.step.try_map(|input| input, |spec| spec.fold(weights, device), factors);
        let nodes = self.nodes.iter().map(op).collect::<Result<_>>()?;
        let layers = self.maps.iter().filter_map(|name| self.layer(name));
        let taps = layers.map(|Layer { stride, order: node, channels }| Tap { node, stride, channels }).collect();
        Ok(Graph { nodes, taps })
    }
}

impl ConvSpec {
    /// The convolution with bias and batch norm folded in: `gamma (w x - mean) / sqrt(var + eps) + beta`, in `f64`, rounded once.
    fn fold(&self, weights: &Weights, device: &Device) -> Result<Conv> {
        let weight = weights.get(&format!("{}.weight", self.tensor), &Device::Cpu)?;
        let (weight, bias) = match &self.offset {
            Offset::Zero => (weight, Tensor::zeros(self.shape[0], DType::F32, &Device::Cpu)?),
            Offset::Bias => (weight, weights.get(&format!("{}.bias", self.tensor), &Device::Cpu)?),
            Offset::BatchNorm(norm) => {
                let part = |part: &str| -> Result<Vec<f32>> {
                    Ok(weights.get(&format!("{norm}.{part}"), &Device::Cpu)?.to_vec1()?)
                };
                let (gamma, beta) = (part("weight")?, part("bias")?);
                let (mean, var) = (part("running_mean")?, part("running_var")?);
                let scale: Vec<f64> = gamma
                    .iter()
                    .zip(&var)
                    .map(|(gamma, var)| f64::from(*gamma) / (f64::from(*var) + BATCH_NORM_EPS).sqrt())
                    .collect();
                let shift =
                    beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| (f64::from(*b) - f64::from(*m) * s) as f32);
                let bias = Tensor::from_iter(shift, &Device::Cpu)?;
                let mut values = weight.flatten_all()?.to_vec1::<f32>()?;
                let filter = self.shape[1..].iter().product::<usize>().max(1);
                for (filter, scale) in values.chunks_exact_mut(filter).zip(&scale) {
                    filter.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
                }
                (Tensor::from_vec(values, self.shape.as_slice(), &Device::Cpu)?, bias)
            }
        };
        Ok(Conv {
            weight: weight.to_device(device)?,
            bias: bias.to_device(device)?,
            stride: self.stride,
            padding: self.padding,
            groups: self.groups,
            activation: self.activation,
        })
    }
}
