//! Plain Rust over arrays of four numbers, which compilers turn into 128-bit vectors (NEON, SSE2, SIMD128).

use super::simd::{Simd, entry_points};

/// No instruction set beyond the target's baseline.
#[derive(Clone, Copy)]
pub(super) struct Portable;

// SAFETY of every block: the trait's contract on pointers; `f32` has no invalid bit patterns, and the accesses are
// unaligned ones of exactly the promised length.
impl Simd for Portable {
    type Vector = [f32; 4];
    const LANES: usize = 4;
    // AArch64 has 32 vector registers; the other baselines have 16.
    const TILE_PIXELS: [usize; 4] = if cfg!(target_arch = "aarch64") { [14, 12, 8, 6] } else { [10, 6, 4, 0] };

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, count: usize) -> [f32; 4] {
        std::array::from_fn(|i| if i < count { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: [f32; 4], count: usize) {
        for (i, x) in v.into_iter().enumerate().take(count) {
            unsafe { *p.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // A fused product where it is one instruction; elsewhere `mul_add` would be a library call.
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn clamp(v: [f32; 4], low: [f32; 4], high: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| {
            let x = if low[i] > v[i] { low[i] } else { v[i] };
            if high[i] < x { high[i] } else { x }
        })
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    entry_points!();
}
