//! Frequencies of the bins, the order of the bins, and grids over them.

use crate::error::{Error, Result};
use crate::spectrum::Axes;
use candle_core::{DType, Device, Tensor};

/// Frequencies of a full spectrum of `length` samples that lie `spacing` apart, in cycles per unit:
/// `0, 1, ..., (n-1)/2, -n/2, ..., -1` over `n * spacing`, as `numpy.fft.fftfreq`.
///
/// # Errors
/// If the length is zero or the spacing not a positive number.
pub fn fftfreq(length: usize, spacing: f64) -> Result<Vec<f64>> {
    check_spacing(length, spacing)?;
    Ok((0..length).map(|index| signed(index, length) / (length as f64 * spacing)).collect())
}

/// Frequencies of a half spectrum: `0, 1, ..., n/2` over `n * spacing`, as `numpy.fft.rfftfreq`.
///
/// # Errors
/// If the length is zero or the spacing not a positive number.
pub fn rfftfreq(length: usize, spacing: f64) -> Result<Vec<f64>> {
    check_spacing(length, spacing)?;
    Ok((0..=length / 2).map(|index| index as f64 / (length as f64 * spacing)).collect())
}

/// Moves the zero frequency to the centre of the last one or two axes (index `n / 2`), as `numpy.fft.fftshift` over these axes.
///
/// # Errors
/// If the tensor has too few axes, or on failure of the backend.
pub fn fftshift(values: &Tensor, axes: Axes) -> Result<Tensor> {
    shift("fftshift", values, axes, |length| length.div_ceil(2))
}

/// Undoes [`fftshift`]; the two differ for odd lengths.
///
/// # Errors
/// If the tensor has too few axes, or on failure of the backend.
pub fn ifftshift(values: &Tensor, axes: Axes) -> Result<Tensor> {
    shift("ifftshift", values, axes, |length| length / 2)
}

/// Radius and angle of the bins of a half spectrum of `[height, width]` maps, both `[height, width / 2 + 1]`, row-major.
///
/// The radius is 1 at the Nyquist frequency of either axis (so that the corners lie at `sqrt 2`), the angle is `atan2(row frequency, column
/// frequency)` in `[0, pi)`.
pub(crate) fn polar_grid(height: usize, width: usize) -> (Vec<f64>, Vec<f64>) {
    let columns = width / 2 + 1;
    let mut radii = Vec::with_capacity(height * columns);
    let mut angles = Vec::with_capacity(height * columns);
    for row in 0..height {
        let fy = 2.0 * signed(row, height) / height as f64;
        for column in 0..columns {
            let fx = 2.0 * column as f64 / width as f64;
            radii.push(fy.hypot(fx));
            let angle = fy.atan2(fx).rem_euclid(std::f64::consts::PI);
            angles.push(if angle >= std::f64::consts::PI { 0.0 } else { angle });
        }
    }
    (radii, angles)
}

/// A constant of the dtype and device of `like`.
pub(crate) fn constant(
    values: Vec<f64>,
    shape: impl candle_core::shape::ShapeWithOneHole,
    like: &Tensor,
) -> Result<Tensor> {
    constant_of(values, shape, like.dtype(), like.device())
}

pub(crate) fn constant_of(
    values: Vec<f64>,
    shape: impl candle_core::shape::ShapeWithOneHole,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    // The dtype first: Metal has no f64.
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// Height and width of maps `[..., H, W]` that are not empty.
pub(crate) fn map_size(operation: &'static str, maps: &Tensor) -> Result<(usize, usize)> {
    crate::complex::check_float(operation, maps)?;
    match maps.dims() {
        dims if dims.contains(&0) => Err(Error::shape(operation, dims, "an axis is empty")),
        [.., height, width] => Ok((*height, *width)),
        dims => Err(Error::shape(operation, dims, "expected maps [..., H, W]")),
    }
}

/// Index of a bin as a signed frequency.
pub(crate) fn signed(index: usize, length: usize) -> f64 {
    if 2 * index < length { index as f64 } else { index as f64 - length as f64 }
}

/// Rotates one axis to the left: element `by` becomes the first.
pub(crate) fn rotate(values: &Tensor, axis: usize, by: usize) -> Result<Tensor> {
    let length = values.dim(axis)?;
    if length == 0 || by.is_multiple_of(length) {
        return Ok(values.clone());
    }
    let by = by % length;
    let (head, tail) = (values.narrow(axis, 0, by)?, values.narrow(axis, by, length - by)?);
    Ok(Tensor::cat(&[tail, head], axis)?)
}

fn shift(operation: &'static str, values: &Tensor, axes: Axes, by: impl Fn(usize) -> usize) -> Result<Tensor> {
    let rank = values.rank();
    let count = match axes {
        Axes::One => 1,
        Axes::Two => 2,
    };
    if rank < count {
        return Err(Error::shape(operation, values.dims(), "fewer axes than are to be shifted"));
    }
    let mut shifted = values.clone();
    for axis in rank - count..rank {
        shifted = rotate(&shifted, axis, by(values.dim(axis)?))?;
    }
    Ok(shifted)
}

fn check_spacing(length: usize, spacing: f64) -> Result<()> {
    if length == 0 {
        return Err(Error::argument("length", length, "use at least one sample"));
    }
    if !(spacing.is_finite() && spacing > 0.0) {
        return Err(Error::argument("spacing", spacing, "use a positive number"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_numpy() -> Result<()> {
        assert_eq!(fftfreq(8, 0.125)?, [0.0, 1.0, 2.0, 3.0, -4.0, -3.0, -2.0, -1.0]);
        assert_eq!(fftfreq(5, 0.2)?, [0.0, 1.0, 2.0, -2.0, -1.0]);
        assert_eq!(rfftfreq(8, 0.125)?, [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(rfftfreq(5, 0.2)?, [0.0, 1.0, 2.0]);
        assert!(fftfreq(0, 1.0).is_err() && rfftfreq(4, 0.0).is_err() && fftfreq(4, f64::NAN).is_err());
        Ok(())
    }

    #[test]
    fn shifts_centre_the_zero_and_undo_each_other() -> Result<()> {
        for (height, width) in [(4, 5), (5, 4), (1, 1), (3, 2)] {
            let values = Tensor::arange(0u32, (height * width) as u32, &Device::Cpu)?.reshape((height, width))?;
            let shifted = fftshift(&values, Axes::Two)?;
            assert_eq!(shifted.to_vec2::<u32>()?[height / 2][width / 2], 0);
            assert_eq!(ifftshift(&shifted, Axes::Two)?.to_vec2::<u32>()?, values.to_vec2::<u32>()?);
        }
        let line = Tensor::new(&[0u32, 1, 2, 3, 4], &Device::Cpu)?;
        assert_eq!(fftshift(&line, Axes::One)?.to_vec1::<u32>()?, [3, 4, 0, 1, 2]);
        let named = |shifted: Result<Tensor>, name: &str| shifted.unwrap_err().to_string().starts_with(name);
        assert!(named(fftshift(&line, Axes::Two), "fftshift:") && named(ifftshift(&line, Axes::Two), "ifftshift:"));
        Ok(())
    }
}
