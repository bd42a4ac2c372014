//! A packed network made ready for one image size: shapes, halos, places in the arena, and how each layer is cut into
//! tasks.

use super::error::EngineError;
use super::kernels::{ConvGeometry, DepthwiseGeometry, Frame, Origin, PATCH, PoolGeometry, TILE, WinogradGeometry};
use super::layout::{Arranger, Halo, Map};
use super::pack::{ConvWeights, PackedConv, PackedGraph, Window};
use crate::graph::{Activation, NodeId, Op, Padding};

/// Largest side of an image, in pixels; keeps lengths far from overflow. Numbers of operations are counted in 64 bits.
const MAX_SIDE: usize = 16_384;

/// Which buffer a value lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// The arena.
    Arena,
    /// The result of a tap.
    Tap(usize),
}

/// A value's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) buffer: Buffer,
    pub(crate) start: usize,
    pub(crate) map: Map,
}

/// What a phase computes.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Image `[3, H, W]` to channels-last.
    Load,
    /// Tasks are blocks of pixels times groups of panels.
    Dense {
        geometry: ConvGeometry,
        input: Place,
        residual: Option<Place>,
        blocks: usize,
        groups: usize,
    },
    /// Tasks are blocks of tiles times groups of panels.
    Winograd {
        geometry: WinogradGeometry,
        input: Place,
        residual: Option<Place>,
        blocks: usize,
        groups: usize,
    },
    Depthwise {
        geometry: DepthwiseGeometry,
        input: Place,
    },
    MaxPool {
        geometry: PoolGeometry,
        input: Place,
    },
    Affine {
        geometry: Frame,
        input: Place,
    },
    /// A tap whose value has a halo, or that repeats another.
    Copy {
        input: Place,
    },
}

/// One layer.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// The node computed (for its weights).
    pub(crate) node: NodeId,
    pub(crate) work: Work,
    pub(crate) output: Place,
    pub(crate) tasks: usize,
}

/// All layers for one image size.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) phases: Vec<Phase>,
    /// Tasks of each phase.
    pub(crate) tasks: Vec<usize>,
    /// Numbers in the arena.
    pub(crate) arena: usize,
    /// Height, width and channels of each tap.
    pub(crate) taps: Vec<[usize; 3]>,
    /// Multiply-adds of the dense and depthwise convolutions.
    pub(crate) multiply_adds: u64,
}

/// Side of a convolution's output, and the padding before and after.
fn window_along(window: &Window, len: usize) -> Option<(usize, usize, usize)> {
    let (out, before) = match window.padding {
        Padding::Symmetric(padding) => ((len + 2 * padding).checked_sub(window.kernel)? / window.stride + 1, padding),
        Padding::Same => {
            let out = len.div_ceil(window.stride);
            (out, ((out - 1) * window.stride + window.kernel).saturating_sub(len) / 2)
        }
    };
    let after = ((out - 1) * window.stride + window.kernel).saturating_sub(before + len);
    Some((out, before, after))
}

/// Bounds of the final clamp.
fn bounds(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::Identity => (f32::NEG_INFINITY, f32::INFINITY),
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
    }
}

/// Tasks for work that takes about so many nanoseconds on one core: enough to share, few enough that starting them does
/// not count.
fn task_count(nanoseconds: u64, most: usize) -> usize {
    ((nanoseconds / TASK_NANOSECONDS).clamp(1, MAX_TASKS) as usize).min(most)
}

const TASK_NANOSECONDS: u64 = 15_000;
const MAX_TASKS: u64 = 64;

/// Tiles per block of a convolution by Winograd's method: the transformed patches and products stay in the second-level cache.
const BLOCK_TILES: usize = 16;

/// Most groups of panels of a convolution by Winograd's method.
const MAX_GROUPS: usize = 4;

/// Numbers of the input that the tiles of one task read again for every panel: half of a common second-level cache.
const BLOCK_NUMBERS: usize = 128 * 1024;

impl Plan {
    /// Lays the network out for images of `height x width`.
    pub(crate) fn new(graph: &PackedGraph, height: usize, width: usize) -> Result<Self, EngineError> {
        let fault = |what: String| EngineError::ImageSize { height, width, what };
        if height == 0 || width == 0 || height > MAX_SIDE || width > MAX_SIDE {
            return Err(fault(format!("sides must be 1 to {MAX_SIDE}")));
        }
        let needed = needed(graph);
        let maps = maps(graph, &needed, height, width)?;
        // The bytes of all together can be counted.
        if maps.iter().map(Map::len).fold(0, usize::saturating_add) > isize::MAX as usize / 8 {
            return Err(fault("the network's maps are too large".into()));
        }
        let mut builder =
            Builder { graph, maps, places: vec![None; graph.nodes.len()], phases: Vec::new(), multiply_adds: 0 };
        let arena = builder.build(&needed);
        let taps = graph.taps.iter().map(|tap| {
            let map = builder.maps[tap.node];
            [map.height, map.width, map.channels]
        });
        Ok(Self {
            taps: taps.collect(),
            tasks: builder.phases.iter().map(|phase| phase.tasks).collect(),
            phases: builder.phases,
            arena,
            multiply_adds: builder.multiply_adds,
        })
    }
}

