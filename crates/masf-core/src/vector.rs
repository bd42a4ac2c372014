//! Loops compiled for the vector instructions of the processor that the program runs on.

use pulp::{Arch, Simd, WithSimd};

/// Runs a closure, compiled for each instruction set that [`pulp`] knows, on the best one that this processor has.
///
/// The closure must be marked `#[inline(always)]`, and so must the functions whose loops it is about; what is not inlined into it is compiled for
/// the least processor. Floating-point results do not depend on the instruction set: loops are vectorised, not reordered, and
/// products and sums are not contracted.
///
/// ```
/// use masf_core::vectorised;
/// let mut values = [1f32, 2.0, 3.0];
/// vectorised(
///     #[inline(always)]
///     || values.iter_mut().for_each(|value| *value *= 2.0),
/// );
/// assert_eq!(values, [2.0, 4.0, 6.0]);
/// ```
#[inline(always)]
pub fn vectorised<R>(work: impl FnMut() -> R) -> R {
    /// Calls the closure itself. `Arch::dispatch` of a closure calls `FnOnce::call_once`, for one that can be called again an adapter
    /// that the attribute does not reach: it may stay a function of its own, compiled for the least processor.
    struct Direct<F>(F);
    impl<R, F: FnMut() -> R> WithSimd for Direct<F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }
    Arch::new().dispatch(Direct(work))
}
