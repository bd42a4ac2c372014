//! The engine against definitions written as plain loops, for every instruction set of this processor.

use super::*;
use crate::graph::{Activation, Conv, Factors, Op, Padding, Tap};
use candle_core::{Device, Tensor};
use proptest::prelude::*;

/// Numbers in -1..1 that look random.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn tensor(shape: &[usize], seed: u64) -> Tensor {
    let scale = (2.0 / shape[1..].iter().product::<usize>().max(1) as f32).sqrt();
    let data: Vec<f32> = noise(shape.iter().product(), seed).into_iter().map(|x| x * scale).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

fn conv(shape: [usize; 3], stride: usize, padding: Padding, activation: Activation, seed: u64) -> Conv {
    let [out, per_group, kernel] = shape;
    let weight = tensor(&[out, per_group, kernel, kernel], seed);
    let groups = if per_group == 1 { out } else { 1 };
    Conv { weight, bias: tensor(&[out], seed + 1), stride, padding, groups, activation }
}

/// A channels-last map of `f64`.
#[derive(Clone)]
struct Plain {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f64>,
}

impl Plain {
    fn at(&self, y: isize, x: isize, c: usize) -> Option<f64> {
        let inside = (0..self.height as isize).contains(&y) && (0..self.width as isize).contains(&x);
        inside.then(|| self.data[(y as usize * self.width + x as usize) * self.channels + c])
    }

    fn build(height: usize, width: usize, channels: usize, f: impl Fn(usize, usize, usize) -> f64) -> Self {
        let (f, mut data) = (&f, Vec::new());
        for y in 0..height {
            for x in 0..width {
                data.extend((0..channels).map(|c| f(y, x, c)));
            }
        }
        Self { height, width, channels, data }
    }
}

fn act(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
    }
}

fn side(len: usize, kernel: usize, stride: usize, padding: Padding) -> (usize, usize) {
    match padding {
        Padding::Symmetric(p) => ((len + 2 * p - kernel) / stride + 1, p),
        Padding::Same => {
            let out = len.div_ceil(stride);
            (out, (((out - 1) * stride + kernel) as isize - len as isize).max(0) as usize / 2)
        }
    }
}

fn plain_conv(x: &Plain, conv: &Conv, residual: Option<&Plain>) -> Plain {
    let (out, per_group, k, _) = conv.weight.dims4().unwrap();
    let (w, b): (Vec<f32>, Vec<f32>) =
        (conv.weight.flatten_all().unwrap().to_vec1().unwrap(), conv.bias.to_vec1().unwrap());
    let (height, top) = side(x.height, k, conv.stride, conv.padding);
    let (width, left) = side(x.width, k, conv.stride, conv.padding);
    Plain::build(height, width, out, |oy, ox, o| {
        let mut sum = f64::from(b[o]);
        for i in 0..per_group {
            let c = if conv.groups == 1 { i } else { o };
            for ky in 0..k {
                for kx in 0..k {
                    let y = (oy * conv.stride + ky) as isize - top as isize;
                    let x_ = (ox * conv.stride + kx) as isize - left as isize;
                    sum += x.at(y, x_, c).unwrap_or(0.0) * f64::from(w[((o * per_group + i) * k + ky) * k + kx]);
                }
            }
        }
        act(sum + residual.map_or(0.0, |r| r.at(oy as isize, ox as isize, o).unwrap()), conv.activation)
    })
}

/// All nodes of a graph by definition.
fn plain(graph: &Graph, image: &[f32], height: usize, width: usize) -> Vec<Plain> {
    let mut values: Vec<Plain> = Vec::new();
    for op in &graph.nodes {
        let value = match op {
            Op::Input => Plain::build(height, width, 3, |y, x, c| f64::from(image[(c * height + y) * width + x])),
            Op::Conv { input, conv, residual } => plain_conv(&values[*input], conv, residual.map(|r| &values[r])),
            &Op::MaxPool { input, kernel, stride, padding } => {
                let x = &values[input];
                let (h, p) = side(x.height, kernel, stride, Padding::Symmetric(padding));
                let (w, _) = side(x.width, kernel, stride, Padding::Symmetric(padding));
                Plain::build(h, w, x.channels, |oy, ox, c| {
                    let mut best = f64::NEG_INFINITY;
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let at = |o: usize, k: usize| (o * stride + k) as isize - p as isize;
                            best = best.max(x.at(at(oy, ky), at(ox, kx), c).unwrap_or(f64::NEG_INFINITY));
                        }
                    }
                    best
                })
            }
            Op::Affine { input, factors: Factors { scale, shift }, activation } => {
                let x = &values[*input];
                let (a, b): (Vec<f32>, Vec<f32>) = (scale.to_vec1().unwrap(), shift.to_vec1().unwrap());
                Plain::build(x.height, x.width, x.channels, |y, x_, c| {
                    let value = x.at(y as isize, x_ as isize, c).unwrap();
                    act(value * f64::from(a[c]) + f64::from(b[c]), *activation)
                })
            }
        };
        values.push(value);
    }
    values
}