/// The nodes that a tap depends on.
fn needed(graph: &PackedGraph) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    graph.taps.iter().for_each(|tap| needed[tap.node] = true);
    for node in (0..graph.nodes.len()).rev() {
        if needed[node] {
            graph.nodes[node].inputs().for_each(|input| needed[input] = true);
        }
    }
    needed
}

/// Every node's shape, and the halo that its readers need.
fn maps(graph: &PackedGraph, needed: &[bool], height: usize, width: usize) -> Result<Vec<Map>, EngineError> {
    let mut maps: Vec<Map> = Vec::with_capacity(graph.nodes.len());
    for (node, op) in graph.nodes.iter().enumerate() {
        let channels = graph.channels[node];
        let map = |height, width| Map { height, width, channels, halo: Halo::default() };
        let vanishes = || EngineError::ImageSize { height, width, what: format!("nothing is left at node {node}") };
        let output = match op {
            Op::Input => map(height, width),
            Op::Affine { input, .. } => map(maps[*input].height, maps[*input].width),
            &Op::MaxPool { input, kernel, stride, padding } => {
                let window = Window { kernel, stride, padding: Padding::Symmetric(padding) };
                let (h, ..) = window_along(&window, maps[input].height).ok_or_else(vanishes)?;
                let (w, ..) = window_along(&window, maps[input].width).ok_or_else(vanishes)?;
                map(h, w)
            }
            Op::Conv { input, conv: PackedConv { window, weights, .. }, .. } => {
                let source = &mut maps[*input];
                let (h, top, mut bottom) = window_along(window, source.height).ok_or_else(vanishes)?;
                let (w, left, mut right) = window_along(window, source.width).ok_or_else(vanishes)?;
                if matches!(weights, ConvWeights::Winograd(_)) {
                    // Whole tiles are read.
                    bottom = (h.next_multiple_of(TILE) + 2).saturating_sub(top + source.height);
                    right = (w.next_multiple_of(TILE) + 2).saturating_sub(left + source.width);
                }
                if needed[node] {
                    source.halo = source.halo.union(Halo { top, left, bottom, right });
                }
                map(h, w)
            }
        };
        if let Op::Conv { residual: Some(residual), .. } = op
            && (maps[*residual].height, maps[*residual].width) != (output.height, output.width)
        {
            let (h, w) = (maps[*residual].height, maps[*residual].width);
            let what = format!("the residual is {h} x {w}, the output {} x {}", output.height, output.width);
            return Err(EngineError::Graph { node, what });
        }
        maps.push(output);
    }
    Ok(maps)
}

struct Builder<'a> {
    graph: &'a PackedGraph,
    maps: Vec<Map>,
    places: Vec<Option<Place>>,
    phases: Vec<Phase>,
    multiply_adds: u64,
}

impl Builder<'_> {
    /// Adds all phases; the arena's size.
    fn build(&mut self, needed: &[bool]) -> usize {
        let nodes = self.graph.nodes.len();
        let mut last_reader: Vec<usize> = (0..nodes).collect();
        for node in (0..nodes).filter(|&node| needed[node]) {
            self.graph.nodes[node].inputs().for_each(|input| last_reader[input] = node);
        }
        let mut arranger = Arranger::default();
        for node in (0..nodes).filter(|&node| needed[node]) {
            let map = self.maps[node];
            let mut taps = (0..self.graph.taps.len()).filter(|&i| self.graph.taps[i].node == node).peekable();
            // A tap without halo is computed where the caller gets it, and read from there.
            let direct = taps.peek().copied().filter(|_| map.halo.is_none());
            let output = match direct {
                Some(tap) => Place { buffer: Buffer::Tap(tap), start: 0, map },
                None => Place { buffer: Buffer::Arena, start: arranger.take(map.len()), map },
            };
            self.places[node] = Some(output);
            self.add(node, output);
            for tap in taps.filter(|&tap| Some(tap) != direct) {
                let target = Map { halo: Halo::default(), ..map };
                let target = Place { buffer: Buffer::Tap(tap), start: 0, map: target };
                let tasks = task_count(map.len() as u64 / 2, map.height);
                self.phases.push(Phase { node, work: Work::Copy { input: output }, output: target, tasks });
            }
            for input in (0..=node).filter(|&input| last_reader[input] == node) {
                if let Some(Place { buffer: Buffer::Arena, start, .. }) = self.places[input] {
                    arranger.give_back(start);
                }
            }
        }
        arranger.size()
    }

    /// Where an earlier node's value lies.
    fn place(&self, node: NodeId) -> Place {
        self.places[node].unwrap_or_else(|| unreachable!("nodes come after what they read"))
    }

    fn add(&mut self, node: NodeId, output: Place) {
        let map = output.map;
        let (height, width, channels) = (map.height, map.width, map.channels);
        let pixels = (height * width) as u64;
        let outputs = pixels * channels as u64;
        let frame = |input: Origin, residual: Option<Place>, activation: Activation| {
            let (low, high) = bounds(activation);
            let residual = residual.map(|place| place.map.origin(0, 0, 1));
            Frame { input, output: map.origin(0, 0, 1), residual, height, width, low, high }
        };
        let (work, tasks) = match &self.graph.nodes[node] {
            Op::Input => (Work::Load, task_count(pixels * 2, height)),
            Op::Conv { input, conv, residual } => {
                let input = self.place(*input);
                let residual = residual.map(|residual| self.place(residual));
                let frame = frame(window_origin(&input.map, &conv.window), residual, conv.activation);
                let (work, tasks, multiply_adds) = conv_work(conv, frame, input, residual, channels);
                self.multiply_adds += multiply_adds;
                (work, tasks)
            }
            &Op::MaxPool { input, kernel, stride, padding } => {
                let input = self.place(input);
                let (input_height, input_width) = (input.map.height, input.map.width);
                let frame = frame(input.map.origin(0, 0, 1), None, Activation::Identity);
                let geometry = PoolGeometry { frame, input_height, input_width, kernel, stride, padding, channels };
                (Work::MaxPool { geometry, input }, task_count(outputs * (kernel * kernel) as u64 / 20, height))
            }
            Op::Affine { input, activation, .. } => {
                let input = self.place(*input);
                let geometry = frame(input.map.origin(0, 0, 1), None, *activation);
                (Work::Affine { geometry, input }, task_count(outputs / 3, height))
            }
        };
        self.phases.push(Phase { node, work, output, tasks });
    }
}

