//! Dense convolution: the product of pixels, read in place, with packed weights.
//!
//! Activations lie channels-last with a zero halo, so that a `k x k` window is `k` contiguous runs of `k * C` numbers,
//! one pitch apart, at the same distance from every pixel's own offset: no im2col, no packing of activations, no
//! special case at the border (after Dukhan, "The Indirect Convolution Algorithm", 2019, with arithmetic in place of the
//! table of pointers). A tile of a few pixels times a few vectors of output channels stays in registers over the whole
//! sum; every output is one chain of multiply-adds in the order (row, column, channel), whatever the tile, so that
//! results do not depend on how the work was cut.

use super::simd::Simd;
use crate::engine::memory::LINE;

/// Where pixel `(y, x)` of an output lies: `y * row + x * pixel` elements after the base.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) row: usize,
    pub(crate) pixel: usize,
}

impl Steps {
    /// Offset of pixel `(y, x)`.
    #[inline(always)]
    pub(super) fn at(self, y: usize, x: usize) -> usize {
        y * self.row + x * self.pixel
    }
}

/// What every tile of a convolution shares; pointers are to the window of output pixel (0, 0) and channel 0.
#[derive(Clone, Copy)]
pub(super) struct ConvCall {
    pub(super) input: *const f32,
    pub(super) input_steps: Steps,
    /// How far before `input` the window of output pixel (0, 0) would be, where only later ones are there.
    pub(super) skipped: usize,
    /// Contiguous runs that a window is made of, numbers per run, and the distance between runs.
    pub(super) runs: usize,
    pub(super) run_len: usize,
    pub(super) run_pitch: usize,
    pub(super) output: *mut f32,
    pub(super) output_steps: Steps,
    /// Null when there is none.
    pub(super) residual: *const f32,
    pub(super) residual_steps: Steps,
    /// Output pixels per row.
    pub(super) width: usize,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Weights of a few vectors of output channels.
#[derive(Clone, Copy)]
pub(super) struct PanelRef {
    /// `[runs * run_len][vectors * LANES]`.
    pub(super) weights: *const f32,
    /// `[vectors * LANES]`.
    pub(super) bias: *const f32,
    /// First output channel.
    pub(super) channel: usize,
    pub(super) vectors: usize,
    /// Channels in the last vector, 1 to `LANES`.
    pub(super) last: usize,
}

/// One tile's work.
pub(super) struct Tile<'a> {
    call: &'a ConvCall,
    panel: &'a PanelRef,
    /// First output pixel, row-major.
    pixel: usize,
}

/// Computes output pixels `first..end` (row-major) of one panel.
///
/// # Safety
///
/// The instruction set is present; all windows, outputs and residuals of these pixels and the panel's data lie inside
/// their allocations, and nobody else accesses these outputs meanwhile.
pub(super) unsafe fn panel<S: Simd>(call: &ConvCall, panel: &PanelRef, first: usize, end: usize) {
    // SAFETY (all arms): passed on from the caller.
    unsafe {
        match panel.vectors {
            1 => tiles::<S, 1>(call, panel, first, end),
            2 => tiles::<S, 2>(call, panel, first, end),
            3 => tiles::<S, 3>(call, panel, first, end),
            _ => tiles::<S, 4>(call, panel, first, end),
        }
    }
}

/// Cuts the pixels into tiles of nearly equal size, so that no tile is a small remainder.
unsafe fn tiles<S: Simd, const VECTORS: usize>(call: &ConvCall, panel: &PanelRef, first: usize, end: usize) {
    let total = end - first;
    let count = total.div_ceil(S::TILE_PIXELS[VECTORS - 1].max(1));
    let mut pixel = first;
    for i in 0..count {
        let next = first + (i + 1) * total / count;
        let tile = Tile { call, panel, pixel };
        macro_rules! by_pixels {
            ($($n:literal)*) => {
                match next - pixel {
                    // Sizes above the limit are never asked for; the constant condition keeps them from being built.
                    $($n if $n <= const { S::TILE_PIXELS[VECTORS - 1] } => unsafe { S::conv_tile::<$n, VECTORS>(&tile) },)*
                    _ => unreachable!("tiles are cut to fit"),
                }
            };
        }
        by_pixels!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        pixel = next;
    }
}

