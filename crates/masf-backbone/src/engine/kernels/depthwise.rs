//! Depthwise convolution: one filter per channel, vectorised over channels.

use super::conv::Steps;
use super::simd::Simd;

/// One output row; pointers are to its first pixel.
pub(super) struct DepthwiseRow {
    /// The window of the row's first pixel.
    pub(super) input: *const f32,
    /// Distance between the windows of neighbouring outputs (stride times channels).
    pub(super) input_step: usize,
    /// Distance between rows, and between pixels, of the input.
    pub(super) taps: Steps,
    pub(super) kernel: usize,
    /// `[kernel * kernel][channels]`.
    pub(super) weights: *const f32,
    /// `[channels]`.
    pub(super) bias: *const f32,
    pub(super) channels: usize,
    pub(super) output: *mut f32,
    pub(super) output_step: usize,
    pub(super) width: usize,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Computes the row.
///
/// # Safety
///
/// The instruction set is present; all windows of the row, the weights and the outputs lie inside their allocations,
/// and nobody else accesses these outputs meanwhile.
#[inline(always)]
pub(super) unsafe fn row<S: Simd>(row: &DepthwiseRow) {
    let step = row.input_step / row.taps.pixel;
    // SAFETY: passed on from the caller.
    unsafe {
        match (row.kernel, step) {
            (3, 1) => blocks::<S, 3, 1, 6>(row),
            (3, 2) => blocks::<S, 3, 2, 5>(row),
            _ => any::<S>(row, 0, row.width),
        }
    }
}

/// Four neighbouring outputs at a time, which share the columns of their windows.
///
/// `COLUMNS = 3 * STEP + KERNEL` capped by the caller to what four outputs (`STEP` 1) or two outputs (`STEP` 2) read.
#[inline(always)]
unsafe fn blocks<S: Simd, const KERNEL: usize, const STEP: usize, const COLUMNS: usize>(row: &DepthwiseRow) {
    let outputs = (COLUMNS - KERNEL) / STEP + 1;
    let mut x = 0;
    // SAFETY: outputs `x..x + outputs` are inside the row, so their windows are inside the input; channels likewise.
    unsafe {
        while x + outputs <= row.width {
            let input = row.input.add(x * row.input_step);
            let output = row.output.add(x * row.output_step);
            let mut c = 0;
            while c < row.channels {
                let count = S::LANES.min(row.channels - c);
                let whole = count == S::LANES;
                let fetch = |p: *const f32| if whole { S::load(p) } else { S::load_first(p, count) };
                let mut sums = [fetch(row.bias.add(c)); 4];
                for ky in 0..KERNEL {
                    let mut filter = [S::splat(0.0); KERNEL];
                    for (kx, f) in filter.iter_mut().enumerate() {
                        *f = fetch(row.weights.add((ky * KERNEL + kx) * row.channels + c));
                    }
                    let line = input.add(ky * row.taps.row + c);
                    for column in 0..COLUMNS {
                        let value = fetch(line.add(column * row.taps.pixel));
                        // Ascending columns meet each output's taps in ascending order: the same sum as in `any`.
                        for (o, sum) in sums.iter_mut().enumerate() {
                            if o < outputs && column >= o * STEP && column - o * STEP < KERNEL {
                                *sum = S::mul_add(value, filter[column - o * STEP], *sum);
                            }
                        }
                    }
                }
                let (low, high) = (S::splat(row.low), S::splat(row.high));
                for (o, &sum) in sums.iter().enumerate().take(outputs) {
                    let at = output.add(o * row.output_step + c);
                    let sum = S::clamp(sum, low, high);
                    if whole { S::store(at, sum) } else { S::store_first(at, sum, count) }
                }
                c += S::LANES;
            }
            x += outputs;
        }
        any::<S>(row, x, row.width);
    }
}

/// Any kernel size and stride, one output at a time.
#[inline(always)]
unsafe fn any<S: Simd>(row: &DepthwiseRow, first: usize, end: usize) {
    for x in first..end {
        let mut c = 0;
        while c < row.channels {
            let count = S::LANES.min(row.channels - c);
            // SAFETY: output `x` is inside the row; `count` channels are left.
            unsafe {
                let input = row.input.add(x * row.input_step + c);
                let mut sum = S::load_first(row.bias.add(c), count);
                for ky in 0..row.kernel {
                    for kx in 0..row.kernel {
                        let value = S::load_first(input.add(ky * row.taps.row + kx * row.taps.pixel), count);
                        let weight = S::load_first(row.weights.add((ky * row.kernel + kx) * row.channels + c), count);
                        sum = S::mul_add(value, weight, sum);
                    }
                }
                let sum = S::clamp(sum, S::splat(row.low), S::splat(row.high));
                S::store_first(row.output.add(x * row.output_step + c), sum, count);
            }
            c += S::LANES;
        }
    }
}