/// How a convolution is computed and cut: the work, its tasks, and the multiply-adds of the direct method.
fn conv_work(
    conv: &PackedConv,
    frame: Frame,
    input: Place,
    residual: Option<Place>,
    channels: usize,
) -> (Work, usize, u64) {
    let pixels = frame.height * frame.width;
    let outputs = pixels as u64 * channels as u64;
    match &conv.weights {
        ConvWeights::Direct(weights) => {
            let geometry = ConvGeometry {
                frame,
                runs: conv.window.kernel,
                run_len: conv.window.kernel * input.map.channels,
                run_pitch: input.map.pitch(),
            };
            let nanoseconds = outputs * weights.depth as u64 / 50;
            let (panels, weights) = (weights.panels.len(), weights.data.as_slice().len());
            let (blocks, groups) = cut(nanoseconds, pixels, input.map.len(), panels, weights);
            let multiply_adds = outputs * (geometry.runs * geometry.run_len) as u64;
            (Work::Dense { geometry, input, residual, blocks, groups }, blocks * groups, multiply_adds)
        }
        ConvWeights::Winograd(weights) => {
            let geometry = WinogradGeometry { frame };
            let (rows, columns) = geometry.tiles();
            let blocks = (rows * columns).div_ceil(BLOCK_TILES);
            // The patches are transformed once per group, so there are only as many as it takes to share the work.
            let products = (rows * columns * PATCH * PATCH) as u64 * weights.depth as u64;
            let nanoseconds = products * channels as u64 / 50;
            let wanted = task_count(nanoseconds, usize::MAX);
            let groups = wanted.div_ceil(blocks).min(MAX_GROUPS).min(weights.panels.len());
            let multiply_adds = outputs * 9 * weights.depth as u64;
            (Work::Winograd { geometry, input, residual, blocks, groups }, blocks * groups, multiply_adds)
        }
        ConvWeights::Depthwise(weights) => {
            let geometry = DepthwiseGeometry { frame, taps: input.map.origin(0, 0, 1).steps };
            let multiply_adds = outputs * (weights.kernel * weights.kernel) as u64;
            (Work::Depthwise { geometry, input }, task_count(multiply_adds / 20, frame.height), multiply_adds)
        }
    }
}

/// The window of the first output pixel. The map's halo is at least its padding.
fn window_origin(map: &Map, window: &Window) -> Origin {
    let before = |len| window_along(window, len).map_or(0, |(_, before, _)| before);
    map.origin(before(map.height), before(map.width), window.stride)
}

/// Into how many blocks of pixels and groups of panels a dense convolution is cut.
///
/// Every block reads all weights of its group, and every group all pixels of its block; a block's pixels should stay in
/// the second-level cache while the panels pass. What is then left to share out goes to the smaller traffic.
fn cut(nanoseconds: u64, pixels: usize, input: usize, panels: usize, weights: usize) -> (usize, usize) {
    let wanted = task_count(nanoseconds, usize::MAX);
    let mut blocks = if panels > 1 { input.div_ceil(BLOCK_NUMBERS) } else { 1 };
    let mut groups = 1;
    while blocks * groups < wanted {
        // One more cut of either kind reads the other operand once more.
        if groups * 2 <= panels && groups * input <= blocks * weights {
            groups *= 2;
        } else if blocks * 2 * MIN_BLOCK <= pixels {
            blocks *= 2;
        } else if groups * 2 <= panels {
            groups *= 2;
        } else {
            break;
        }
    }
    (blocks, groups)
}

/// Fewest pixels per block: two full tiles of the widest panel.
const MIN_BLOCK: usize = 12;
