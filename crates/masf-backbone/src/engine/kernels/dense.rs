//! Entry points of the dense convolutions, direct and by Winograd's method.

#[cfg(target_arch = "x86_64")]
use super::avx512bf16::Avx512Bf16;
use super::conv::{self, ConvCall, PanelRef};
use super::rounding::{Rounding, Target};
use super::simd::Simd;
use super::winograd::{InputPatch, OutputTile, PRODUCTS, TILE};
use super::{Frame, InstructionSet, Kept, Operands, Steps, dispatch};
use crate::engine::memory::{Aligned, LINE, Span};
use crate::engine::pack::DenseWeights;
use std::cell::RefCell;
use std::ops::Range;

/// What a dense convolution reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Spans {
    pub(crate) input: Span,
    pub(crate) residual: Option<Span>,
    pub(crate) output: Span,
}

/// Geometry of a dense convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvGeometry {
    pub(crate) frame: Frame,
    /// Runs per window, numbers per run, distance between runs.
    pub(crate) runs: usize,
    pub(crate) run_len: usize,
    pub(crate) run_pitch: usize,
}

/// Computes some pixels (row-major) of some panels (output channels) of a convolution.
///
/// # Safety
///
/// No other thread accesses these outputs, or writes the input or the residual, during the call.
///
/// # Panics
///
/// If the geometry leaves a span or does not fit the weights, which the planner excludes.
pub(crate) unsafe fn conv(
    set: InstructionSet,
    geometry: &ConvGeometry,
    weights: &DenseWeights,
    spans: Spans,
    panels: Range<usize>,
    pixels: Range<usize>,
) {
    let ConvGeometry { frame, runs, run_len, run_pitch } = *geometry;
    let Spans { input, residual, output } = spans;
    assert!(weights.operands.elements(runs * run_len) == weights.depth && weights.set == set);
    assert!(pixels.end <= frame.height * frame.width && panels.end <= weights.panels.len());
    frame.check_input((runs - 1) * run_pitch + run_len, input);
    frame.check_output(weights.channels, residual, output);
    let (residual, residual_steps) = frame.residual(residual, (0, 0), 0);
    let call = ConvCall {
        input: input.at(frame.input.start),
        input_steps: frame.input.steps,
        skipped: 0,
        runs,
        run_len,
        run_pitch,
        output: output.at(frame.output.start),
        output_steps: frame.output.steps,
        residual,
        residual_steps,
        width: frame.width,
        low: frame.low,
        high: frame.high,
    };
    if weights.operands == Operands(Kept::Whole) {
        // SAFETY: the assertions cover the last window, output and residual, and all others come before them; the caller
        // promises exclusion.
        return unsafe { each_panel(&call, weights, panels, pixels) };
    }
    let pitch = weights.depth;
    SCRATCH.with_borrow_mut(|scratch| {
        let windows = scratch_of(scratch, ROUNDED_PIXELS * pitch);
        for first in pixels.clone().step_by(ROUNDED_PIXELS) {
            let end = pixels.end.min(first + ROUNDED_PIXELS);
            for pixel in first..end {
                // SAFETY: the windows of these pixels are inside the input; the scratch is this thread's, and has `pitch`
                // elements for each.
                unsafe { round_window(set, &call, weights.operands, pixel, windows.at((pixel - first) * pitch)) };
            }
            let call = ConvCall {
                input: windows.at(0),
                input_steps: Steps { row: frame.width * pitch, pixel: pitch },
                skipped: first * pitch,
                runs: 1,
                run_len: pitch,
                run_pitch: 0,
                ..call
            };
            // SAFETY: as above, for the windows in the scratch.
            unsafe { each_panel(&call, weights, panels.clone(), first..end) };
        }
    });
}

/// Pixels whose windows are rounded together, before the panels pass: their windows stay in the second-level cache.
const ROUNDED_PIXELS: usize = 96;

