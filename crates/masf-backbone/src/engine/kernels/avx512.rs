//! AVX-512: 16 numbers per vector, 32 registers.

use super::simd::{Simd, entry_points};
use std::arch::x86_64::*;

/// AVX-512F.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

/// Mask of the first `count <= 16` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

// SAFETY of every block: the trait's contract (instruction set present, pointers valid for the vector or its first
// `count` numbers; masked-out lanes are not accessed).
impl Simd for Avx512 {
    type Vector = __m512;
    const LANES: usize = 16;
    // 24 to 28 accumulators, 1 to 4 registers of weights, one broadcast. 14 x 2 and 12 x 2 lose to 6 x 4 where pixels
    // are 4096 bytes apart: more rows than the first-level cache has ways (87 and 105 against 117 GFLOP/s).
    const TILE_PIXELS: [usize; 4] = [14, 12, 8, 6];

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first(count), p) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(count), v) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn clamp(v: __m512, low: __m512, high: __m512) -> __m512 {
        // The instructions return their second operand when either one is NaN.
        unsafe { _mm512_min_ps(high, _mm512_max_ps(low, v)) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch does not fault, whatever the address; SSE is part of the target's baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    entry_points!(#[target_feature(enable = "avx512f")]);
}