/// Repeats `$body` with `$p` a constant for each pixel of a tile. A plain loop over so many accumulators is not always
/// unrolled, and then they live in memory (measured: 44 instead of 117 GFLOP/s).
macro_rules! for_each_pixel {
    ($pixels:ident, $p:ident => $body:block) => {
        for_each_pixel!(@ $pixels, $p, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $pixels:ident, $p:ident, $body:block, $($n:literal)*) => {
        $(if $n < $pixels {
            const $p: usize = $n;
            $body
        })*
    };
}

/// `clamp(window * weights + bias + residual)` for `PIXELS` pixels and `VECTORS` vectors of channels.
///
/// # Safety
///
/// As for [`panel`], for the tile's pixels.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const PIXELS: usize, const VECTORS: usize>(tile: &Tile) {
    let (call, panel) = (tile.call, tile.panel);
    let mut y = tile.pixel / call.width;
    let mut x = tile.pixel % call.width;
    let (mut inputs, mut outputs, mut residuals) = ([0; PIXELS], [0; PIXELS], [0; PIXELS]);
    for p in 0..PIXELS {
        inputs[p] = call.input_steps.at(y, x) - call.skipped;
        outputs[p] = call.output_steps.at(y, x) + panel.channel;
        residuals[p] = call.residual_steps.at(y, x) + panel.channel;
        x += 1;
        if x == call.width {
            (y, x) = (y + 1, 0);
        }
    }
    // SAFETY: every address is one that the caller vouches for: window elements `run < runs`, `k < run_len` of the
    // tile's pixels; `runs * run_len` rows of the panel; the tile's own outputs.
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; PIXELS];
        let mut columns = [S::splat(0.0); VECTORS];
        for (v, column) in columns.iter_mut().enumerate() {
            *column = S::load(panel.bias.add(v * S::LANES));
        }
        for_each_pixel!(PIXELS, P => { sums[P] = columns; });
        // The sum takes long enough to bring in what the end of the tile reads and writes.
        for p in 0..PIXELS {
            for v in 0..(VECTORS * S::LANES).div_ceil(LINE) {
                if !call.residual.is_null() {
                    S::prefetch(call.residual.wrapping_add(residuals[p] + v * LINE));
                }
                S::prefetch(call.output.wrapping_add(outputs[p] + v * LINE));
            }
        }
        let mut weights = panel.weights;
        for run in 0..call.runs {
            let base = call.input.add(run * call.run_pitch);
            let mut pointers = [base; PIXELS];
            for_each_pixel!(PIXELS, P => { pointers[P] = base.add(inputs[P]); });
            for k in 0..call.run_len {
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = S::load(weights.add(v * S::LANES));
                }
                weights = weights.add(VECTORS * S::LANES);
                for_each_pixel!(PIXELS, P => {
                    let value = S::splat(*pointers[P].add(k));
                    for v in 0..VECTORS {
                        sums[P][v] = S::dot(value, columns[v], sums[P][v]);
                    }
                });
            }
        }
        let (low, high) = (S::splat(call.low), S::splat(call.high));
        if panel.last == S::LANES {
            for_each_pixel!(PIXELS, P => {
                let output = call.output.add(outputs[P]);
                if !call.residual.is_null() {
                    let residual = call.residual.add(residuals[P]);
                    for (v, sum) in sums[P].iter_mut().enumerate() {
                        *sum = S::add(*sum, S::load(residual.add(v * S::LANES)));
                    }
                }
                for (v, &sum) in sums[P].iter().enumerate() {
                    S::store(output.add(v * S::LANES), S::clamp(sum, low, high));
                }
            });
        } else {
            for_each_pixel!(PIXELS, P => {
                let output = call.output.add(outputs[P]);
                for (v, &sum) in sums[P].iter().enumerate() {
                    let count = if v + 1 == VECTORS { panel.last } else { S::LANES };
                    let mut sum = sum;
                    if !call.residual.is_null() {
                        sum = S::add(sum, S::load_first(call.residual.add(residuals[P] + v * S::LANES), count));
                    }
                    S::store_first(output.add(v * S::LANES), S::clamp(sum, low, high), count);
                }
            });
        }
    }
}
