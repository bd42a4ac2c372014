//! The compute kernels behind bounds-checked entry points, for the best instruction set of the processor at run time.
//!
//! All unsafe arithmetic on pointers lives below this module. Its functions check that everything a kernel touches lies
//! inside the spans it is given; what they cannot check, and so demand of the caller, is that no other thread
//! accesses what they write.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod conv;
mod depthwise;
mod pointwise;
mod portable;
mod simd;
mod winograd;

pub(super) use conv::Steps;
pub(super) use winograd::{PATCH, PRODUCTS, TILE, transform_filter};

use super::memory::{Aligned, LINE, Span};
use super::pack::{DenseWeights, DepthwiseWeights};
use conv::{ConvCall, PanelRef};
use depthwise::DepthwiseRow;
use pointwise::{AffineRow, PoolPixel};
use portable::Portable;
use simd::Simd;
use std::cell::RefCell;
use std::ops::Range;
use winograd::{InputPatch, OutputTile};

/// An instruction set that this processor has; values come from [`InstructionSet::best`] and
/// [`InstructionSet::available`] only, which is what makes calling the kernels sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InstructionSet(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Runs `$body` with `$simd` naming the instruction set's type.
macro_rules! dispatch {
    ($set:expr, $simd:ident => $body:expr) => {
        match $set.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => {
                type $simd = avx512::Avx512;
                $body
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => {
                type $simd = avx2::Avx2;
                $body
            }
            Kind::Portable => {
                type $simd = Portable;
                $body
            }
        }
    };
}

impl InstructionSet {
    /// All that this processor has, fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut sets = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                sets.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self(Kind::Avx2));
            }
        }
        sets.push(Self(Kind::Portable));
        sets
    }

    /// The fastest that this processor has.
    pub(crate) fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self(Kind::Portable))
    }

    /// Numbers per vector.
    pub(crate) fn lanes(self) -> usize {
        dispatch!(self, S => S::LANES)
    }

    /// Most vectors of output channels that a convolution tile has.
    pub(crate) fn panel_vectors(self) -> usize {
        dispatch!(self, S => S::TILE_PIXELS.iter().filter(|&&pixels| pixels > 0).count())
    }
}

/// Where something begins in its span, and how pixels follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) start: usize,
    pub(crate) steps: Steps,
}

impl Origin {
    /// One past the last of `len` numbers at the last of `height x width` pixels.
    fn end(&self, height: usize, width: usize, len: usize) -> usize {
        self.start + (height - 1) * self.steps.row + (width - 1) * self.steps.pixel + len
    }
}

/// Geometry of a dense convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvGeometry {
    /// Window of the first output pixel.
    pub(crate) input: Origin,
    /// Runs per window, numbers per run, distance between runs.
    pub(crate) runs: usize,
    pub(crate) run_len: usize,
    pub(crate) run_pitch: usize,
    pub(crate) output: Origin,
    pub(crate) residual: Option<Origin>,
    /// Output pixels.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) low: f32,
    pub(crate) high: f32,
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
    (input, residual, output): (Span, Option<Span>, Span),
    panels: Range<usize>,
    pixels: Range<usize>,
) {
    let (height, width) = (geometry.height, geometry.width);
    let window = (geometry.runs - 1) * geometry.run_pitch + geometry.run_len;
    assert!(geometry.runs * geometry.run_len == weights.depth && weights.set == set);
    assert!(pixels.end <= height * width && panels.end <= weights.panels.len());
    assert!(geometry.input.end(height, width, window) <= input.len());
    assert!(geometry.output.end(height, width, weights.channels) <= output.len());
    assert_eq!(geometry.residual.is_some(), residual.is_some());
    let (residual, residual_steps) = match (geometry.residual, residual) {
        (Some(origin), Some(span)) => {
            assert!(origin.end(height, width, weights.channels) <= span.len());
            (span.at(origin.start).cast_const(), origin.steps)
        }
        _ => (std::ptr::null(), Steps { row: 0, pixel: 0 }),
    };
    let call = ConvCall {
        input: input.at(geometry.input.start),
        input_steps: geometry.input.steps,
        runs: geometry.runs,
        run_len: geometry.run_len,
        run_pitch: geometry.run_pitch,
        output: output.at(geometry.output.start),
        output_steps: geometry.output.steps,
        residual,
        residual_steps,
        width,
        low: geometry.low,
        high: geometry.high,
    };
    for panel in &weights.panels[panels] {
        let lanes = panel.vectors * set.lanes();
        let panel = PanelRef {
            weights: weights.data.as_slice()[panel.start..panel.start + weights.depth * lanes].as_ptr(),
            bias: weights.bias.as_slice()[panel.channel..panel.channel + lanes].as_ptr(),
            channel: panel.channel,
            vectors: panel.vectors,
            last: set.lanes().min(weights.channels - panel.channel - (panel.vectors - 1) * set.lanes()),
        };
        // SAFETY: `set` exists only for instruction sets that are present; the assertions cover the last window, output
        // and residual, and all others come before them; the panel's data were sliced; the caller promises exclusion.
        dispatch!(set, S => unsafe { conv::panel::<S>(&call, &panel, pixels.start, pixels.end) });
    }
}

