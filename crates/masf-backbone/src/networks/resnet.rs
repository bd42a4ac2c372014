//! ResNets with batch norm, under the tensor names that torchvision and timm share.
//!
//! K. He et al., "Deep residual learning for image recognition", CVPR 2016; the stride of a bottleneck is that of its 3x3
//! convolution, as in torchvision. Wide variants: S. Zagoruyko, N. Komodakis, "Wide residual networks", BMVC 2016.

use masf_models::Block;

use super::blueprint::{Blueprint, ConvSpec, Offset};
use crate::graph::{Activation, NodeId, Padding};

/// The classifier and the training's counters.
const IGNORED: &[&str] = &["fc.weight", "fc.bias", "num_batches_tracked"];

pub(super) fn blueprint(blocks: [usize; 4], block: Block) -> Blueprint {
    let mut net = Blueprint::new(IGNORED);
    let stem = ("conv1", "bn1");
    let stem = conv(&mut net, Blueprint::INPUT, stem, (64, 7, 2), Activation::Relu, None);
    let mut x = net.max_pool(stem);
    net.name(x, "maxpool");
    for (stage, count) in blocks.into_iter().enumerate() {
        for index in 0..count {
            let prefix = format!("layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            x = match block {
                Block::Bottleneck { width } => bottleneck(&mut net, x, &prefix, (width << stage, 256 << stage), stride),
                _ => basic(&mut net, x, &prefix, 64 << stage, stride),
            };
            net.name(x, prefix);
        }
        net.name(x, format!("layer{}", stage + 1));
        net.offer(format!("layer{}", stage + 1));
    }
    net
}

fn basic(net: &mut Blueprint, x: NodeId, prefix: &str, channels: usize, stride: usize) -> NodeId {
    let skip = skip(net, x, prefix, channels, stride);
    let names = |index: usize| (format!("{prefix}.conv{index}"), format!("{prefix}.bn{index}"));
    let y = conv(net, x, names(1), (channels, 3, stride), Activation::Relu, None);
    conv(net, y, names(2), (channels, 3, 1), Activation::Relu, Some(skip))
}

fn bottleneck(net: &mut Blueprint, x: NodeId, prefix: &str, (inner, outer): (usize, usize), stride: usize) -> NodeId {
    let skip = skip(net, x, prefix, outer, stride);
    let names = |index: usize| (format!("{prefix}.conv{index}"), format!("{prefix}.bn{index}"));
    let y = conv(net, x, names(1), (inner, 1, 1), Activation::Relu, None);
    let y = conv(net, y, names(2), (inner, 3, stride), Activation::Relu, None);
    conv(net, y, names(3), (outer, 1, 1), Activation::Relu, Some(skip))
}

/// What is added to a block's output: its input, projected where the shape changes.
fn skip(net: &mut Blueprint, x: NodeId, prefix: &str, channels: usize, stride: usize) -> NodeId {
    if stride == 1 && net.channels(x) == channels {
        return x;
    }
    let names = (format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1"));
    conv(net, x, names, (channels, 1, stride), Activation::Identity, None)
}

/// A convolution with batch norm.
fn conv(
    net: &mut Blueprint,
    input: NodeId,
    (tensor, norm): (impl Into<String>, impl Into<String>),
    (channels, kernel, stride): (usize, usize, usize),
    activation: Activation,
    residual: Option<NodeId>,
) -> NodeId {
    let spec = ConvSpec {
        tensor: tensor.into(),
        shape: [channels, net.channels(input), kernel, kernel],
        offset: Offset::BatchNorm(norm.into()),
        stride,
        padding: Padding::Symmetric(kernel / 2),
        groups: 1,
        activation,
    };
    net.conv(input, spec, residual)
}