/// `len` numbers of the scratch.
fn scratch_of(scratch: &mut Aligned, len: usize) -> Span {
    if scratch.as_slice().len() < len {
        *scratch = Aligned::zeros(len);
    }
    Span::of(&mut scratch.as_mut_slice()[..len])
}

/// Converts the window of an output pixel to elements.
///
/// # Safety
///
/// The window lies inside the input, and `elements` has room for it; nobody else accesses that.
unsafe fn round_window(set: InstructionSet, call: &ConvCall, operands: Operands, pixel: usize, elements: *mut f32) {
    let window = call.input_steps.at(pixel / call.width, pixel % call.width);
    // SAFETY: runs of the window, one after another, are as many numbers as the elements hold; `set` is present.
    unsafe {
        for run in 0..call.runs {
            let input = call.input.add(window + run * call.run_pitch);
            let output = match operands.0 {
                #[cfg(target_arch = "x86_64")]
                Kept::Pairs => Target::Bf16(elements.cast::<u16>().add(run * call.run_len)),
                _ => Target::F32(elements.add(run * call.run_len)),
            };
            let rounding = Rounding { input, len: call.run_len, output };
            dispatch!(set, S => S::round(&rounding));
        }
        #[cfg(target_arch = "x86_64")]
        if operands.0 == Kept::Pairs && (call.runs * call.run_len) % 2 == 1 {
            elements.cast::<u16>().add(call.runs * call.run_len).write(0);
        }
    }
}

/// Computes output pixels of some panels.
///
/// # Safety
///
/// All windows, outputs and residuals of the pixels lie inside their allocations; no other thread accesses these outputs, or writes
/// what is read.
unsafe fn each_panel(call: &ConvCall, weights: &DenseWeights, panels: Range<usize>, pixels: Range<usize>) {
    let set = weights.set;
    for panel in &weights.panels[panels] {
        let lanes = panel.vectors * set.lanes();
        let panel = PanelRef {
            weights: weights.data.as_slice()[panel.start..panel.start + weights.depth * lanes].as_ptr(),
            bias: weights.bias.as_slice()[panel.channel..panel.channel + lanes].as_ptr(),
            channel: panel.channel,
            vectors: panel.vectors,
            last: set.lanes().min(weights.channels - panel.channel - (panel.vectors - 1) * set.lanes()),
        };
        // SAFETY: `set` exists only for instruction sets that are present, and pairs only where AVX512-BF16 is; the panel's
        // data were sliced; the rest is the caller's promise.
        unsafe {
            match weights.operands.0 {
                #[cfg(target_arch = "x86_64")]
                Kept::Pairs => conv::panel::<Avx512Bf16>(call, &panel, pixels.start, pixels.end),
                _ => dispatch!(set, S => conv::panel::<S>(call, &panel, pixels.start, pixels.end)),
            }
        }
    }
}

/// Geometry of a 3x3 convolution with stride 1, computed by Winograd's method in tiles of `TILE x TILE` outputs. The steps of the
/// input are those of its pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WinogradGeometry {
    pub(crate) frame: Frame,
}

impl WinogradGeometry {
    /// Rows and columns of tiles.
    pub(crate) fn tiles(&self) -> (usize, usize) {
        (self.frame.height.div_ceil(TILE), self.frame.width.div_ceil(TILE))
    }
}

thread_local! {
    /// Transformed patches and products, or rounded windows, of one task; stays for the next one.
    static SCRATCH: RefCell<Aligned> = RefCell::default();
}