/// Geometry of a 3x3 convolution with stride 1, computed by Winograd's method in tiles of `TILE x TILE` outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WinogradGeometry {
    /// Window of the first output pixel; steps are those of the input's pixels.
    pub(crate) input: Origin,
    pub(crate) output: Origin,
    pub(crate) residual: Option<Origin>,
    /// Output pixels.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl WinogradGeometry {
    /// Rows and columns of tiles.
    pub(crate) fn tiles(&self) -> (usize, usize) {
        (self.height.div_ceil(TILE), self.width.div_ceil(TILE))
    }
}

thread_local! {
    /// Transformed patches and products of one task; stays for the next one.
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
    (input, residual, output): (Span, Option<Span>, Span),
    panels: Range<usize>,
    tiles: Range<usize>,
) {
    let g = geometry;
    let (rows, columns) = g.tiles();
    let (lanes, depth, count) = (set.lanes(), weights.depth, tiles.len());
    assert!(weights.set == set && g.input.steps.pixel == depth);
    assert!(tiles.end <= rows * columns && panels.end <= weights.panels.len());
    assert!(g.input.end(rows * TILE + 2, columns * TILE + 2, depth) <= input.len());
    assert!(g.output.end(g.height, g.width, weights.channels) <= output.len());
    assert_eq!(g.residual.is_some(), residual.is_some());
    if let (Some(origin), Some(span)) = (g.residual, residual) {
        assert!(origin.end(g.height, g.width, weights.channels) <= span.len());
    }
    // A line more than the data between the 36 matrices: at a multiple of 4096 bytes they would share cache sets.
    let widest = weights.panels.iter().map(|panel| panel.vectors).max().unwrap_or(0) * lanes;
    let (pitch, product_pitch) = ((count * depth).next_multiple_of(LINE) + LINE, count * widest + LINE);
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.as_slice().len() < PRODUCTS * (pitch + product_pitch) {
            *scratch = Aligned::zeros(PRODUCTS * (pitch + product_pitch));
        }
        let (patches, products) = scratch.as_mut_slice().split_at_mut(PRODUCTS * pitch);
        let (patches, products) = (Span::of(patches), Span::of(&mut products[..PRODUCTS * product_pitch]));
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
                let (residual, residual_steps) = match (g.residual, residual) {
                    (Some(origin), Some(span)) => {
                        (span.at(origin.start + origin.steps.at(y, x) + panel.channel).cast_const(), origin.steps)
                    }
                    _ => (std::ptr::null(), Steps { row: 0, pixel: 0 }),
                };
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

/// Geometry of a depthwise convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DepthwiseGeometry {
    /// Window of the first output pixel.
    pub(crate) input: Origin,
    /// Distances between neighbouring rows and pixels of the input.
    pub(crate) taps: Steps,
    pub(crate) output: Origin,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// Computes some rows of a depthwise convolution.
///
/// # Safety
///
/// No other thread accesses these outputs, or writes the input, during the call.
///
/// # Panics
///
/// If the geometry leaves a span or does not fit the weights, which the planner excludes.
pub(crate) unsafe fn depthwise(
    set: InstructionSet,
    geometry: &DepthwiseGeometry,
    weights: &DepthwiseWeights,
    (input, output): (Span, Span),
    rows: Range<usize>,
) {
    let (height, width, channels, kernel) = (geometry.height, geometry.width, weights.channels, weights.kernel);
    let window = (kernel - 1) * (geometry.taps.row + geometry.taps.pixel) + channels;
    assert!(rows.end <= height && geometry.taps.pixel == channels);
    assert!(geometry.input.end(height, width, window) <= input.len());
    assert!(geometry.output.end(height, width, channels) <= output.len());
    assert!(weights.data.as_slice().len() >= kernel * kernel * channels && weights.bias.as_slice().len() >= channels);
    for y in rows {
        let row = DepthwiseRow {
            input: input.at(geometry.input.start + y * geometry.input.steps.row),
            input_step: geometry.input.steps.pixel,
            taps: geometry.taps,
            kernel,
            weights: weights.data.as_slice().as_ptr(),
            bias: weights.bias.as_slice().as_ptr(),
            channels,
            output: output.at(geometry.output.start + y * geometry.output.steps.row),
            output_step: geometry.output.steps.pixel,
            width,
            low: geometry.low,
            high: geometry.high,
        };
        // SAFETY: as in `conv`.
        dispatch!(set, S => unsafe { S::depthwise_row(&row) });
    }
}

/// Geometry of a maximum pooling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolGeometry {
    /// First pixel of the input map; steps are those of its pixels.
    pub(crate) input: Origin,
    pub(crate) input_height: usize,
    pub(crate) input_width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) channels: usize,
    pub(crate) output: Origin,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

