//! Maximum pooling and the per-channel affine map, vectorised over channels.

use super::simd::Simd;

/// One output pixel of a maximum pooling.
pub(super) struct PoolPixel {
    /// First pixel of the window (cut to the map).
    pub(super) input: *const f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Distance between rows of the input; its pixels are `channels` apart.
    pub(super) pitch: usize,
    pub(super) channels: usize,
    pub(super) output: *mut f32,
}

/// Computes the pixel.
///
/// # Safety
///
/// The instruction set is present; window and output lie inside their allocations; nobody else accesses the output.
#[inline(always)]
pub(super) unsafe fn pool_pixel<S: Simd>(pixel: &PoolPixel) {
    let mut c = 0;
    while c < pixel.channels {
        let count = S::LANES.min(pixel.channels - c);
        // SAFETY: `rows x columns` pixels of the window and `count` channels from `c` on exist.
        unsafe {
            let mut best = S::splat(f32::NEG_INFINITY);
            for y in 0..pixel.rows {
                for x in 0..pixel.columns {
                    let at = pixel.input.add(y * pixel.pitch + x * pixel.channels + c);
                    let value = if count == S::LANES { S::load(at) } else { S::load_first(at, count) };
                    best = S::max(best, value);
                }
            }
            S::store_first(pixel.output.add(c), best, count);
        }
        c += S::LANES;
    }
}

/// `pixels` neighbouring pixels of a per-channel affine map.
pub(super) struct AffineRow {
    pub(super) input: *const f32,
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
    pub(super) channels: usize,
    pub(super) pixels: usize,
    pub(super) output: *mut f32,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// Computes `clamp(x * scale + shift)`.
///
/// # Safety
///
/// The instruction set is present; `pixels * channels` inputs and outputs and `channels` factors lie inside their
/// allocations; nobody else accesses the outputs.
#[inline(always)]
pub(super) unsafe fn affine_row<S: Simd>(row: &AffineRow) {
    for p in 0..row.pixels {
        let mut c = 0;
        while c < row.channels {
            let count = S::LANES.min(row.channels - c);
            let at = p * row.channels + c;
            // SAFETY: pixel `p` exists and has `count` channels from `c` on.
            unsafe {
                let (low, high) = (S::splat(row.low), S::splat(row.high));
                if count == S::LANES {
                    let value = S::load(row.input.add(at));
                    let value = S::mul_add(value, S::load(row.scale.add(c)), S::load(row.shift.add(c)));
                    S::store(row.output.add(at), S::clamp(value, low, high));
                } else {
                    let value = S::load_first(row.input.add(at), count);
                    let scale = S::load_first(row.scale.add(c), count);
                    let value = S::mul_add(value, scale, S::load_first(row.shift.add(c), count));
                    S::store_first(row.output.add(at), S::clamp(value, low, high), count);
                }
            }
            c += S::LANES;
        }
    }
}
