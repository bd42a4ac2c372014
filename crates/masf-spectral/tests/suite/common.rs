//! Helpers of the integration tests.

use candle_core::{DType, Device, Shape, Tensor};
use masf_spectral::{ComplexTensor, Result};

/// Seeded noise in [-1, 1], f64, the same for the same seed and shape.
pub(crate) fn noise<S: Into<Shape>>(seed: u64, shape: S) -> Result<Tensor> {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    let values: Vec<f64> = (0..shape.elem_count())
        .map(|_| {
            // splitmix64
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

pub(crate) fn complex_noise<S: Into<Shape>>(seed: u64, shape: S) -> Result<ComplexTensor> {
    let shape = shape.into();
    ComplexTensor::new(&noise(seed, shape.clone())?, &noise(seed ^ 0xABCD, shape)?)
}

pub(crate) fn max_abs(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.abs()?.max_all()?.to_scalar::<f64>()?)
}

/// Largest difference, relative to the largest value of the second tensor.
pub(crate) fn relative(ours: &Tensor, expected: &Tensor) -> Result<f64> {
    assert_eq!(ours.dims(), expected.dims());
    let expected = expected.to_dtype(DType::F64)?;
    let difference = max_abs(&(ours.to_dtype(DType::F64)? - &expected)?)?;
    Ok(difference / max_abs(&expected)?.max(1e-300))
}

/// The accuracy asked of a dtype.
pub(crate) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        _ => 1e-5,
    }
}