/// Runs the graph on every instruction set and compares every tap with the definition.
fn check(graph: &Graph, height: usize, width: usize) {
    let batch = 3;
    let images = noise(batch * 3 * height * width, 99);
    for set in InstructionSet::available() {
        let engine = Engine::with_instructions(graph, set, Precision::F32).unwrap();
        let maps = engine.run(&images, batch, height, width).unwrap();
        for (i, image) in images.chunks_exact(3 * height * width).enumerate() {
            let values = plain(graph, image, height, width);
            for (tap, map) in graph.taps.iter().zip(&maps) {
                let truth = &values[tap.node];
                assert_eq!((map.height, map.width, map.channels), (truth.height, truth.width, truth.channels));
                let ours = &map.data[i * truth.data.len()..][..truth.data.len()];
                // Terms of the sums are of order one, even where the outputs happen to be small.
                let peak = truth.data.iter().fold(0.3, |peak: f64, x| peak.max(x.abs()));
                for (at, (a, b)) in ours.iter().zip(&truth.data).enumerate() {
                    let gap = (f64::from(*a) - b).abs() / peak;
                    assert!(gap < 1e-5, "{set:?}, image {i}, node {}, number {at}: {a} for {b}", tap.node);
                }
            }
        }
    }
}

/// Runs a graph whose nodes 2 and 3 read node 1 with rounded numbers, on every instruction set, and compares these nodes with their
/// definition on the rounded weights and the rounded values that the engine itself gives for node 1.
fn check_rounded(graph: &Graph, height: usize, width: usize) {
    let rounded = |x: f32| half::bf16::from_f32(x).to_f32();
    let images = noise(3 * height * width, 99);
    for set in InstructionSet::available() {
        let engine = Engine::with_instructions(graph, set, Precision::Bf16).unwrap();
        let maps = engine.run(&images, 1, height, width).unwrap();
        let plain = |map: &TapMap, round: bool| {
            let data = map.data.iter().map(|&x| f64::from(if round { rounded(x) } else { x })).collect();
            Plain { height: map.height, width: map.width, channels: map.channels, data }
        };
        let input = plain(&maps[0], true);
        for (node, map) in [(2, &maps[1]), (3, &maps[2])] {
            let Op::Conv { conv, residual, .. } = &graph.nodes[node] else { unreachable!() };
            let shape = conv.weight.shape().clone();
            let weight = conv.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(rounded);
            let weight = Tensor::from_iter(weight, &Device::Cpu).unwrap().reshape(shape).unwrap();
            let residual = residual.map(|_| plain(&maps[1], false));
            let truth = plain_conv(&input, &Conv { weight, ..conv.clone() }, residual.as_ref());
            let peak = truth.data.iter().fold(0.3, |peak: f64, x| peak.max(x.abs()));
            for (at, (a, b)) in map.data.iter().zip(&truth.data).enumerate() {
                let gap = (f64::from(*a) - b).abs() / peak;
                assert!(gap < 1e-5, "{set:?}, node {node}, number {at}: {a} for {b}");
            }
        }
    }
}

fn tap(node: usize, channels: usize) -> Tap {
    Tap { node, stride: 1, channels }
}

/// Input, a convolution to `channels`, then `op` on it (node 2), all tapped.
fn after_stem(channels: usize, stem_kernel: usize, op: Op, out: usize) -> Graph {
    let stem = conv([channels, 3, stem_kernel], 1, Padding::Same, Activation::Identity, 5);
    let nodes = vec![Op::Input, Op::Conv { input: 0, conv: stem, residual: None }, op];
    Graph { nodes, taps: vec![tap(1, channels), tap(2, out)] }
}

fn activations() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::Identity), Just(Activation::Relu), Just(Activation::Relu6)]
}

