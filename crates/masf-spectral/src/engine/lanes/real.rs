//! Packing real transforms into complex ones of half the length.
//!
//! With `W = 2 n`, the even and odd samples of a real line make one complex line `z_j = x_{2j} + i x_{2j+1}` with transform `Z`. Then
//! `X_k = (Z_k + Z*_{n-k}) / 2 - i/2 exp(-2 pi i k / W) (Z_k - Z*_{n-k})`. `X_0` and `X_n` are real and share the place of `Z_0`: the spectrum
//! of a line takes `n` complex numbers. Over two axes the columns 0 and `n` of such rows are real lines, too: their transforms are
//! the even and the odd part of the transform of the shared column.

use super::vector::Complex;
use crate::engine::plans::Sample;
use crate::engine::source::Source;
use pulp::Simd;
use std::f64::consts::TAU;

/// `-i/2 exp(-2 pi i k / W)` for `k` in `1 ..= (n-1) / 2`.
pub(super) fn twiddles<T: Sample>(half: usize) -> Vec<(T, T)> {
    (1..half.div_ceil(2))
        .map(|k| {
            let angle = TAU * k as f64 / (2 * half) as f64;
            (T::of(-0.5 * angle.sin()), T::of(-0.5 * angle.cos()))
        })
        .collect()
}

/// From `Z` to `X`, in place.
#[inline(always)]
pub(super) fn untangle<T: Sample, S: Simd>(
    simd: S,
    re: &mut [T::Vector<S>],
    im: &mut [T::Vector<S>],
    twiddles: &[(T, T)],
) {
    let half = re.len();
    let (a, b) = (re[0], im[0]);
    (re[0], im[0]) = (T::vadd(simd, a, b), T::vsub(simd, a, b));
    let factor = T::splat(simd, T::of(0.5));
    for k in 1..=twiddles.len() {
        let m = half - k;
        let (sum, difference) = fold(simd, (re[k], im[k]), (re[m], im[m]));
        let (even, odd) = (sum.scale(simd, factor), difference.turn(simd, twiddles[k - 1]));
        let (first, second) = (even.add(simd, odd), even.sub(simd, odd));
        (re[k], im[k]) = (first.re, first.im);
        (re[m], im[m]) = (second.re, negate::<T, S>(simd, second.im));
    }
    if half.is_multiple_of(2) {
        im[half / 2] = negate::<T, S>(simd, im[half / 2]);
    }
}

/// From `X` to `2 Z`, in place.
#[inline(always)]
pub(super) fn entangle<T: Sample, S: Simd>(
    simd: S,
    re: &mut [T::Vector<S>],
    im: &mut [T::Vector<S>],
    twiddles: &[(T, T)],
) {
    let half = re.len();
    let (a, b) = (re[0], im[0]);
    (re[0], im[0]) = (T::vadd(simd, a, b), T::vsub(simd, a, b));
    let two = T::of(2.0);
    for k in 1..=twiddles.len() {
        let (m, (cos, sin)) = (half - k, twiddles[k - 1]);
        let (sum, difference) = fold(simd, (re[k], im[k]), (re[m], im[m]));
        let odd = difference.turn(simd, (two * cos, -two * sin));
        let (first, second) = (sum.add(simd, odd), sum.sub(simd, odd));
        (re[k], im[k]) = (first.re, first.im);
        (re[m], im[m]) = (second.re, negate::<T, S>(simd, second.im));
    }
    if half.is_multiple_of(2) {
        let middle = Complex::<T, S> { re: re[half / 2], im: im[half / 2] };
        re[half / 2] = T::vadd(simd, middle.re, middle.re);
        im[half / 2] = negate::<T, S>(simd, T::vadd(simd, middle.im, middle.im));
    }
}

/// `a + b*` and `a - b*`.
#[inline(always)]
fn fold<T: Sample, S: Simd>(
    simd: S,
    a: (T::Vector<S>, T::Vector<S>),
    b: (T::Vector<S>, T::Vector<S>),
) -> (Complex<T, S>, Complex<T, S>) {
    let sum = Complex { re: T::vadd(simd, a.0, b.0), im: T::vsub(simd, a.1, b.1) };
    let difference = Complex { re: T::vsub(simd, a.0, b.0), im: T::vadd(simd, a.1, b.1) };
    (sum, difference)
}

#[inline(always)]
fn negate<T: Sample, S: Simd>(simd: S, a: T::Vector<S>) -> T::Vector<S> {
    T::vsub(simd, T::splat(simd, T::zero()), a)
}

/// Parts the transform of the shared column, which lies in column 0 of the map `[H, columns]`, into columns 0 and `columns - 1`.
pub(super) fn part_columns<T: Sample>(re: &mut [T], im: &mut [T], columns: usize) {
    let height = re.len() / columns;
    let last = columns - 1;
    let half = T::of(0.5);
    for row in 0..=height / 2 {
        let (a, b) = (row * columns, (height - row) % height * columns);
        let (p, q, r, s) = (re[a], im[a], re[b], im[b]);
        let (even, odd) = ((half * (p + r), half * (q - s)), (half * (q + s), half * (r - p)));
        (re[a], im[a], re[a + last], im[a + last]) = (even.0, even.1, odd.0, odd.1);
        if a != b {
            (re[b], im[b], re[b + last], im[b + last]) = (even.0, -even.1, odd.0, -odd.1);
        }
    }
}

/// Joins the Hermitian parts of columns 0 and `half` of a half spectrum, times `factor`: what the real parts of their inverse transforms need.
pub(super) fn join_columns<T: Sample>(
    source: &Source<T>,
    map: usize,
    half: usize,
    factor: T,
    mut put: impl FnMut(usize, T, T),
) {
    let height = source.height;
    let factor = factor * T::of(0.5);
    let hermitian = |row: usize, mirror: usize, column: usize| {
        let re = source.at(map, 0, row, column) + source.at(map, 0, mirror, column);
        let im = source.at(map, 1, row, column) - source.at(map, 1, mirror, column);
        (factor * re, factor * im)
    };
    for row in 0..height {
        let mirror = (height - row) % height;
        let (even, odd) = (hermitian(row, mirror, 0), hermitian(row, mirror, half));
        put(row, even.0 - odd.1, even.1 + odd.0);
    }
}
