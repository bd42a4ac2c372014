//! Executes a graph with plain Candle operations: on any device, and as the oracle of the CPU engine.

use candle_core::{D, DType, Tensor};

use crate::Result;
use crate::graph::{Activation, Conv, Factors, Graph, Op, Padding};

/// The taps' maps `[B, C, h, w]` for images `[B, 3, H, W]` on the device of the weights.
pub(crate) fn run(graph: &Graph, images: &Tensor) -> Result<Vec<Tensor>> {
    let mut remaining = uses(graph);
    let mut values: Vec<Option<Tensor>> = Vec::with_capacity(graph.nodes.len());
    for op in &graph.nodes {
        let value = |node: usize| {
            let value = values.get(node).and_then(Option::as_ref);
            value.ok_or_else(|| candle_core::Error::Msg(format!("graph: node {node} is used before it is computed")))
        };
        let result = match op {
            Op::Input => images.clone(),
            Op::Conv { input, conv, residual } => {
                let mut y = convolve(value(*input)?, conv)?;
                if let Some(residual) = residual {
                    y = (y + value(*residual)?)?;
                }
                activate(y, conv.activation)?
            }
            &Op::MaxPool { input, kernel, stride, padding } => {
                let pad = [(padding, padding); 2];
                padded(value(input)?, pad, f32::NEG_INFINITY)?.max_pool2d_with_stride(kernel, stride)?
            }
            Op::Affine { input, factors: Factors { scale, shift }, activation } => {
                let y = value(*input)?.broadcast_mul(&channelwise(scale)?)?.broadcast_add(&channelwise(shift)?)?;
                activate(y, *activation)?
            }
        };
        values.push(Some(result));
        // Values are dropped after their last use, which bounds the memory.
        for input in op.inputs() {
            if let Some(count) = remaining.get_mut(input) {
                *count -= 1;
                if *count == 0 {
                    values[input] = None;
                }
            }
        }
    }
    let maps = graph.taps.iter().map(|tap| values.get(tap.node).cloned().flatten());
    let maps: Option<Vec<Tensor>> = maps.collect();
    Ok(maps.ok_or_else(|| candle_core::Error::Msg("graph: a tap names no node".into()))?)
}

/// How often each node's value is read, taps included.
fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.nodes.len()];
    let read = graph.nodes.iter().flat_map(Op::inputs).chain(graph.taps.iter().map(|tap| tap.node));
    for node in read {
        if let Some(count) = uses.get_mut(node) {
            *count += 1;
        }
    }
    uses
}

fn activate(x: Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Identity => x,
        Activation::Relu => x.relu()?,
        Activation::Relu6 => x.clamp(0f32, 6f32)?,
    })
}

/// `[C]` as `[1, C, 1, 1]`.
fn channelwise(x: &Tensor) -> Result<Tensor> {
    Ok(x.reshape((1, (), 1, 1))?)
}

fn convolve(x: &Tensor, conv: &Conv) -> Result<Tensor> {
    let kernel = conv.weight.dim(D::Minus1)?;
    let (_, channels, height, width) = x.dims4()?;
    let sides = match conv.padding {
        Padding::Symmetric(padding) => [(padding, padding); 2],
        Padding::Same => [same(height, kernel, conv.stride), same(width, kernel, conv.stride)],
    };
    let x = padded(x, sides, 0.0)?;
    let y = if conv.groups > 1 && conv.groups == channels {
        depthwise(&x, &conv.weight, conv.stride)?
    } else {
        x.conv2d(&conv.weight, 0, conv.stride, 1, conv.groups)?
    };
    Ok(y.broadcast_add(&channelwise(&conv.bias)?)?)
}

/// TensorFlow's SAME padding of an axis: before and after.
fn same(length: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let total = ((length.div_ceil(stride).max(1) - 1) * stride + kernel).saturating_sub(length);
    (total / 2, total - total / 2)
}

