//! ResNet-50 v2 (pre-activation) with folded batch norm: stem and the first three stages.
//!
//! K. He et al., "Identity mappings in deep residual networks", ECCV 2016. A block is `y = relu(x * scale + shift)`;
//! `out = skip + conv3(relu(conv2(relu(conv1(y)))))`, where skip is a projection of `y` in the first block of a stage and `x` in the
//! others. The residual sum is signed and uneven across channels, so the maps that are offered are what the next stage sees:
//! `layer{L}.out`, the sum after the next pre-activation. The sums themselves are `layer{L}.{B}`.

use super::blueprint::{Blueprint, ConvSpec, Offset};
use crate::graph::{Activation, NodeId, Padding};

pub(super) fn blueprint() -> Blueprint {
    let mut net = Blueprint::new(&[]);
    // The network's own normalisation of its input. The convolution that follows pads with zeros after it, so it cannot be
    // folded.
    let input = net.affine(Blueprint::INPUT, "input", Activation::Identity);
    let stem = conv(&mut net, input, "stem", (64, 7, 2), (Offset::Bias, Activation::Relu), None);
    let mut x = net.max_pool(stem);
    net.name(x, "stem");
    for (stage, blocks) in [3, 4, 6].into_iter().enumerate() {
        let layer = stage + 1;
        let (inner, outer) = (64 << stage, 256 << stage);
        for block in 0..blocks {
            let prefix = format!("layer{layer}.{block}");
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = net.affine(x, &format!("{prefix}.preact"), Activation::Relu);
            if stage > 0 && block == 0 {
                net.name(y, format!("layer{stage}.out"));
            }
            let skip = match block {
                0 => {
                    let tensor = format!("{prefix}.downsample");
                    conv(&mut net, y, &tensor, (outer, 1, stride), (Offset::Zero, Activation::Identity), None)
                }
                _ => x,
            };
            let tensor = |index: usize| format!("{prefix}.conv{index}");
            let z = conv(&mut net, y, &tensor(1), (inner, 1, 1), (Offset::Bias, Activation::Relu), None);
            let z = conv(&mut net, z, &tensor(2), (inner, 3, stride), (Offset::Bias, Activation::Relu), None);
            x = conv(&mut net, z, &tensor(3), (outer, 1, 1), (Offset::Zero, Activation::Identity), Some(skip));
            net.name(x, prefix);
        }
        net.offer(format!("layer{layer}.out"));
    }
    let out = net.affine(x, "layer4.0.preact", Activation::Relu);
    net.name(out, "layer3.out");
    net
}

fn conv(
    net: &mut Blueprint,
    input: NodeId,
    tensor: &str,
    (channels, kernel, stride): (usize, usize, usize),
    (offset, activation): (Offset, Activation),
    residual: Option<NodeId>,
) -> NodeId {
    let spec = ConvSpec {
        tensor: tensor.to_owned(),
        shape: [channels, net.channels(input), kernel, kernel],
        offset,
        stride,
        padding: Padding::Symmetric(kernel / 2),
        groups: 1,
        activation,
    };
    net.conv(input, spec, residual)
}
