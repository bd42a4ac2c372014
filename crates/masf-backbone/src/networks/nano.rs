//! The compact network of `masf-nano`: dense 3x3 convolutions between strides, bottleneck blocks (1x1, 3x3, 1x1) with linear
//! residual sums within them, and a linear 1x1 projection for every map, which is what the distillation trains.
//!
//! The blocks are those of K. He et al., "Deep residual learning for image recognition" (2016), the sums without activation as in
//! M. Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks" (2018).

use super::blueprint::{Blueprint, ConvSpec, Offset};
use crate::graph::{Activation, NodeId, Padding};

/// Channels of the first convolution, at stride 2.
const STEM: usize = 16;
/// The stages at strides 4, 8 and 16: channels, blocks, and channels of the map that is offered.
const STAGES: [(usize, usize, usize); 3] = [(48, 1, 32), (96, 2, 64), (160, 3, 128)];

pub(super) fn blueprint() -> Blueprint {
    let mut net = Blueprint::new(&[]);
    let mut x = conv(&mut net, Blueprint::INPUT, "stem", (STEM, 3, 2), Activation::Relu, None);
    for (index, (channels, blocks, map)) in STAGES.into_iter().enumerate() {
        let stage = index + 1;
        x = conv(&mut net, x, &format!("stage{stage}.down"), (channels, 3, 2), Activation::Relu, None);
        for block in 0..blocks {
            let name = |part: &str| format!("stage{stage}.{block}.{part}");
            let y = conv(&mut net, x, &name("reduce"), (channels / 2, 1, 1), Activation::Relu, None);
            let y = conv(&mut net, y, &name("conv"), (channels / 2, 3, 1), Activation::Relu, None);
            x = conv(&mut net, y, &name("expand"), (channels, 1, 1), Activation::Identity, Some(x));
        }
        net.name(x, format!("stage{stage}"));
        let spec = ConvSpec {
            tensor: format!("map{stage}.conv"),
            shape: [map, channels, 1, 1],
            offset: Offset::Bias,
            stride: 1,
            padding: Padding::Symmetric(0),
            groups: 1,
            activation: Activation::Identity,
        };
        let projected = net.conv(x, spec, None);
        net.name(projected, format!("map{stage}"));
        net.offer(format!("map{stage}"));
    }
    net
}

/// A convolution with batch norm: output channels, kernel and stride.
fn conv(
    net: &mut Blueprint,
    input: NodeId,
    name: &str,
    (channels, kernel, stride): (usize, usize, usize),
    activation: Activation,
    residual: Option<NodeId>,
) -> NodeId {
    let spec = ConvSpec {
        tensor: format!("{name}.conv"),
        shape: [channels, net.channels(input), kernel, kernel],
        offset: Offset::BatchNorm(format!("{name}.bn")),
        stride,
        padding: Padding::Symmetric(kernel / 2),
        groups: 1,
        activation,
    };
    net.conv(input, spec, residual)
}
