//! AVX2 with FMA: 8 numbers per vector, 16 registers.

use super::simd::{Simd, entry_points};
use std::arch::x86_64::*;

/// AVX2 and FMA3.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// Mask of the first `count <= 8` lanes.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    // SAFETY: the caller runs on a processor with AVX2.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

// SAFETY of every block: the trait's contract (instruction set present, pointers valid for the vector or its first
// `count` numbers; masked-out lanes are not accessed).
impl Simd for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;
    const TILE_PIXELS: [usize; 4] = [10, 6, 4, 0];

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, count: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(p, first(count)) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m256, count: usize) {
        unsafe { _mm256_maskstore_ps(p, first(count), v) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn clamp(v: __m256, low: __m256, high: __m256) -> __m256 {
        // The instructions return their second operand when either one is NaN.
        unsafe { _mm256_min_ps(high, _mm256_max_ps(low, v)) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        // SAFETY: a prefetch does not fault, whatever the address; SSE is part of the target's baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    entry_points!(#[target_feature(enable = "avx2,fma")]);
}
