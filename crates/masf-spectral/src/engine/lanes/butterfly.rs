//! Forward transforms of 2, 3, 4, 5, 7 and 8 points in registers.

use super::vector::Complex;
use crate::engine::plans::Sample;
use pulp::Simd;
use std::f64::consts::FRAC_1_SQRT_2;

/// A transform of `R` points. A trait, not a function argument: calls through function items are not inlined into a dispatch.
pub(super) trait Butterfly<const R: usize> {
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; R]) -> [Complex<T, S>; R];
}

pub(super) struct Two;
pub(super) struct Four;
pub(super) struct Eight;
pub(super) struct Odd;

impl Butterfly<2> for Two {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, [a, b]: [Complex<T, S>; 2]) -> [Complex<T, S>; 2] {
        [a.add(simd, b), a.sub(simd, b)]
    }
}

impl Butterfly<4> for Four {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 4]) -> [Complex<T, S>; 4] {
        four(simd, x)
    }
}

impl Butterfly<8> for Eight {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 8]) -> [Complex<T, S>; 8] {
        eight(simd, x)
    }
}

impl Butterfly<3> for Odd {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 3]) -> [Complex<T, S>; 3] {
        odd(simd, x)
    }
}

impl Butterfly<5> for Odd {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 5]) -> [Complex<T, S>; 5] {
        odd(simd, x)
    }
}

impl Butterfly<7> for Odd {
    #[inline(always)]
    fn apply<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 7]) -> [Complex<T, S>; 7] {
        odd(simd, x)
    }
}

#[inline(always)]
fn four<T: Sample, S: Simd>(simd: S, [a, b, c, d]: [Complex<T, S>; 4]) -> [Complex<T, S>; 4] {
    let (s, t) = (a.add(simd, c), a.sub(simd, c));
    let (u, v) = (b.add(simd, d), b.sub(simd, d));
    [s.add(simd, u), t.sub_i(simd, v), s.sub(simd, u), t.add_i(simd, v)]
}

#[inline(always)]
fn eight<T: Sample, S: Simd>(simd: S, x: [Complex<T, S>; 8]) -> [Complex<T, S>; 8] {
    let [a, b, c, d, e, f, g, h] = x;
    let [e0, e1, e2, e3] = four(simd, [a, c, e, g]);
    let [o0, o1, o2, o3] = four(simd, [b, d, f, h]);
    // Times exp(-2 pi i k / 8): for k = 1 (1 - i) / sqrt 2, for k = 2 -i, for k = 3 -(1 + i) / sqrt 2.
    let half = T::splat(simd, T::of(FRAC_1_SQRT_2));
    let o1 = Complex::<T, S> { re: T::vadd(simd, o1.re, o1.im), im: T::vsub(simd, o1.im, o1.re) }.scale(simd, half);
    let o3 = Complex::<T, S> { re: T::vsub(simd, o3.im, o3.re), im: T::vadd(simd, o3.re, o3.im) }.scale(simd, half);
    [
        e0.add(simd, o0),
        e1.add(simd, o1),
        e2.sub_i(simd, o2),
        Complex { re: T::vadd(simd, e3.re, o3.re), im: T::vsub(simd, e3.im, o3.im) },
        e0.sub(simd, o0),
        e1.sub(simd, o1),
        e2.add_i(simd, o2),
        Complex { re: T::vsub(simd, e3.re, o3.re), im: T::vadd(simd, e3.im, o3.im) },
    ]
}

/// An odd number of points from sums and differences of the pairs `x_j, x_{R-j}`:
/// `X_k = x_0 + sum_j cos(2 pi j k / R) (x_j + x_{R-j}) - i sum_j sin(2 pi j k / R) (x_j - x_{R-j})`.
#[inline(always)]
fn odd<T: Sample, S: Simd, const R: usize>(simd: S, x: [Complex<T, S>; R]) -> [Complex<T, S>; R] {
    let pairs = R / 2;
    let mut out = x;
    let (mut sums, mut differences) = (x, x);
    let mut j = 1;
    while j <= pairs {
        sums[j] = x[j].add(simd, x[R - j]);
        differences[j] = x[j].sub(simd, x[R - j]);
        out[0] = out[0].add(simd, sums[j]);
        j += 1;
    }
    // Plain counting: iterators are not always inlined into a dispatch.
    let mut k = 1;
    while k <= pairs {
        let (cos, sin) = turn(1, k, R);
        let mut even = x[0].add_scaled(simd, sums[1], T::splat(simd, T::of(cos)));
        let mut rest = differences[1].scale(simd, T::splat(simd, T::of(sin)));
        let mut j = 2;
        while j <= pairs {
            let (cos, sin) = turn(j, k, R);
            even = even.add_scaled(simd, sums[j], T::splat(simd, T::of(cos)));
            rest = rest.add_scaled(simd, differences[j], T::splat(simd, T::of(sin)));
            j += 1;
        }
        out[k] = even.sub_i(simd, rest);
        out[R - k] = even.add_i(simd, rest);
        k += 1;
    }
    out
}

/// Cosine and sine of `2 pi j k / R`, from tables, so that the compiler sees constants.
#[inline(always)]
fn turn(j: usize, k: usize, radix: usize) -> (f64, f64) {
    const THREE: [(f64, f64); 3] = [(1.0, 0.0), (-0.5, 0.866_025_403_784_438_6), (-0.5, -0.866_025_403_784_438_6)];
    const FIVE: [(f64, f64); 5] = [
        (1.0, 0.0),
        (0.309_016_994_374_947_45, 0.951_056_516_295_153_5),
        (-0.809_016_994_374_947_3, 0.587_785_252_292_473_2),
        (-0.809_016_994_374_947_3, -0.587_785_252_292_473_2),
        (0.309_016_994_374_947_45, -0.951_056_516_295_153_5),
    ];
    const SEVEN: [(f64, f64); 7] = [
        (1.0, 0.0),
        (0.623_489_801_858_733_6, 0.781_831_482_468_029_8),
        (-0.222_520_933_956_314_34, 0.974_927_912_181_823_6),
        (-0.900_968_867_902_419_1, 0.433_883_739_117_558_2),
        (-0.900_968_867_902_419_1, -0.433_883_739_117_558_2),
        (-0.222_520_933_956_314_34, -0.974_927_912_181_823_6),
        (0.623_489_801_858_733_6, -0.781_831_482_468_029_8),
    ];
    match radix {
        3 => THREE[(j * k) % 3],
        5 => FIVE[(j * k) % 5],
        _ => SEVEN[(j * k) % 7],
    }
}
