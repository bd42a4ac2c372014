//! The vector operations that the kernels are written in, and the kernel entry points of one instruction set.
//!
//! Every kernel body is one generic, always-inlined function over [`Simd`]; an instruction set implements the dozen
//! operations and instantiates the bodies inside functions that enable its target features.

use super::conv::Tile;
use super::depthwise::DepthwiseRow;
use super::pointwise::{AffineRow, PoolPixel};
use super::rounding::Rounding;
use super::winograd::{InputPatch, OutputTile};

/// One instruction set: a vector of `LANES` single-precision numbers and what the kernels do with it.
///
/// # Safety
///
/// Every function may only be called on a processor that has the instruction set; loads and stores need `LANES` (or
/// `count <= LANES`) readable or writable elements at the pointer, of any alignment.
pub(super) trait Simd: Copy + 'static {
    /// The vector.
    type Vector: Copy;
    /// Numbers per vector.
    const LANES: usize;
    /// Largest number of pixels of a convolution tile that is 1, 2, 3 or 4 vectors wide (0: no such tile): what the
    /// register file holds beside the weights.
    const TILE_PIXELS: [usize; 4];

    unsafe fn splat(x: f32) -> Self::Vector;
    unsafe fn load(p: *const f32) -> Self::Vector;
    unsafe fn store(p: *mut f32, v: Self::Vector);
    /// The first `count` numbers; the others are zero.
    unsafe fn load_first(p: *const f32, count: usize) -> Self::Vector;
    unsafe fn store_first(p: *mut f32, v: Self::Vector, count: usize);
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// What a convolution adds up: `a * b + c`, or the sum over the numbers that a lane of `a` and `b` holds.
    #[inline(always)]
    unsafe fn dot(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: the caller has the instruction set.
        unsafe { Self::mul_add(a, b, c) }
    }
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `min(max(v, low), high)`; a NaN in `v` stays.
    unsafe fn clamp(v: Self::Vector, low: Self::Vector, high: Self::Vector) -> Self::Vector;
    /// The larger one; a NaN in `b` stays.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Asks for the cache line at `p`, any address. A hint.
    fn prefetch(_p: *const f32) {}

    /// [`super::conv::tile`] with this instruction set enabled.
    unsafe fn conv_tile<const PIXELS: usize, const VECTORS: usize>(tile: &Tile);
    /// [`super::depthwise::row`] with this instruction set enabled.
    unsafe fn depthwise_row(row: &DepthwiseRow);
    /// [`super::pointwise::affine_row`] with this instruction set enabled.
    unsafe fn affine_row(row: &AffineRow);
    /// [`super::pointwise::pool_pixel`] with this instruction set enabled.
    unsafe fn pool_pixel(pixel: &PoolPixel);
    /// [`super::winograd::input_patch`] with this instruction set enabled.
    unsafe fn winograd_input(patch: &InputPatch);
    /// [`super::winograd::output_tile`] with this instruction set enabled.
    unsafe fn winograd_output(tile: &OutputTile);
    /// [`super::rounding::round`] with this instruction set enabled.
    unsafe fn round(rounding: &Rounding);
}

/// Writes the entry points of [`Simd`] for one instruction set.
macro_rules! entry_points {
    ($(#[$feature:meta])*) => {
        $(#[$feature])*
        unsafe fn conv_tile<const PIXELS: usize, const VECTORS: usize>(tile: &crate::engine::kernels::conv::Tile) {
            // SAFETY: the caller's promise about the tile is the one the body asks for.
            unsafe { crate::engine::kernels::conv::tile::<Self, PIXELS, VECTORS>(tile) }
        }
        $(#[$feature])*
        unsafe fn depthwise_row(row: &crate::engine::kernels::depthwise::DepthwiseRow) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::depthwise::row::<Self>(row) }
        }
        $(#[$feature])*
        unsafe fn affine_row(row: &crate::engine::kernels::pointwise::AffineRow) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::pointwise::affine_row::<Self>(row) }
        }
        $(#[$feature])*
        unsafe fn pool_pixel(pixel: &crate::engine::kernels::pointwise::PoolPixel) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::pointwise::pool_pixel::<Self>(pixel) }
        }
        $(#[$feature])*
        unsafe fn winograd_input(patch: &crate::engine::kernels::winograd::InputPatch) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::winograd::input_patch::<Self>(patch) }
        }
        $(#[$feature])*
        unsafe fn winograd_output(tile: &crate::engine::kernels::winograd::OutputTile) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::winograd::output_tile::<Self>(tile) }
        }
        $(#[$feature])*
        unsafe fn round(rounding: &crate::engine::kernels::rounding::Rounding) {
            // SAFETY: as above.
            unsafe { crate::engine::kernels::rounding::round(rounding) }
        }
    };
}
pub(super) use entry_points;
