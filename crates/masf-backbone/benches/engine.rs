//! Layers of the registry's networks on the CPU engine, on the threads that `RAYON_NUM_THREADS` says.
//!
//! The rate that is printed counts multiplications and additions of the direct convolution; divide by the machine's peak.

use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use masf_backbone::engine::{Engine, Precision};
use masf_backbone::graph::{Activation, Conv, Graph, Op, Padding, Tap};
use std::hint::black_box;

/// Name, input side, input and output channels, kernel, stride; depthwise if the last is set.
const LAYERS: [(&str, usize, usize, usize, usize, usize, bool); 9] = [
    ("stem 7x7 s2", 256, 3, 64, 7, 2, false),
    ("3x3 64", 64, 64, 64, 3, 1, false),
    ("3x3 128", 32, 128, 128, 3, 1, false),
    ("3x3 256", 16, 256, 256, 3, 1, false),
    ("3x3 128 s2", 64, 128, 128, 3, 2, false),
    ("1x1 64 to 256", 64, 64, 256, 1, 1, false),
    ("1x1 1024 to 256", 16, 1024, 256, 1, 1, false),
    ("depthwise 144", 64, 144, 144, 3, 1, true),
    ("depthwise 96 s2", 128, 96, 96, 3, 2, true),
];

type AnyError = Box<dyn std::error::Error>;

/// The layer behind a 1x1 convolution that gives it its channels from an image.
fn engine(
    inputs: usize,
    (out, kernel, stride, depthwise): (usize, usize, usize, bool),
    precision: Precision,
) -> Result<Engine, AnyError> {
    let conv = |out: usize, per_group: usize, kernel: usize, stride: usize, groups: usize| -> Result<Conv, AnyError> {
        Ok(Conv {
            weight: Tensor::randn(0f32, 0.1, (out, per_group, kernel, kernel), &Device::Cpu)?,
            bias: Tensor::zeros(out, candle_core::DType::F32, &Device::Cpu)?,
            stride,
            padding: Padding::Symmetric(kernel / 2),
            groups,
            activation: Activation::Relu,
        })
    };
    let mut nodes = vec![Op::Input];
    if inputs != 3 {
        nodes.push(Op::Conv { input: 0, conv: conv(inputs, 3, 1, 1, 1)?, residual: None });
    }
    let (per_group, groups) = if depthwise { (1, out) } else { (inputs, 1) };
    let conv = conv(out, per_group, kernel, stride, groups)?;
    nodes.push(Op::Conv { input: nodes.len() - 1, conv, residual: None });
    let taps = vec![Tap { node: nodes.len() - 1, stride: 1, channels: out }];
    Ok(Engine::with_precision(&Graph { nodes, taps }, precision)?)
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer with its input's 1x1 convolution");
    for (name, side, inputs, out, kernel, stride, depthwise) in LAYERS {
        for precision in [Precision::F32, Precision::Bf16] {
            let engine = engine(inputs, (out, kernel, stride, depthwise), precision).expect("the layers are valid");
            let image = vec![0.5; 3 * side * side];
            let operations = engine.multiply_adds(side, side).map_or(0, |n| 2 * n);
            group.throughput(Throughput::Elements(operations));
            group.bench_function(BenchmarkId::new(name, format!("{precision:?}")), |bench| {
                bench.iter(|| engine.run(black_box(&image), 1, side, side));
            });
        }
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);
