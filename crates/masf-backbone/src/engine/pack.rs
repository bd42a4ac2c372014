//! A network's weights in the order in which the kernels read them, packed once and shared by the plans of all image
//! sizes.

use rayon::prelude::*;

use super::error::EngineError;
use super::kernels::{InstructionSet, Operands, PRODUCTS, transform_filter};
use super::memory::{Aligned, LINE};
use super::precision::Precision;
use crate::graph::{Activation, Conv, Factors, Graph, NodeId, Op, Padding, Tap};

/// Weights of a dense convolution or of one by Winograd's method, in panels of a few vectors of output channels.
#[derive(Debug)]
pub(crate) struct DenseWeights {
    /// The instruction set that they are packed for.
    pub(crate) set: InstructionSet,
    /// Output channels.
    pub(crate) channels: usize,
    /// What the products are made of.
    pub(crate) operands: Operands,
    /// Elements summed over: `kernel * kernel * input channels` numbers, or the input channels for Winograd's method; half as
    /// many, rounded up, where an element is a pair of numbers.
    pub(crate) depth: usize,
    pub(crate) panels: Vec<Panel>,
    /// Per panel `[depth (row, column, channel)][vectors * lanes]`, or `[36][depth][vectors * lanes]`; channels beyond
    /// the last are zero.
    pub(crate) data: Aligned,
    /// `[channels, rounded up to whole vectors]`.
    pub(crate) bias: Aligned,
}

/// A panel's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    /// Index of its first number in `data`.
    pub(crate) start: usize,
    /// Its first output channel.
    pub(crate) channel: usize,
    /// Its width in vectors.
    pub(crate) vectors: usize,
}

/// Weights of a depthwise convolution.
#[derive(Debug)]
pub(crate) struct DepthwiseWeights {
    pub(crate) channels: usize,
    pub(crate) kernel: usize,
    /// `[kernel * kernel][channels]`.
    pub(crate) data: Aligned,
    /// `[channels]`.
    pub(crate) bias: Aligned,
}

/// The window of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

/// A convolution with packed weights.
#[derive(Debug)]
pub(crate) struct PackedConv {
    pub(crate) window: Window,
    pub(crate) activation: Activation,
    pub(crate) weights: ConvWeights,
}

/// The weights of a convolution, in the form of the method that computes it.
#[derive(Debug)]
pub(crate) enum ConvWeights {
    Direct(DenseWeights),
    /// 3x3 with stride 1, by Winograd's method.
    Winograd(DenseWeights),
    Depthwise(DepthwiseWeights),
}

/// The factors of an affine map, repeated for a few pixels where there are few channels.
#[derive(Debug)]
pub(crate) struct PackedFactors {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

/// [`Op`] with packed weights.
pub(crate) type PackedOp = Op<PackedConv, PackedFactors>;

/// Input pixels per output pixel.
fn stride(op: &PackedOp) -> usize {
    match op {
        Op::Input | Op::Affine { .. } => 1,
        Op::Conv { conv, .. } => conv.window.stride,
        Op::MaxPool { stride, .. } => *stride,
    }
}

/// [`Graph`] with packed weights, checked.
#[derive(Debug)]
pub(crate) struct PackedGraph {
    pub(crate) set: InstructionSet,
    precision: Precision,
    pub(crate) nodes: Vec<PackedOp>,
    /// Channels of each node's value.
    pub(crate) channels: Vec<usize>,
    /// Image pixels per pixel of each node's value.
    steps: Vec<usize>,
    pub(crate) taps: Vec<Tap>,
}

impl PackedGraph {
    /// Checks the graph (order, channels, kernels) and packs its weights for `set`.
    pub(crate) fn new(graph: &Graph, set: InstructionSet, precision: Precision) -> Result<Self, EngineError> {
        let (nodes, channels, steps) = (Vec::new(), Vec::new(), Vec::new());
        let mut packed = Self { set, precision, nodes, channels, steps, taps: graph.taps.clone() };
        for (node, op) in graph.nodes.iter().enumerate() {
            let (op, channels) = packed.pack(node, op)?;
            let step = op.inputs().next().map_or(1, |input| packed.steps[input].saturating_mul(stride(&op)));
            packed.steps.push(step);
            packed.nodes.push(op);
            packed.channels.push(channels);
        }
        for tap in &graph.taps {
            match packed.channels.get(tap.node) {
                Some(&channels) if channels == tap.channels => {}
                found => {
                    let what = format!("a tap of {} channels is declared here, found {found:?}", tap.channels);
                    return Err(EngineError::Graph { node: tap.node, what });
                }
            }
        }
        Ok(packed)
    }