/// Computes some tiles (row-major) of some panels (output channels) of a convolution by Winograd's method.
///
/// # Safety
///
/// No other thread accesses these outputs, or writes the input or the residual, during the call.
///
/// # Panics
///
/// If the geometry leaves a span or does not fit the weights, which the planner excludes.
pub(crate) unsafe fn winograd(
    set: InstructionSet,
    geometry: &WinogradGeometry,
    weights: &DenseWeights,
    spans: Spans,
    panels: Range<usize>,
    tiles: Range<usize>,
) {
    let g = &geometry.frame;
    let Spans { input, residual, output } = spans;
    let (rows, columns) = geometry.tiles();
    let (lanes, depth, count) = (set.lanes(), weights.depth, tiles.len());
    assert!(weights.set == set && g.input.steps.pixel == depth);
    assert!(tiles.end <= rows * columns && panels.end <= weights.panels.len());
    assert!(g.input.end(rows * TILE + 2, columns * TILE + 2, depth) <= input.len());
    g.check_output(weights.channels, residual, output);
    // A line more than the data between the 36 matrices: at a multiple of 4096 bytes they would share cache sets.
    let widest = weights.panels.iter().map(|panel| panel.vectors).max().unwrap_or(0) * lanes;
    let (pitch, product_pitch) = ((count * depth).next_multiple_of(LINE) + LINE, count * widest + LINE);
    SCRATCH.with_borrow_mut(|scratch| {
        let scratch = scratch_of(scratch, PRODUCTS * (pitch + product_pitch));
        let patches = scratch.part(0, PRODUCTS * pitch);
        let products = scratch.part(PRODUCTS * pitch, PRODUCTS * product_pitch);
        for (i, tile) in tiles.clone().enumerate() {
            let (y, x) = (tile / columns * TILE, tile % columns * TILE);
            let patch = InputPatch {
                input: input.at(g.input.start + g.input.steps.at(y, x)),
                steps: g.input.steps,
                channels: depth,
                output: patches.at(i * depth),
                pitch,
            };
            // SAFETY: as in `conv`; the assertions cover the last tile's patch, and the scratch is this thread's.
            dispatch!(set, S => unsafe { S::winograd_input(&patch) });
        }
        let zeros = [0.0; 4 * LINE];
        assert!(widest <= zeros.len());
        for panel in &weights.panels[panels] {
            let width = panel.vectors * lanes;
            let size = depth * width;
            let data = &weights.data.as_slice()[panel.start..panel.start + PRODUCTS * size];
            for (product, matrix) in data.chunks_exact(size).enumerate() {
                let call = ConvCall {
                    input: patches.at(product * pitch),
                    input_steps: Steps { row: 0, pixel: depth },
                    skipped: 0,
                    runs: 1,
                    run_len: depth,
                    run_pitch: 0,
                    output: products.at(product * product_pitch),
                    output_steps: Steps { row: 0, pixel: width },
                    residual: std::ptr::null(),
                    residual_steps: Steps { row: 0, pixel: 0 },
                    width: count,
                    low: f32::NEG_INFINITY,
                    high: f32::INFINITY,
                };
                let (weights, bias) = (matrix.as_ptr(), zeros.as_ptr());
                let panel = PanelRef { weights, bias, channel: 0, vectors: panel.vectors, last: lanes };
                // SAFETY: `count` rows of either scratch matrix, which this thread owns; weights were sliced.
                dispatch!(set, S => unsafe { conv::panel::<S>(&call, &panel, 0, count) });
            }
            let bias = weights.bias.as_slice()[panel.channel..panel.channel + width].as_ptr();
            for (i, tile) in tiles.clone().enumerate() {
                let (y, x) = (tile / columns * TILE, tile % columns * TILE);
                let (residual, residual_steps) = g.residual(residual, (y, x), panel.channel);
                let tile = OutputTile {
                    input: products.at(i * width),
                    pitch: product_pitch,
                    bias,
                    vectors: panel.vectors,
                    last: lanes.min(weights.channels - panel.channel - (panel.vectors - 1) * lanes),
                    output: output.at(g.output.start + g.output.steps.at(y, x) + panel.channel),
                    output_steps: g.output.steps,
                    residual,
                    residual_steps,
                    rows: TILE.min(g.height - y),
                    columns: TILE.min(g.width - x),
                    low: g.low,
                    high: g.high,
                };
                // SAFETY: as in `conv`; only pixels inside the map are accessed.
                dispatch!(set, S => unsafe { S::winograd_output(&tile) });
            }
        }
    });
}