/// A depthwise convolution without padding as a sum of shifted and scaled maps; Candle's own runs channel by channel.
///
/// Every `stride`-th row from row `dy` is row `dy % stride` of consecutive groups of `stride` rows; likewise columns.
fn depthwise(x: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let kernel = weight.dim(D::Minus1)?;
    if height < kernel || width < kernel {
        return Err(candle_core::Error::Msg(format!("{height} x {width} pixels are fewer than the kernel's")).into());
    }
    let (rows, columns) = ((height - kernel) / stride + 1, (width - kernel) / stride + 1);
    let groups = |outputs: usize| outputs + (kernel - 1) / stride;
    let (row_groups, column_groups) = (groups(rows), groups(columns));
    let fit = |x: &Tensor, axis: usize, length: usize| match x.dim(axis)? {
        have if have > length => x.narrow(axis, 0, length),
        have => x.pad_with_zeros(axis, 0, length - have),
    };
    let x = fit(&fit(x, 2, row_groups * stride)?, 3, column_groups * stride)?.contiguous()?;
    let x = x.reshape(&[batch, channels, row_groups, stride, column_groups, stride])?;
    let mut sum: Option<Tensor> = None;
    for dy in 0..kernel {
        let x = x.narrow(3, dy % stride, 1)?.narrow(2, dy / stride, rows)?;
        for dx in 0..kernel {
            let x = x.narrow(5, dx % stride, 1)?.narrow(4, dx / stride, columns)?;
            let x = x.reshape((batch, channels, rows, columns))?;
            let tap = weight.narrow(2, dy, 1)?.narrow(3, dx, 1)?.reshape((1, channels, 1, 1))?;
            let term = x.broadcast_mul(&tap)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
    }
    Ok(sum.ok_or_else(|| candle_core::Error::Msg("a kernel of no pixels".into()))?)
}

/// Pads rows and columns (before, after) with a value; contiguous.
fn padded(x: &Tensor, sides: [(usize, usize); 2], value: f32) -> Result<Tensor> {
    let mut x = x.contiguous()?;
    for (axis, (before, after)) in [2, 3].into_iter().zip(sides) {
        let side = |length: usize| {
            let mut dims = x.dims().to_vec();
            dims[axis] = length;
            Tensor::full(value, dims, x.device())?.to_dtype(DType::F32)
        };
        x = match (before, after) {
            (0, 0) => x,
            (0, after) => Tensor::cat(&[&x, &side(after)?], axis)?,
            (before, 0) => Tensor::cat(&[&side(before)?, &x], axis)?,
            (before, after) => Tensor::cat(&[&side(before)?, &x, &side(after)?], axis)?,
        };
    }
    Ok(x.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn depthwise_equals_candles_grouped_convolution() -> Result<()> {
        for (stride, height, width) in [(1, 7, 5), (2, 8, 9), (2, 9, 8), (2, 3, 3), (1, 3, 4), (3, 11, 10)] {
            let x = Tensor::randn(0f32, 1.0, (2, 5, height, width), &Device::Cpu)?;
            let weight = Tensor::randn(0f32, 1.0, (5, 1, 3, 3), &Device::Cpu)?;
            let expected = x.conv2d(&weight, 0, stride, 1, 5)?;
            let found = depthwise(&x, &weight, stride)?;
            assert_eq!(found.dims(), expected.dims());
            let difference = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-5, "stride {stride}, {height} x {width}: {difference}");
        }
        Ok(())
    }

    #[test]
    fn same_padding_follows_tensorflow() {
        assert_eq!(same(224, 3, 2), (0, 1));
        assert_eq!(same(225, 3, 2), (1, 1));
        assert_eq!(same(224, 3, 1), (1, 1));
        assert_eq!(same(1, 3, 2), (1, 1));
        assert_eq!(same(5, 1, 2), (0, 0));
    }

    #[test]
    fn pooling_never_prefers_the_padding() -> Result<()> {
        let pool = Op::MaxPool { input: 0, kernel: 3, stride: 2, padding: 1 };
        let tap = crate::graph::Tap { node: 1, stride: 2, channels: 1 };
        let graph = Graph { nodes: vec![Op::Input, pool], taps: vec![tap] };
        let x = Tensor::new(&[[[[-4f32, -3.0], [-2.0, -1.0]]]], &Device::Cpu)?;
        let maps = run(&graph, &x)?;
        assert_eq!(maps[0].flatten_all()?.to_vec1::<f32>()?, [-1.0]);
        Ok(())
    }
}