    fn pack(&self, node: NodeId, op: &Op) -> Result<(PackedOp, usize), EngineError> {
        let fault = |what: String| EngineError::Graph { node, what };
        let channels_of = |id: NodeId| {
            let found = self.channels.get(id).copied();
            found.ok_or_else(|| fault(format!("reads node {id}, which does not come before it")))
        };
        // Far below where sizes overflow.
        let bounded = |window: [usize; 3]| match window.into_iter().max() {
            Some(value @ 1025..) => Err(fault(format!("kernel, stride or padding {value} is above 1024"))),
            _ => Ok(()),
        };
        if matches!(op, Op::Input) != (node == 0) {
            return Err(fault("the image is node 0, and only node 0".into()));
        }
        match op {
            Op::Input => Ok((Op::Input, 3)),
            Op::Conv { input, conv, residual } => {
                let channels = channels_of(*input)?;
                let (out, per_group, kernel, columns) = conv.weight.dims4()?;
                let window = Window { kernel, stride: conv.stride, padding: conv.padding };
                let padding = if let Padding::Symmetric(padding) = conv.padding { padding } else { 0 };
                bounded([kernel, conv.stride, padding])?;
                if out == 0 || kernel == 0 || kernel != columns || conv.stride == 0 || conv.bias.dims1()? != out {
                    return Err(fault(format!("weight {:?} or stride {} is void", conv.weight.dims(), conv.stride)));
                }
                let depthwise = conv.groups != 1;
                let fits = if depthwise {
                    conv.groups == channels && out == channels && per_group == 1
                } else {
                    per_group == channels
                };
                if !fits {
                    let (dims, groups) = (conv.weight.dims(), conv.groups);
                    return Err(fault(format!("weight {dims:?} in {groups} groups over {channels} channels")));
                }
                if let Some(residual) = *residual
                    && channels_of(residual)? != out
                {
                    return Err(fault(format!("the residual, node {residual}, does not have {out} channels")));
                }
                if depthwise && residual.is_some() {
                    return Err(fault("a depthwise convolution with a residual".into()));
                }
                let weights = if depthwise {
                    ConvWeights::Depthwise(depthwise_weights(conv, kernel)?)
                } else if suits_winograd(&window, channels, out, self.steps[*input]) {
                    ConvWeights::Winograd(winograd_weights(conv, self.set)?)
                } else {
                    ConvWeights::Direct(dense_weights(conv, self.set, self.precision)?)
                };
                let conv = PackedConv { window, activation: conv.activation, weights };
                Ok((Op::Conv { input: *input, conv, residual: *residual }, out))
            }
            &Op::MaxPool { input, kernel, stride, padding } => {
                bounded([kernel, stride, padding])?;
                // Larger padding would make windows without a pixel.
                if kernel == 0 || stride == 0 || padding * 2 > kernel {
                    return Err(fault(format!("pooling of {kernel} by {stride} with padding {padding}")));
                }
                Ok((Op::MaxPool { input, kernel, stride, padding }, channels_of(input)?))
            }
            Op::Affine { input, factors: Factors { scale, shift }, activation } => {
                let channels = channels_of(*input)?;
                let (scale, shift) = (scale.to_vec1::<f32>()?, shift.to_vec1::<f32>()?);
                if scale.len() != channels || shift.len() != channels {
                    return Err(fault(format!("{} factors for {channels} channels", scale.len())));
                }
                // Few channels fill vectors badly: repeated, the factors of several pixels are those of one wide pixel.
                let repeat = if channels.is_multiple_of(LINE) { 1 } else { LINE };
                let factors = PackedFactors { scale: scale.repeat(repeat), shift: shift.repeat(repeat) };
                Ok((Op::Affine { input: *input, factors, activation: *activation }, channels))
            }
        }
    }
}

/// Whether Winograd's method pays for a convolution whose output has one pixel per `step x step` image pixels.
///
/// Its matrices are four times the size of the filters and are read once per run, which small maps do not repay: for 512
/// channels 3.8 against 11.5 ms (one core) on 16 x 16 pixels, but no gain on 8 x 8. Sizes are those of a 256 x 256 image.
fn suits_winograd(window: &Window, inputs: usize, outputs: usize, step: usize) -> bool {
    let large_enough = inputs >= 32 && outputs >= 32 && step <= 16;
    window.kernel == 3 && window.stride == 1 && large_enough && inputs * outputs <= MAX_WINOGRAD_CHANNELS
}

/// 512 x 512 channels (38 MB).
const MAX_WINOGRAD_CHANNELS: usize = 512 * 512;

/// Cuts the output channels into panels of nearly equal width, whose numbers `fill` writes: it is given the panel's first
/// channel, its width in channels (rounded up to whole vectors) and `numbers` zeros per channel.
fn panels(
    conv: &Conv,
    (set, operands): (InstructionSet, Operands),
    (depth, numbers): (usize, usize),
    fill: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Result<DenseWeights, EngineError> {
    let channels = conv.weight.dim(0)?;
    let lanes = set.lanes();
    let vectors = channels.div_ceil(lanes);
    let count = vectors.div_ceil(set.panel_vectors());
    let mut data = Aligned::zeros(vectors * lanes * numbers);
    let mut bias = Aligned::zeros(vectors * lanes);
    bias.as_mut_slice()[..channels].copy_from_slice(&conv.bias.to_vec1::<f32>()?);
    let mut panels = Vec::with_capacity(count);
    let (mut tasks, mut rest) = (Vec::with_capacity(count), data.as_mut_slice());
    for i in 0..count {
        let (first, end) = (i * vectors / count, (i + 1) * vectors / count);
        let (channel, start, width) = (first * lanes, first * lanes * numbers, (end - first) * lanes);
        let (own, others) = rest.split_at_mut(width * numbers);
        rest = others;
        tasks.push((channel, width, own));
        panels.push(Panel { start, channel, vectors: end - first });
    }
    tasks.into_par_iter().for_each(|(channel, width, panel)| fill(channel, width, panel));
    Ok(DenseWeights { set, channels, operands, depth, panels, data, bias })
}

/// Fewest neighbouring numbers that are worth rounding: shorter runs, as those of a stem, take as long to convert as they save.
const LEAST_ROUNDED_RUN: usize = 16;

fn dense_weights(conv: &Conv, set: InstructionSet, precision: Precision) -> Result<DenseWeights, EngineError> {
    let (_, inputs, kernel, _) = conv.weight.dims4()?;
    // [O, I, k, k] to [O, k, k, I]: the order of a window in a channels-last map.
    let source = conv.weight.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    let numbers = kernel * kernel * inputs;
    let precision = if kernel * inputs >= LEAST_ROUNDED_RUN { precision } else { Precision::F32 };
    let operands = Operands::new(set, precision);
    let depth = operands.elements(numbers);
    panels(conv, (set, operands), (depth, depth), |channel, width, panel| {
        let mut elements = vec![0.0; depth];
        for (column, filter) in source.chunks_exact(numbers).skip(channel).take(width).enumerate() {
            operands.convert(filter, &mut elements);
            for (k, &weight) in elements.iter().enumerate() {
                panel[k * width + column] = weight;
            }
        }
    })
}

fn winograd_weights(conv: &Conv, set: InstructionSet) -> Result<DenseWeights, EngineError> {
    let inputs = conv.weight.dim(1)?;
    let source = conv.weight.flatten_all()?.to_vec1::<f32>()?;
    let operands = Operands::new(set, Precision::F32);
    panels(conv, (set, operands), (inputs, inputs * PRODUCTS), |channel, width, panel| {
        for (column, filters) in source.chunks_exact(inputs * 9).skip(channel).take(width).enumerate() {
            for (k, filter) in filters.as_chunks::<9>().0.iter().enumerate() {
                let transformed = transform_filter(&filter.map(f64::from));
                for (product, weight) in transformed.into_iter().enumerate() {
                    panel[(product * inputs + k) * width + column] = weight as f32;
                }
            }
        }
    })
}

fn depthwise_weights(conv: &Conv, kernel: usize) -> Result<DepthwiseWeights, EngineError> {
    let channels = conv.weight.dim(0)?;
    let source = conv.weight.permute((2, 3, 1, 0))?.flatten_all()?.to_vec1::<f32>()?;
    let mut data = Aligned::zeros(source.len());
    data.as_mut_slice().copy_from_slice(&source);
    let mut bias = Aligned::zeros(channels);
    bias.as_mut_slice().copy_from_slice(&conv.bias.to_vec1::<f32>()?);
    Ok(DepthwiseWeights { channels, kernel, data, bias })
}