/// Computes some rows of a maximum pooling. The window is cut to the map, which is padding by minus infinity.
///
/// # Safety
///
/// No other thread accesses these outputs, or writes the input, during the call.
///
/// # Panics
///
/// If the geometry leaves a span, which the planner excludes.
pub(crate) unsafe fn max_pool(
    set: InstructionSet,
    geometry: &PoolGeometry,
    (input, output): (Span, Span),
    rows: Range<usize>,
) {
    let g = geometry;
    assert!(rows.end <= g.height && g.input.steps.pixel == g.channels);
    assert!(g.input.end(g.input_height, g.input_width, g.channels) <= input.len());
    assert!(g.output.end(g.height, g.width, g.channels) <= output.len());
    let window = |at: usize, len: usize| {
        let first = (at * g.stride).saturating_sub(g.padding).min(len - 1);
        first..(at * g.stride + g.kernel).saturating_sub(g.padding).clamp(first + 1, len)
    };
    for y in rows {
        let lines = window(y, g.input_height);
        for x in 0..g.width {
            let columns = window(x, g.input_width);
            let at = g.input.start + lines.start * g.input.steps.row + columns.start * g.input.steps.pixel;
            let pixel = PoolPixel {
                input: input.at(at),
                rows: lines.len(),
                columns: columns.len(),
                pitch: g.input.steps.row,
                channels: g.channels,
                output: output.at(g.output.start + y * g.output.steps.row + x * g.output.steps.pixel),
            };
            // SAFETY: as in `conv`; the window was cut to the map.
            dispatch!(set, S => unsafe { S::pool_pixel(&pixel) });
        }
    }
}

/// Geometry of a per-channel affine map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AffineGeometry {
    pub(crate) input: Origin,
    pub(crate) output: Origin,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

/// Computes some rows of `clamp(x * scale + shift)`; the factors are those of one pixel, or of several, repeated.
///
/// # Safety
///
/// No other thread accesses these outputs, or writes the input, during the call.
///
/// # Panics
///
/// If the geometry leaves a span or does not fit the factors, which the planner excludes.
pub(crate) unsafe fn affine(
    set: InstructionSet,
    geometry: &AffineGeometry,
    (scale, shift): (&[f32], &[f32]),
    (input, output): (Span, Span),
    rows: Range<usize>,
) {
    let g = geometry;
    let (channels, period) = (g.input.steps.pixel, scale.len());
    assert!(rows.end <= g.height && shift.len() == period && period.is_multiple_of(channels));
    assert!(g.output.steps.pixel == channels);
    assert!(g.input.end(g.height, g.width, channels) <= input.len());
    assert!(g.output.end(g.height, g.width, channels) <= output.len());
    // Pixels are neighbours in memory: as many as the factors cover are treated as one, and the rest as a smaller one.
    let (whole, rest) = (g.width * channels / period, g.width * channels % period);
    for y in rows {
        for (start, channels, pixels) in [(0, period, whole), (whole * period, rest, 1)] {
            let row = AffineRow {
                input: input.at(g.input.start + y * g.input.steps.row + start),
                scale: scale.as_ptr(),
                shift: shift.as_ptr(),
                channels,
                pixels,
                output: output.at(g.output.start + y * g.output.steps.row + start),
                low: g.low,
                high: g.high,
            };
            // SAFETY: as in `conv`; both parts together are the row.
            dispatch!(set, S => unsafe { S::affine_row(&row) });
        }
    }
}
