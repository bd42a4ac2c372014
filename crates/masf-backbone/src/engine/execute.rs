//! Runs a plan: one image over all threads of the pool, or several images at a time, one per thread.
#![allow(unsafe_code)]

use super::kernels::{self, Spans};
use super::layout::Map;
use super::memory::{Aligned, Span};
use super::pack::{ConvWeights, PackedConv, PackedFactors, PackedGraph};
use super::plan::{Buffer, Phase, Place, Plan, Work};
use super::region;
use crate::graph::Op;
use std::ops::Range;

/// Where one image's values lie while its phases run.
struct Buffers {
    arena: Span,
    taps: Vec<Span>,
}

impl Buffers {
    fn span(&self, place: &Place) -> Span {
        let buffer = match place.buffer {
            Buffer::Arena => self.arena,
            Buffer::Tap(tap) => self.taps[tap],
        };
        buffer.part(place.start, place.map.len())
    }

    fn spans(&self, input: &Place, residual: Option<&Place>, output: Span) -> Spans {
        Spans { input: self.span(input), residual: residual.map(|place| self.span(place)), output }
    }
}

/// Computes the taps of one image.
///
/// `image` is `[3, H, W]` of the plan's size, `taps` one `[h, w, C]` slice per tap. With `shared`, the threads of the current
/// rayon pool take part; the numbers do not depend on it.
pub(crate) fn run(
    graph: &PackedGraph,
    plan: &Plan,
    image: &[f32],
    arena: &mut Aligned,
    taps: &mut [&mut [f32]],
    shared: bool,
) {
    assert!(
        taps.len() == plan.taps.len()
            && taps.iter().zip(&plan.taps).all(|(t, s)| t.len() == s.iter().product::<usize>())
    );
    let buffers =
        Buffers { arena: Span::of(arena.as_mut_slice()), taps: taps.iter_mut().map(|tap| Span::of(tap)).collect() };
    let task = |phase: usize, index: usize| {
        // SAFETY: `buffers` covers buffers that are borrowed exclusively for the whole call; the region runs every
        // task of a phase once, and starts a phase when the one before has ended.
        unsafe { run_task(graph, &plan.phases[phase], image, &buffers, index) }
    };
    if shared {
        region::run(&plan.tasks, &task);
    } else {
        region::run_alone(&plan.tasks, &task);
    }
}

/// Part `index` of `0..len` cut into `count` nearly equal parts.
fn part(len: usize, index: usize, count: usize) -> Range<usize> {
    index * len / count..(index + 1) * len / count
}

/// Runs one task.
///
/// # Safety
///
/// The buffers live, and are accessed meanwhile by tasks of the same phase with another index only. (Those write other
/// pixels or channels: tasks are disjoint ranges. Inputs and output of a phase are different places: a place is
/// given back after its last reader's phase was added.)
unsafe fn run_task(graph: &PackedGraph, phase: &Phase, image: &[f32], buffers: &Buffers, index: usize) {
    let map = &phase.output.map;
    let output = buffers.span(&phase.output);
    let rows = part(map.height, index, phase.tasks);
    if index == 0 {
        // SAFETY: no other task of the phase touches the halo, nor this one anything else here.
        unsafe { clear_halo(map, output) };
    }
    // SAFETY (all blocks below): see above.
    match (&phase.work, &graph.nodes[phase.node]) {
        (Work::Load, _) => unsafe { load(image, map, output, rows) },
        (Work::Copy { input }, _) => unsafe { copy(&input.map, buffers.span(input), map, output, rows) },
        (
            Work::Dense { geometry, input, residual, blocks, groups },
            Op::Conv { conv: PackedConv { weights: ConvWeights::Direct(weights), .. }, .. },
        ) => {
            let pixels = part(map.height * map.width, index / groups, *blocks);
            let panels = part(weights.panels.len(), index % groups, *groups);
            let spans = buffers.spans(input, residual.as_ref(), output);
            unsafe { kernels::conv(graph.set, geometry, weights, spans, panels, pixels) }
        }
        (
            Work::Winograd { geometry, input, residual, blocks, groups },
            Op::Conv { conv: PackedConv { weights: ConvWeights::Winograd(weights), .. }, .. },
        ) => {
            let (rows, columns) = geometry.tiles();
            let tiles = part(rows * columns, index / groups, *blocks);
            let panels = part(weights.panels.len(), index % groups, *groups);
            let spans = buffers.spans(input, residual.as_ref(), output);
            unsafe { kernels::winograd(graph.set, geometry, weights, spans, panels, tiles) }
        }
        (
            Work::Depthwise { geometry, input },
            Op::Conv { conv: PackedConv { weights: ConvWeights::Depthwise(weights), .. }, .. },
        ) => unsafe { kernels::depthwise(graph.set, geometry, weights, (buffers.span(input), output), rows) },
        (Work::MaxPool { geometry, input }, _) => unsafe {
            kernels::max_pool(graph.set, geometry, (buffers.span(input), output), rows);
        },
        (Work::Affine { geometry, input }, Op::Affine { factors: PackedFactors { scale, shift }, .. }) => unsafe {
            kernels::affine(graph.set, geometry, (scale, shift), (buffers.span(input), output), rows);
        },
        _ => unreachable!("a phase is made from its node"),
    }
}

/// Sets the halo to zero.
///
/// # Safety
///
/// Nobody else accesses the halo meanwhile.
unsafe fn clear_halo(map: &Map, span: Span) {
    let pitch = map.pitch();
    let (left, right) = (map.halo.left * map.channels, map.halo.right * map.channels);
    let rows = map.halo.top + map.height + map.halo.bottom;
    let clear = |start: usize, len: usize| {
        // SAFETY: the stretch is part of the halo.
        unsafe { span.part(start, len).write() }.fill(0.0);
    };
    clear(0, map.halo.top * pitch);
    clear((rows - map.halo.bottom) * pitch, map.halo.bottom * pitch);
    for y in map.halo.top..map.halo.top + map.height {
        clear(y * pitch, left);
        clear((y + 1) * pitch - right, right);
    }
}

/// `[3, H, W]` to channels-last.
///
/// # Safety
///
/// Nobody else accesses these rows meanwhile.
unsafe fn load(image: &[f32], map: &Map, output: Span, rows: Range<usize>) {
    let (plane, origin) = (map.height * map.width, map.origin(0, 0, 1));
    let (red, rest) = image.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    for y in rows {
        // SAFETY: the inside of row `y`, which is this task's.
        let row = unsafe { output.part(origin.start + y * origin.steps.row, map.width * 3).write() };
        let at = y * map.width..(y + 1) * map.width;
        let planes = red[at.clone()].iter().zip(&green[at.clone()]).zip(&blue[at]);
        for (pixel, ((&r, &g), &b)) in row.chunks_exact_mut(3).zip(planes) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    }
}

/// The inside of a map, without its halo.
///
/// # Safety
///
/// Nobody else accesses these rows of the output, or writes the input, meanwhile.
unsafe fn copy(from: &Map, input: Span, to: &Map, output: Span, rows: Range<usize>) {
    let (source, target) = (from.origin(0, 0, 1), to.origin(0, 0, 1));
    let len = to.width * to.channels;
    for y in rows {
        // SAFETY: row `y` of either map, inside the halo.
        unsafe {
            let row = input.part(source.start + y * source.steps.row, len).read();
            output.part(target.start + y * target.steps.row, len).write().copy_from_slice(row);
        }
    }
}
