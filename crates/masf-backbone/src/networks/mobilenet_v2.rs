//! MobileNetV2 of width 1.0 with folded batch norm.
//!
//! M. Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018. Indices are those of torchvision's `features`;
//! the convolutions of a block are called `expand` (1x1), `depthwise` (3x3) and `project` (1x1, linear).

use super::blueprint::{Blueprint, ConvSpec, Offset};
use crate::graph::{Activation, NodeId, Padding};

/// Output channels, blocks, and stride of the first block.
const GROUPS: [(usize, usize, usize); 7] =
    [(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)];
/// Input channels are multiplied by this within a block, but in the first.
const EXPANSION: usize = 6;
/// The blocks whose outputs are the maps at strides 4, 8, 16 and 32.
const MAPS: [usize; 4] = [3, 6, 13, 17];

pub(super) fn blueprint(padding: Padding) -> Blueprint {
    let mut net = Blueprint::new(&["classifier.weight", "classifier.bias"]);
    let mut x = conv(&mut net, Blueprint::INPUT, "features.0.conv", (32, 3, 2), padding, (Activation::Relu6, None));
    net.name(x, "features.0");
    let mut index = 0;
    for (channels, blocks, first_stride) in GROUPS {
        for block in 0..blocks {
            index += 1;
            let stride = if block == 0 { first_stride } else { 1 };
            let mut y = x;
            if index > 1 {
                let name = format!("features.{index}.expand");
                let expanded = EXPANSION * net.channels(x);
                y = conv(&mut net, x, &name, (expanded, 1, 1), Padding::Symmetric(0), (Activation::Relu6, None));
                net.name(y, name);
            }
            let name = format!("features.{index}.depthwise");
            let inner = net.channels(y);
            y = conv(&mut net, y, &name, (inner, 3, stride), padding, (Activation::Relu6, None));
            net.name(y, name);
            let name = format!("features.{index}.project");
            let residual = (block > 0).then_some(x);
            x = conv(&mut net, y, &name, (channels, 1, 1), Padding::Symmetric(0), (Activation::Identity, residual));
            if residual.is_none() {
                net.name(x, name);
            }
            net.name(x, format!("features.{index}"));
        }
    }
    let last = conv(&mut net, x, "features.18.conv", (1280, 1, 1), Padding::Symmetric(0), (Activation::Relu6, None));
    net.name(last, "features.18");
    MAPS.iter().for_each(|index| net.offer(format!("features.{index}")));
    net
}

/// A convolution with bias: depthwise if it is a 3x3 one that keeps the number of channels.
fn conv(
    net: &mut Blueprint,
    input: NodeId,
    tensor: &str,
    (channels, kernel, stride): (usize, usize, usize),
    padding: Padding,
    (activation, residual): (Activation, Option<NodeId>),
) -> NodeId {
    let incoming = net.channels(input);
    let groups = if kernel == 3 && incoming == channels { channels } else { 1 };
    let spec = ConvSpec {
        tensor: tensor.to_owned(),
        shape: [channels, incoming / groups, kernel, kernel],
        offset: Offset::Bias,
        stride,
        padding,
        groups,
        activation,
    };
    net.conv(input, spec, residual)
}
