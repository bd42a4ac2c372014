//! AVX-512 with AVX512-BF16: convolutions take pairs of `bf16`, everything else is as without.

use super::avx512::Avx512;
use super::simd::{Simd, entry_points};
use std::arch::x86_64::*;

/// AVX-512F and AVX512-BF16.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bf16;

// SAFETY of every block: the trait's contract.
impl Simd for Avx512Bf16 {
    type Vector = __m512;
    const LANES: usize = Avx512::LANES;
    const TILE_PIXELS: [usize; 4] = Avx512::TILE_PIXELS;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { Avx512::splat(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { Avx512::load(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { Avx512::store(p, v) }
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, count: usize) -> __m512 {
        unsafe { Avx512::load_first(p, count) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m512, count: usize) {
        unsafe { Avx512::store_first(p, v, count) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { Avx512::mul_add(a, b, c) }
    }
    /// Lanes of `a` and `b` are pairs of `bf16`; they are moved and stored as if they were `f32`.
    #[inline(always)]
    unsafe fn dot(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the types have the same size, and every bit pattern is a value of both.
        unsafe {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { Avx512::add(a, b) }
    }
    #[inline(always)]
    unsafe fn clamp(v: __m512, low: __m512, high: __m512) -> __m512 {
        unsafe { Avx512::clamp(v, low, high) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { Avx512::max(a, b) }
    }
    #[inline(always)]
    fn prefetch(p: *const f32) {
        Avx512::prefetch(p);
    }

    entry_points!(#[target_feature(enable = "avx512f,avx512bf16")]);
}
