//! 3x3 convolution with stride 1 by Winograd's minimal filtering, F(4x4, 3x3): a quarter of the multiplications.
//!
//! An output tile of 4 x 4 pixels is `A^T [(G g G^T) * (B^T d B)] A` for the 6 x 6 input patch `d` and the filter `g`
//! (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Summed over input channels, the product
//! `*` becomes 36 matrix products, one per element of the patch, of (tiles x input channels) with (input x output channels).
//!
//! The matrices follow from the points 0, +-a, +-b and infinity (Toom-Cook). The usual points 1 and 2 cost a digit; with
//! `a = 3/4`, `b = 3/2` the largest error relative to the largest output is 2e-6 at 256 channels (8.6e-6 with 1 and 2;
//! 0.3e-6 for the direct sum), as measured over a dozen pairs.

use super::conv::Steps;
use super::simd::Simd;

/// Side of an output tile.
pub(crate) const TILE: usize = 4;
/// Side of an input patch.
pub(crate) const PATCH: usize = TILE + 2;
/// Elements of a patch, and so matrix products.
pub(crate) const PRODUCTS: usize = PATCH * PATCH;

/// The points `+-a` and `+-b`, and their squares.
const A: f64 = 0.75;
const B: f64 = 1.5;
const A2: f64 = A * A;
const B2: f64 = B * B;

/// `G g G^T`, row-major, of a row-major 3x3 filter.
pub(crate) fn transform_filter(filter: &[f64; 9]) -> [f64; PRODUCTS] {
    let scale_a = 1.0 / (2.0 * A2 * (A2 - B2));
    let scale_b = 1.0 / (2.0 * B2 * (B2 - A2));
    let line = |g: [f64; 3]| {
        let (even_a, odd_a) = ((g[0] + A2 * g[2]) * scale_a, A * g[1] * scale_a);
        let (even_b, odd_b) = ((g[0] + B2 * g[2]) * scale_b, B * g[1] * scale_b);
        [g[0] / (A2 * B2), even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g[2]]
    };
    let columns: [[f64; PATCH]; 3] = std::array::from_fn(|x| line([filter[x], filter[3 + x], filter[6 + x]]));
    let mut result = [0.0; PRODUCTS];
    for (y, row) in result.chunks_exact_mut(PATCH).enumerate() {
        row.copy_from_slice(&line([columns[0][y], columns[1][y], columns[2][y]]));
    }
    result
}

/// Column `x` of a patch.
#[inline(always)]
fn column<V: Copy, const WIDTH: usize>(rows: &[[V; WIDTH]; PATCH], x: usize) -> [V; PATCH] {
    [rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x]]
}

/// One tile's input patch, all channels.
pub(super) struct InputPatch {
    pub(super) input: *const f32,
    /// Distance between rows, and between pixels.
    pub(super) steps: Steps,
    pub(super) channels: usize,
    /// Element `(y, x)` of the transformed patch goes to `(y * 6 + x) * pitch`.
    pub(super) output: *mut f32,
    pub(super) pitch: usize,
}

/// `B^T d` along one dimension.
#[inline(always)]
unsafe fn input_line<S: Simd>(d: [S::Vector; PATCH]) -> [S::Vector; PATCH] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (minus_a2, minus_b2) = (S::splat(-A2 as f32), S::splat(-B2 as f32));
        let (minus_sum, product) = (S::splat(-(A2 + B2) as f32), S::splat((A2 * B2) as f32));
        let even_a = S::mul_add(d[2], minus_b2, d[4]);
        let odd_a = S::mul_add(d[1], minus_b2, d[3]);
        let even_b = S::mul_add(d[2], minus_a2, d[4]);
        let odd_b = S::mul_add(d[1], minus_a2, d[3]);
        [
            S::mul_add(d[0], product, S::mul_add(d[2], minus_sum, d[4])),
            S::mul_add(odd_a, S::splat(A as f32), even_a),
            S::mul_add(odd_a, S::splat(-A as f32), even_a),
            S::mul_add(odd_b, S::splat(B as f32), even_b),
            S::mul_add(odd_b, S::splat(-B as f32), even_b),
            S::mul_add(d[1], product, S::mul_add(d[3], minus_sum, d[5])),
        ]
    }
}

/// `B^T d B` of one patch.
///
/// # Safety
///
/// The instruction set is present; the patch's 6 x 6 pixels and the outputs lie inside their allocations, and nobody
/// else accesses the outputs.
#[inline(always)]
pub(super) unsafe fn input_patch<S: Simd>(patch: &InputPatch) {
    let mut c = 0;
    while c < patch.channels {
        let count = S::LANES.min(patch.channels - c);
        // SAFETY: `count` channels are left at `c`; the rest is the caller's promise.
        unsafe {
            let mut rows = [[S::splat(0.0); PATCH]; PATCH];
            for (y, row) in rows.iter_mut().enumerate() {
                for (x, value) in row.iter_mut().enumerate() {
                    let at = patch.input.add(y * patch.steps.row + x * patch.steps.pixel + c);
                    *value = if count == S::LANES { S::load(at) } else { S::load_first(at, count) };
                }
                *row = input_line::<S>(*row);
            }
            for x in 0..PATCH {
                let values = input_line::<S>(column(&rows, x));
                for (y, value) in values.into_iter().enumerate() {
                    let at = patch.output.add((y * PATCH + x) * patch.pitch + c);
                    if count == S::LANES { S::store(at, value) } else { S::store_first(at, value, count) }
                }
            }
        }
        c += S::LANES;
    }
}

