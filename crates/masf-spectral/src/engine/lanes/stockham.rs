//! The Stockham transform of several lines at once (W. T. Cochran et al., "What is the fast Fourier transform?", 1967; the self-sorting
//! form after Stockham): each stage reads one buffer and writes the other in the order of the next, so no bit reversal is needed.
//!
//! A stage of radix `R` on sub-transforms of length `n`, of which `s` are interleaved, with `m = n / R`:
//! `y[q + s (R p + j)] = exp(-2 pi i p j / n) DFT_R(x[q + s (p + m .)])_j` for `p < m`, `q < s`.

use super::butterfly::{Butterfly, Eight, Four, Odd, Two};
use super::vector::Complex;
use crate::engine::plans::Sample;
use pulp::{NullaryFnOnce, Simd};
use std::f64::consts::TAU;

/// Stages for one length, forward; an inverse transform swaps the real and the imaginary buffers on both sides.
pub(crate) struct LinePlan<T> {
    pub(super) length: usize,
    stages: Vec<Stage<T>>,
}

struct Stage<T> {
    radix: usize,
    /// `m` of the module's head.
    groups: usize,
    /// `s` of the module's head.
    stride: usize,
    /// `exp(-2 pi i p j / n)` for `p` in `1..m`, `j` in `1..R`.
    twiddles: Vec<(T, T)>,
}

impl<T: Sample> LinePlan<T> {
    /// A plan, if the length has no prime factor but 2, 3, 5 and 7.
    pub(crate) fn new(length: usize) -> Option<Self> {
        let radices = radices(length)?;
        let (mut remaining, mut stride) = (length, 1);
        let mut stages = Vec::new();
        for radix in radices {
            let groups = remaining / radix;
            let twiddles = (1..groups)
                .flat_map(|p| (1..radix).map(move |j| (p * j) % remaining))
                .map(|step| {
                    let angle = -TAU * step as f64 / remaining as f64;
                    (T::of(angle.cos()), T::of(angle.sin()))
                })
                .collect();
            stages.push(Stage { radix, groups, stride, twiddles });
            (remaining, stride) = (groups, stride * radix);
        }
        Some(Self { length, stages })
    }

    /// Transforms `length` vectors per part, to and fro between two pairs of buffers.
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, data: PartsMut<T::Vector<S>>, work: PartsMut<T::Vector<S>>) {
        let (mut from, mut to) = (data, work);
        for stage in &self.stages {
            stage.run(simd, (&*from.0, &*from.1), (&mut *to.0, &mut *to.1));
            std::mem::swap(&mut from, &mut to);
        }
    }

    /// Whether [`Lines`] leaves the result in the buffers of the work: after an odd number of stages.
    pub(super) fn ends_in_work(&self) -> bool {
        !self.stages.len().is_multiple_of(2)
    }
}

/// Radices of the stages: eights and fours for the power of two, then 7, 5, 3. `None` for other prime factors.
fn radices(length: usize) -> Option<Vec<usize>> {
    let mut rest = length;
    let mut take = |factor: usize| {
        let mut count = 0;
        while rest > 1 && rest.is_multiple_of(factor) {
            rest /= factor;
            count += 1;
        }
        count
    };
    let twos = take(2);
    let odd = [(7, take(7)), (5, take(5)), (3, take(3))];
    if rest != 1 {
        return None;
    }
    let (eights, fours, two) = match twos % 3 {
        0 => (twos / 3, 0, 0),
        1 if twos >= 4 => ((twos - 4) / 3, 2, 0),
        1 => (0, 0, 1),
        _ => ((twos - 2) / 3, 1, 0),
    };
    let mut radices = Vec::new();
    for (radix, count) in odd.into_iter().chain([(8, eights), (4, fours), (2, two)]) {
        radices.extend(std::iter::repeat_n(radix, count));
    }
    Some(radices)
}

type Parts<'a, V> = (&'a [V], &'a [V]);
type PartsMut<'a, V> = (&'a mut [V], &'a mut [V]);

impl<T: Sample> Stage<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, from: Parts<T::Vector<S>>, to: PartsMut<T::Vector<S>>) {
        match self.radix {
            2 => self.pass::<S, Two, 2>(simd, from, to),
            3 => self.pass::<S, Odd, 3>(simd, from, to),
            4 => self.pass::<S, Four, 4>(simd, from, to),
            5 => self.pass::<S, Odd, 5>(simd, from, to),
            7 => self.pass::<S, Odd, 7>(simd, from, to),
            _ => self.pass::<S, Eight, 8>(simd, from, to),
        }
    }

    #[inline(always)]
    fn pass<S: Simd, B: Butterfly<R>, const R: usize>(
        &self,
        simd: S,
        from: Parts<T::Vector<S>>,
        to: PartsMut<T::Vector<S>>,
    ) {
        let (groups, stride) = (self.groups, self.stride);
        let inputs = groups * stride;
        let (from_re, from_im) = (&from.0[..R * inputs], &from.1[..R * inputs]);
        let (to_re, to_im) = (&mut to.0[..R * inputs], &mut to.1[..R * inputs]);
        let zero = Complex { re: T::splat(simd, T::zero()), im: T::splat(simd, T::zero()) };
        for p in 0..groups {
            let block = R * stride * p;
            for q in 0..stride {
                let at = q + stride * p;
                let mut x = [zero; R];
                for j in 0..R {
                    x[j] = Complex { re: from_re[at + j * inputs], im: from_im[at + j * inputs] };
                }
                let mut y = B::apply(simd, x);
                if p > 0 {
                    let twiddles = &self.twiddles[(p - 1) * (R - 1)..p * (R - 1)];
                    for j in 1..R {
                        y[j] = y[j].turn(simd, twiddles[j - 1]);
                    }
                }
                for j in 0..R {
                    to_re[block + q + stride * j] = y[j].re;
                    to_im[block + q + stride * j] = y[j].im;
                }
            }
        }
    }
}

/// The transform of a tile's lines as one dispatched call: inlined into every pass, the stages would make functions too large to optimise.
pub(super) struct Lines<'a, T: Sample, S: Simd> {
    pub(super) simd: S,
    pub(super) plan: &'a LinePlan<T>,
    pub(super) data: PartsMut<'a, T::Vector<S>>,
    pub(super) work: PartsMut<'a, T::Vector<S>>,
}

impl<T: Sample, S: Simd> NullaryFnOnce for Lines<'_, T, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.plan.run(self.simd, self.data, self.work);
    }
}
