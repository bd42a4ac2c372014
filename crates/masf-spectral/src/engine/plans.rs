//! Sample types, and plans of transforms, made once per length and shared by all threads.

use super::lanes::{LinePlan, MAX_LANES, Wide};
use pulp::Simd;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftDirection, FftNum, FftPlanner};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The planners of one sample type; both cache the plans they make.
pub(crate) struct Planners<T: Sample> {
    complex: FftPlanner<T>,
    real: RealFftPlanner<T>,
    lines: HashMap<usize, Option<Arc<LinePlan<T>>>>,
}

impl<T: Sample> Planners<T> {
    fn new() -> Self {
        Self { complex: FftPlanner::new(), real: RealFftPlanner::new(), lines: HashMap::new() }
    }
}

/// A sample type that the engine transforms: f32 or f64.
pub(crate) trait Sample: FftNum + Default {
    /// The process-wide planners of this type.
    fn planners() -> MutexGuard<'static, Planners<Self>>;

    /// Nearest value of this type.
    fn of(value: f64) -> Self;

    /// A register full of values.
    type Vector<S: Simd>: Copy;

    /// `S::splat` and so on for this type.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;
    fn vadd<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn vsub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn vmul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a * b + c`
    fn vmul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// The whole vectors of a slice.
    fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>];
    fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<S>];
    /// Transposes the square block of the first registers.
    fn transpose<S: Wide>(simd: S, block: &mut [Self::Vector<S>; MAX_LANES]);
    /// Values per register.
    fn lanes<S: Simd>() -> usize;
}

macro_rules! sample {
    ($type:ty, $vector:ident, $lanes:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident, $mul_add:ident, $view:ident, $view_mut:ident, $transpose:ident) => {
        impl Sample for $type {
            fn planners() -> MutexGuard<'static, Planners<Self>> {
                static PLANNERS: OnceLock<Mutex<Planners<$type>>> = OnceLock::new();
                let mutex = PLANNERS.get_or_init(|| Mutex::new(Planners::new()));
                // A panic while planning leaves at worst an unused entry behind.
                mutex.lock().unwrap_or_else(PoisonError::into_inner)
            }

            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $type
            }

            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S> {
                simd.$splat(value)
            }

            #[inline(always)]
            fn vadd<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn vsub<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$sub(a, b)
            }

            #[inline(always)]
            fn vmul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S> {
                simd.$mul(a, b)
            }

            #[inline(always)]
            fn vmul_add<S: Simd>(
                simd: S,
                a: Self::Vector<S>,
                b: Self::Vector<S>,
                c: Self::Vector<S>,
            ) -> Self::Vector<S> {
                simd.$mul_add(a, b, c)
            }

            #[inline(always)]
            fn vectors<S: Simd>(slice: &[Self]) -> &[Self::Vector<S>] {
                S::$view(slice).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(slice: &mut [Self]) -> &mut [Self::Vector<S>] {
                S::$view_mut(slice).0
            }

            #[inline(always)]
            fn transpose<S: Wide>(simd: S, block: &mut [Self::Vector<S>; MAX_LANES]) {
                simd.$transpose(block);
            }

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }
        }
    };
}

sample!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    add_f32s,
    sub_f32s,
    mul_f32s,
    mul_add_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    transpose_f32
);
sample!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    add_f64s,
    sub_f64s,
    mul_f64s,
    mul_add_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    transpose_f64
);

pub(super) fn complex<T: Sample>(length: usize, inverse: bool) -> Arc<dyn Fft<T>> {
    let direction = if inverse { FftDirection::Inverse } else { FftDirection::Forward };
    T::planners().complex.plan_fft(length, direction)
}

pub(super) fn real_forward<T: Sample>(length: usize) -> Arc<dyn RealToComplex<T>> {
    T::planners().real.plan_fft_forward(length)
}

pub(super) fn real_inverse<T: Sample>(length: usize) -> Arc<dyn ComplexToReal<T>> {
    T::planners().real.plan_fft_inverse(length)
}

/// The plan of the lane kernel, if the length has one.
pub(super) fn lines<T: Sample>(length: usize) -> Option<Arc<LinePlan<T>>> {
    T::planners().lines.entry(length).or_insert_with(|| LinePlan::new(length).map(Arc::new)).clone()
}