/// One tile's output pixels, some vectors of channels.
pub(super) struct OutputTile {
    /// Element `(y, x)` of the product patch is at `(y * 6 + x) * pitch`.
    pub(super) input: *const f32,
    pub(super) pitch: usize,
    pub(super) bias: *const f32,
    pub(super) vectors: usize,
    /// Channels in the last vector.
    pub(super) last: usize,
    pub(super) output: *mut f32,
    pub(super) output_steps: Steps,
    /// Null when there is none.
    pub(super) residual: *const f32,
    pub(super) residual_steps: Steps,
    /// Pixels of the tile that are inside the map.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// `A^T m` along one dimension.
#[inline(always)]
unsafe fn output_line<S: Simd>(m: [S::Vector; PATCH]) -> [S::Vector; TILE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let minus = S::splat(-1.0);
        let (even_a, odd_a) = (S::add(m[1], m[2]), S::mul_add(m[2], minus, m[1]));
        let (even_b, odd_b) = (S::add(m[3], m[4]), S::mul_add(m[4], minus, m[3]));
        let zero = S::splat(0.0);
        let weighed = |a: f64, x, b: f64, y, z| S::mul_add(S::splat(a as f32), x, S::mul_add(S::splat(b as f32), y, z));
        [
            S::add(m[0], S::add(even_a, even_b)),
            weighed(A, odd_a, B, odd_b, zero),
            weighed(A2, even_a, B2, even_b, zero),
            weighed(A * A2, odd_a, B * B2, odd_b, m[5]),
        ]
    }
}

/// `clamp(A^T m A + bias + residual)` of one tile.
///
/// # Safety
///
/// The instruction set is present; products, bias, residual and output of the tile's pixels lie inside their
/// allocations, and nobody else accesses the outputs.
#[inline(always)]
pub(super) unsafe fn output_tile<S: Simd>(tile: &OutputTile) {
    for v in 0..tile.vectors {
        let c = v * S::LANES;
        let count = if v + 1 == tile.vectors { tile.last } else { S::LANES };
        let whole = count == S::LANES;
        // SAFETY: products and bias have whole vectors; `count` channels of the pixels inside the map are accessed.
        unsafe {
            let mut rows = [[S::splat(0.0); TILE]; PATCH];
            for (y, row) in rows.iter_mut().enumerate() {
                let mut line = [S::splat(0.0); PATCH];
                for (x, value) in line.iter_mut().enumerate() {
                    *value = S::load(tile.input.add((y * PATCH + x) * tile.pitch + c));
                }
                *row = output_line::<S>(line);
            }
            let (low, high, bias) = (S::splat(tile.low), S::splat(tile.high), S::load(tile.bias.add(c)));
            for x in 0..TILE {
                let values = output_line::<S>(column(&rows, x));
                for (y, value) in values.into_iter().enumerate() {
                    if y >= tile.rows || x >= tile.columns {
                        continue;
                    }
                    let mut value = S::add(value, bias);
                    if !tile.residual.is_null() {
                        let at = tile.residual.add(y * tile.residual_steps.row + x * tile.residual_steps.pixel + c);
                        value = S::add(value, if whole { S::load(at) } else { S::load_first(at, count) });
                    }
                    let value = S::clamp(value, low, high);
                    let at = tile.output.add(y * tile.output_steps.row + x * tile.output_steps.pixel + c);
                    if whole { S::store(at, value) } else { S::store_first(at, value, count) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kernels::portable::Portable;

    /// Filter, patch and output transforms together are the correlation of the patch with the filter.
    #[test]
    fn the_transforms_make_a_correlation() {
        let filter: [f64; 9] = std::array::from_fn(|i| (i as f64 * 0.7).sin());
        let patch: [f32; PRODUCTS] = std::array::from_fn(|i| (i as f32 * 1.3).cos());
        let weights = transform_filter(&filter);
        let mut spectrum = [0.0; PRODUCTS];
        let steps = Steps { row: PATCH, pixel: 1 };
        let input = InputPatch { input: patch.as_ptr(), steps, channels: 1, output: spectrum.as_mut_ptr(), pitch: 1 };
        // SAFETY: the patch and its transform are whole arrays.
        unsafe { input_patch::<Portable>(&input) };
        // Whole vectors of products: one channel, three unused ones.
        let products: Vec<f32> =
            spectrum.iter().zip(&weights).flat_map(|(&d, &g)| [d * g as f32, 0.0, 0.0, 0.0]).collect();
        let (bias, mut output) = ([0.0f32; 4], [0.0f32; TILE * TILE]);
        let steps = Steps { row: TILE, pixel: 1 };
        let tile = OutputTile {
            input: products.as_ptr(),
            pitch: 4,
            bias: bias.as_ptr(),
            vectors: 1,
            last: 1,
            output: output.as_mut_ptr(),
            output_steps: steps,
            residual: std::ptr::null(),
            residual_steps: steps,
            rows: TILE,
            columns: TILE,
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
        };
        // SAFETY: as above.
        unsafe { output_tile::<Portable>(&tile) };
        for (i, value) in output.into_iter().enumerate() {
            let (y, x) = (i / TILE, i % TILE);
            let truth: f64 = (0..9).map(|k| filter[k] * f64::from(patch[(y + k / 3) * PATCH + x + k % 3])).sum();
            assert!((f64::from(value) - truth).abs() < 1e-5, "{y}, {x}: {value} for {truth}");
        }
    }
}
