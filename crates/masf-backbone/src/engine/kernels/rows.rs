//! Entry points of the operations whose tasks are rows: depthwise convolution, pooling, and affine maps.

use super::depthwise::DepthwiseRow;
use super::pointwise::{AffineRow, PoolPixel};
use super::simd::Simd;
use super::{Frame, InstructionSet, Steps, dispatch};
use crate::engine::memory::Span;
use crate::engine::pack::DepthwiseWeights;
use std::ops::Range;

/// Geometry of a depthwise convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DepthwiseGeometry {
    pub(crate) frame: Frame,
    /// Distances between neighbouring rows and pixels of the input.
    pub(crate) taps: Steps,
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
    let (frame, taps, channels, kernel) = (&geometry.frame, geometry.taps, weights.channels, weights.kernel);
    assert!(rows.end <= frame.height && taps.pixel == channels);
    frame.check_input((kernel - 1) * (taps.row + taps.pixel) + channels, input);
    frame.check_output(channels, None, output);
    assert!(weights.data.as_slice().len() >= kernel * kernel * channels && weights.bias.as_slice().len() >= channels);
    for y in rows {
        let row = DepthwiseRow {
            input: input.at(frame.input.start + y * frame.input.steps.row),
            input_step: frame.input.steps.pixel,
            taps,
            kernel,
            weights: weights.data.as_slice().as_ptr(),
            bias: weights.bias.as_slice().as_ptr(),
            channels,
            output: output.at(frame.output.start + y * frame.output.steps.row),
            output_step: frame.output.steps.pixel,
            width: frame.width,
            low: frame.low,
            high: frame.high,
        };
        // SAFETY: as in `conv`.
        dispatch!(set, S => unsafe { S::depthwise_row(&row) });
    }
}

/// Geometry of a maximum pooling. The input begins at its first pixel, and its steps are those of its pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolGeometry {
    pub(crate) frame: Frame,
    pub(crate) input_height: usize,
    pub(crate) input_width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) channels: usize,
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
    let (g, frame) = (geometry, &geometry.frame);
    assert!(rows.end <= frame.height && frame.input.steps.pixel == g.channels);
    assert!(frame.input.end(g.input_height, g.input_width, g.channels) <= input.len());
    frame.check_output(g.channels, None, output);
    let window = |at: usize, len: usize| {
        let first = (at * g.stride).saturating_sub(g.padding).min(len - 1);
        first..(at * g.stride + g.kernel).saturating_sub(g.padding).clamp(first + 1, len)
    };
    for y in rows {
        let lines = window(y, g.input_height);
        for x in 0..frame.width {
            let columns = window(x, g.input_width);
            let at = frame.input.start + lines.start * frame.input.steps.row + columns.start * frame.input.steps.pixel;
            let pixel = PoolPixel {
                input: input.at(at),
                rows: lines.len(),
                columns: columns.len(),
                pitch: frame.input.steps.row,
                channels: g.channels,
                output: output.at(frame.output.start + y * frame.output.steps.row + x * frame.output.steps.pixel),
            };
            // SAFETY: as in `conv`; the window was cut to the map.
            dispatch!(set, S => unsafe { S::pool_pixel(&pixel) });
        }
    }
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
    geometry: &Frame,
    (scale, shift): (&[f32], &[f32]),
    (input, output): (Span, Span),
    rows: Range<usize>,
) {
    let g = geometry;
    let (channels, period) = (g.input.steps.pixel, scale.len());
    assert!(rows.end <= g.height && shift.len() == period && period.is_multiple_of(channels));
    assert!(g.output.steps.pixel == channels);
    g.check_input(channels, input);
    g.check_output(channels, None, output);
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