fn paddings(kernel: usize) -> impl Strategy<Value = Padding> {
    prop_oneof![Just(Padding::Same), (0..=kernel / 2).prop_map(Padding::Symmetric)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn dense_convolutions_equal_the_definition(
        (kernel, padding) in prop_oneof![Just(1), Just(2), Just(3), Just(5), Just(7)].prop_flat_map(|k| (Just(k), paddings(k))),
        stride in 1usize..=3, inputs in 2usize..40, out in 2usize..150,
        height in 7usize..15, width in 7usize..23, activation in activations(), with_residual: bool,
    ) {
        let first = conv([out, inputs, kernel], stride, padding, activation, 7);
        let mut graph = after_stem(inputs, 3, Op::Conv { input: 1, conv: first, residual: None }, out);
        if with_residual {
            let second = conv([out, inputs, kernel], stride, padding, activation, 8);
            graph.nodes.push(Op::Conv { input: 1, conv: second, residual: Some(2) });
            graph.taps.push(tap(3, out));
        }
        check(&graph, height, width);
    }

    #[test]
    fn convolutions_by_winograds_method_equal_the_definition(
        padding in paddings(3), inputs in 32usize..60, out in 32usize..150,
        height in 3usize..15, width in 3usize..23, activation in activations(),
    ) {
        let first = conv([out, inputs, 3], 1, padding, activation, 7);
        let second = conv([out, inputs, 3], 1, padding, activation, 8);
        let mut graph = after_stem(inputs, 3, Op::Conv { input: 1, conv: first, residual: None }, out);
        graph.nodes.push(Op::Conv { input: 1, conv: second, residual: Some(2) });
        graph.taps.push(tap(3, out));
        check(&graph, height, width);
    }

    #[test]
    fn rounded_convolutions_equal_the_definition_on_rounded_numbers(
        (kernel, padding) in prop_oneof![Just(1), Just(3)].prop_flat_map(|k| (Just(k), paddings(k))),
        stride in 1usize..=2, inputs in 16usize..60, out in 2usize..150,
        height in 3usize..15, width in 3usize..23, activation in activations(), with_residual: bool,
    ) {
        // Winograd's method is not rounded.
        let stride = if kernel == 3 { 2 } else { stride };
        let first = conv([out, inputs, kernel], stride, padding, activation, 7);
        let residual = with_residual.then_some(2);
        let plain = conv([out, inputs, kernel], stride, padding, Activation::Identity, 8);
        let mut graph = after_stem(inputs, 1, Op::Conv { input: 1, conv: plain, residual: None }, out);
        graph.nodes.push(Op::Conv { input: 1, conv: first, residual });
        graph.taps.push(tap(3, out));
        check_rounded(&graph, height, width);
    }

    #[test]
    fn depthwise_convolutions_equal_the_definition(
        (kernel, padding) in prop_oneof![Just(1), Just(3), Just(5)].prop_flat_map(|k| (Just(k), paddings(k))),
        stride in 1usize..=3, channels in 2usize..70, height in 5usize..15, width in 5usize..23, activation in activations(),
    ) {
        let op = Op::Conv { input: 1, conv: conv([channels, 1, kernel], stride, padding, activation, 7), residual: None };
        check(&after_stem(channels, 1, op, channels), height, width);
    }

    #[test]
    fn pooling_and_affine_maps_equal_the_definition(
        kernel in 1usize..=3, stride in 1usize..=2, pad: bool, channels in 2usize..70,
        height in 3usize..15, width in 3usize..23, activation in activations(),
    ) {
        let op = Op::MaxPool { input: 1, kernel, stride, padding: if pad { kernel / 2 } else { 0 } };
        let mut graph = after_stem(channels, 1, op, channels);
        let (scale, shift) = (tensor(&[channels], 11), tensor(&[channels], 12));
        graph.nodes.push(Op::Affine { input: 2, factors: Factors { scale, shift }, activation });
        graph.taps.push(tap(3, channels));
        check(&graph, height, width);
    }
}

/// A small network with everything in it: residuals, strides, a projection, depthwise, pooling, affine.
fn network() -> Graph {
    let same = Padding::Same;
    let one = Padding::Symmetric(1);
    let relu = Activation::Relu;
    let dense = |input, shape, stride, padding, activation, residual, seed| Op::Conv {
        input,
        conv: conv(shape, stride, padding, activation, seed),
        residual,
    };
    let nodes = vec![
        Op::Input,
        dense(0, [36, 3, 7], 2, Padding::Symmetric(3), relu, None, 1),
        Op::MaxPool { input: 1, kernel: 3, stride: 2, padding: 1 },
        dense(2, [40, 36, 3], 1, one, relu, None, 2),
        dense(3, [36, 40, 3], 1, one, relu, Some(2), 3),
        dense(4, [70, 36, 3], 2, same, Activation::Relu6, None, 4),
        dense(4, [70, 36, 1], 2, Padding::Symmetric(0), Activation::Identity, None, 5),
        Op::Conv { input: 5, conv: conv([70, 1, 3], 1, one, Activation::Relu6, 6), residual: None },
        dense(7, [70, 70, 1], 1, one, relu, None, 7),
        dense(7, [70, 70, 1], 1, Padding::Symmetric(0), relu, Some(6), 7),
        Op::Affine {
            input: 9,
            factors: Factors { scale: tensor(&[70], 8), shift: tensor(&[70], 9) },
            activation: relu,
        },
    ];
    // Node 4 has a halo, node 9 is read on, node 10 is tapped twice, node 8 is not needed.
    Graph { nodes, taps: vec![tap(4, 36), tap(9, 70), tap(10, 70), tap(10, 70)] }
}

#[test]
fn a_network_equals_the_definition_at_any_size() {
    for (height, width) in [(64, 64), (33, 57), (1, 1), (2, 31)] {
        check(&network(), height, width);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_batch() {
    let (height, width, batch) = (65, 96, 5);
    let images = noise(batch * 3 * height * width, 3);
    let precisions = [Precision::F32, Precision::Bf16];
    let kinds = InstructionSet::available().into_iter().flat_map(|set| precisions.map(|precision| (set, precision)));
    for (set, precision) in kinds {
        let engine = Engine::with_instructions(&network(), set, precision).unwrap();
        let run = |threads: usize, images: &[f32], batch: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| engine.run(images, batch, height, width).unwrap())
        };
        let truth = run(1, &images, batch);
        for threads in [1, 2, 3, 4] {
            for repeat in 0..3 {
                let all = run(threads, &images, batch);
                let first = run(threads, &images[..3 * height * width], 1);
                for ((all, first), truth) in all.iter().zip(&first).zip(&truth) {
                    assert!(all.data == truth.data, "{set:?}, {precision:?}, {threads} threads, repetition {repeat}");
                    assert!(
                        first.data == truth.data[..first.data.len()],
                        "{set:?}, {precision:?}, {threads} threads, batch 1"
                    );
                }
            }
        }
    }
}

#[test]
fn faults_are_named() {
    let engine = Engine::new(&network()).unwrap();
    let error = |batch, height, width, len| engine.run(&vec![0.0; len], batch, height, width).unwrap_err().to_string();
    assert_eq!(error(2, 8, 8, 5), "5 numbers are not 2 images of 3 x 8 x 8");
    assert!(error(1, 0, 8, 0).contains("sides must be"));
    assert!(error(1, 8, 1 << 20, 0).contains("sides must be"));
    let unpadded = conv([8, 3, 5], 1, Padding::Symmetric(0), Activation::Relu, 1);
    let nodes = vec![Op::Input, Op::Conv { input: 0, conv: unpadded, residual: None }];
    let small = Engine::new(&Graph { nodes: nodes.clone(), taps: vec![tap(1, 8)] }).unwrap();
    assert!(small.run(&[0.0; 48], 1, 4, 4).unwrap_err().to_string().contains("nothing is left at node 1"));
    let wrong = |taps, op| Engine::new(&Graph { nodes: [nodes.clone(), op].concat(), taps }).unwrap_err().to_string();
    assert!(wrong(vec![tap(1, 9)], vec![]).contains("node 1"));
    assert!(wrong(vec![tap(7, 9)], vec![]).contains("node 7"));
    let pool = |input, padding| Op::MaxPool { input, kernel: 2, stride: 1, padding };
    assert!(wrong(vec![], vec![pool(2, 0)]).contains("reads node 2"));
    assert!(wrong(vec![], vec![pool(1, 2)]).contains("padding 2"));
    assert!(wrong(vec![], vec![Op::Input]).contains("node 2"));
    let narrow = conv([8, 4, 1], 1, Padding::Same, Activation::Relu, 1);
    assert!(wrong(vec![], vec![Op::Conv { input: 1, conv: narrow, residual: None }]).contains("8 channels"));
    for (stride, padding) in [(1 << 57, 0), (1, 1 << 60)] {
        let conv = conv([8, 8, 1], stride, Padding::Symmetric(padding), Activation::Relu, 1);
        assert!(wrong(vec![], vec![Op::Conv { input: 1, conv, residual: None }]).contains("above 1024"));
    }
    assert!(wrong(vec![], vec![pool(1, 1 << 60)]).contains("above 1024"));
}

#[test]
fn multiply_adds_beyond_32_bits_are_counted() {
    let dense = |input, inputs, seed| {
        let conv = conv([2048, inputs, 1], 1, Padding::Same, Activation::Relu, seed);
        Op::Conv { input, conv, residual: None }
    };
    let graph = Graph { nodes: vec![Op::Input, dense(0, 3, 1), dense(1, 2048, 2)], taps: vec![tap(2, 2048)] };
    // The maps themselves are few enough numbers for 32 bits.
    let found = Engine::new(&graph).unwrap().multiply_adds(240, 256).unwrap();
    assert_eq!(found, 240 * 256 * 2048 * 2051);
}

#[test]
fn an_empty_batch_gives_empty_maps() {
    let maps = Engine::new(&network()).unwrap().run(&[], 0, 32, 32).unwrap();
    assert!(maps.len() == 4 && maps.iter().all(|map| map.data.is_empty()));
}
