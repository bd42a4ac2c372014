//! Loops over values, compiled for the vector instructions of the processor that the program runs on.

use candle_core::{CpuStorage, DType, Device, Layout, Storage, Tensor};
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

/// Whether all values are finite.
pub fn all_finite(values: &[f32]) -> bool {
    vectorised(
        // A fold without branches is vectorised; `all` is not.
        #[inline(always)]
        || values.iter().fold(true, |finite, value| finite & value.is_finite()),
    )
}

/// Calls `action` with the values of a tensor as `f32`, in the order of its axes; they are copied only where they do not lie like that on the CPU.
///
/// # Errors
/// Those of the tensor library.
pub fn with_values<R>(tensor: &Tensor, action: impl FnOnce(&[f32]) -> R) -> candle_core::Result<R> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let values = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => storage.as_slice::<f32>()?.get(start..end),
        _ => None,
    };
    let elsewhere = || candle_core::Error::Msg("a contiguous tensor on the CPU has no values there".into());
    Ok(action(values.ok_or_else(elsewhere)?))
}

/// A copy of the values of a tensor, as [`with_values`] gives them.
///
/// # Errors
/// Those of the tensor library.
pub fn values(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    with_values(tensor, <[f32]>::to_vec)
}

/// The values of a contiguous `f32` operand of an operation.
///
/// # Errors
/// An operand that is not contiguous, or of another dtype.
pub fn operand<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operand is not contiguous");
    };
    Ok(storage.as_slice::<f32>()?.get(start..end).unwrap_or_default())
}

/// The variance of values from the mean of their squares and the square of their mean (or sums of both over channels); 0 where the difference is no
/// more than rounding.
///
/// ```
/// assert_eq!(masf_core::variance(5.0, 4.0), 1.0);
/// // 784 times 0.7, whose squares are rounded.
/// let mean_square = (0..784).map(|_| 0.7f64 * 0.7).sum::<f64>() / 784.0;
/// assert_eq!(masf_core::variance(mean_square, 0.7 * 0.7), 0.0);
/// ```
pub fn variance(mean_square: f64, square_of_mean: f64) -> f64 {
    let variance = mean_square - square_of_mean;
    if variance > 1e-12 * mean_square { variance } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_tensor_however_it_lies() -> candle_core::Result<()> {
        let tensor = Tensor::arange(0f32, 24f32, &Device::Cpu)?.reshape((2, 3, 4))?;
        for tensor in [tensor.clone(), tensor.permute((2, 0, 1))?, tensor.get(1)?, tensor.to_dtype(DType::F64)?] {
            let expected = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(values(&tensor)?, expected);
        }
        Ok(())
    }

    #[test]
    fn one_value_is_enough_not_to_be_finite() {
        let mut values = vec![f32::MAX; 1000];
        assert!(all_finite(&values) && all_finite(&[]));
        for (index, wrong) in [(0, f32::NAN), (500, f32::INFINITY), (999, f32::NEG_INFINITY)] {
            values[index] = wrong;
            assert!(!all_finite(&values), "{wrong} at {index}");
            values[index] = 0.0;
        }
    }
}
