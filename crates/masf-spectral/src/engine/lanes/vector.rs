//! Complex vectors: one complex number of each of several lines, side by side.
//!
//! The kernels are written against [`pulp::Simd`], which picks AVX-512, AVX2, NEON or plain scalars when the program runs. All functions are
//! `inline(always)`: instructions of a dispatched set may only be used by code inlined into the dispatch.

use crate::engine::plans::Sample;
use pulp::Simd;

/// Real and imaginary parts, one per line.
pub(super) struct Complex<T: Sample, S: Simd> {
    pub(super) re: T::Vector<S>,
    pub(super) im: T::Vector<S>,
}

impl<T: Sample, S: Simd> Clone for Complex<T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Sample, S: Simd> Copy for Complex<T, S> {}

impl<T: Sample, S: Simd> Complex<T, S> {
    #[inline(always)]
    pub(super) fn add(self, simd: S, other: Self) -> Self {
        Self { re: T::vadd(simd, self.re, other.re), im: T::vadd(simd, self.im, other.im) }
    }

    #[inline(always)]
    pub(super) fn sub(self, simd: S, other: Self) -> Self {
        Self { re: T::vsub(simd, self.re, other.re), im: T::vsub(simd, self.im, other.im) }
    }

    /// `self - i other`
    #[inline(always)]
    pub(super) fn sub_i(self, simd: S, other: Self) -> Self {
        Self { re: T::vadd(simd, self.re, other.im), im: T::vsub(simd, self.im, other.re) }
    }

    /// `self + i other`
    #[inline(always)]
    pub(super) fn add_i(self, simd: S, other: Self) -> Self {
        Self { re: T::vsub(simd, self.re, other.im), im: T::vadd(simd, self.im, other.re) }
    }

    /// Product with a real number.
    #[inline(always)]
    pub(super) fn scale(self, simd: S, factor: T::Vector<S>) -> Self {
        Self { re: T::vmul(simd, self.re, factor), im: T::vmul(simd, self.im, factor) }
    }

    /// `self + factor * other`
    #[inline(always)]
    pub(super) fn add_scaled(self, simd: S, other: Self, factor: T::Vector<S>) -> Self {
        Self { re: T::vmul_add(simd, other.re, factor, self.re), im: T::vmul_add(simd, other.im, factor, self.im) }
    }

    /// Product with the complex number `(re, im)`.
    #[inline(always)]
    pub(super) fn turn(self, simd: S, (re, im): (T, T)) -> Self {
        let (cos, sin, minus_sin) = (T::splat(simd, re), T::splat(simd, im), T::splat(simd, -im));
        Self {
            re: T::vmul_add(simd, self.re, cos, T::vmul(simd, self.im, minus_sin)),
            im: T::vmul_add(simd, self.im, cos, T::vmul(simd, self.re, sin)),
        }
    }
}
