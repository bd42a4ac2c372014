//! The public transforms over the last one or two axes.

use crate::complex::{ComplexTensor, check_float};
use crate::error::{Error, Result};
use crate::norm::Norm;
use crate::op::{Kind, LinearTransform};
use crate::spectrum::{Axes, Extent, Spectrum};
use candle_core::Tensor;

/// How a transform is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// The fast transform where the device has one, else matrix products.
    Auto,
    /// Matrix products always.
    Matmul,
}

/// Transform of a complex signal `[..., N]` over the last axis. `N` may be any length from 1.
///
/// # Errors
/// If the signal has no axis or an empty one, or on failure of the backend.
pub fn fft(signal: &ComplexTensor, norm: Norm) -> Result<Spectrum> {
    complex_forward("fft", signal, Axes::One, norm, Route::Auto)
}

/// Transform of a complex signal `[..., H, W]` over the last two axes.
///
/// # Errors
/// If the signal has fewer than two axes or an empty one, or on failure of the backend.
pub fn fft2(signal: &ComplexTensor, norm: Norm) -> Result<Spectrum> {
    complex_forward("fft2", signal, Axes::Two, norm, Route::Auto)
}

/// Half spectrum of a real signal `[..., N]` over the last axis: values `[..., N / 2 + 1]`.
///
/// # Errors
/// If the signal has no axis or an empty one, is not of a float dtype, or on failure of the backend.
pub fn rfft(signal: &Tensor, norm: Norm) -> Result<Spectrum> {
    real_forward("rfft", signal, Axes::One, norm, Route::Auto)
}

/// Half spectrum of a real signal `[..., H, W]` over the last two axes: values `[..., H, W / 2 + 1]`.
///
/// f32 and f64 are computed as they are, f16 and bf16 by way of f32. Any lengths from 1, contiguous or strided.
///
/// # Errors
/// If the signal has fewer than two axes or an empty one, is not of a float dtype, or on failure of the backend.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use masf_spectral::{Norm, irfft2, rfft2};
///
/// let maps = Tensor::rand(0f32, 1f32, (2, 3, 15, 20), &Device::Cpu)?;
/// let spectrum = rfft2(&maps, Norm::Ortho)?;
/// assert_eq!(spectrum.dims(), [2, 3, 15, 11]);
/// let back = irfft2(&spectrum, None)?;
/// let error = (back - maps)?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(error < 1e-6);
/// # Ok::<(), masf_spectral::Error>(())
/// ```
pub fn rfft2(signal: &Tensor, norm: Norm) -> Result<Spectrum> {
    real_forward("rfft2", signal, Axes::Two, norm, Route::Auto)
}

/// Inverse of [`fft`]: the complex signal of a full spectrum over the last axis.
///
/// # Errors
/// If the spectrum is a half spectrum or of two axes, or on failure of the backend.
pub fn ifft(spectrum: &Spectrum) -> Result<ComplexTensor> {
    complex_inverse("ifft", spectrum, Axes::One, Route::Auto)
}

/// Inverse of [`fft2`]: the complex signal of a full spectrum over the last two axes.
///
/// # Errors
/// If the spectrum is a half spectrum or of one axis, or on failure of the backend.
pub fn ifft2(spectrum: &Spectrum) -> Result<ComplexTensor> {
    complex_inverse("ifft2", spectrum, Axes::Two, Route::Auto)
}

/// Inverse of [`rfft`]: the real signal of a half spectrum over the last axis.
///
/// `length` is the target length; `None` takes the length of the signal that the spectrum came from. Another length
/// crops the spectrum or fills it with zeros, as `numpy.fft.irfft(n=...)` does. As there, the imaginary parts of the zero and the
/// Nyquist frequency do not count.
///
/// # Errors
/// If the spectrum is a full one or of two axes, if the length is zero, or on failure of the backend.
pub fn irfft(spectrum: &Spectrum, length: Option<usize>) -> Result<Tensor> {
    let size = (1, length.unwrap_or(spectrum.width()));
    real_inverse("irfft", spectrum, Axes::One, size, Route::Auto)
}

/// Inverse of [`rfft2`]: the real signal of a half spectrum over the last two axes.
///
/// `size` is the target `(height, width)`; `None` takes the size of the signal that the spectrum came from. Another size crops
/// the spectrum or fills it with zeros, as `numpy.fft.irfft2(s=...)` does.
///
/// # Errors
/// If the spectrum is a full one or of one axis, if a size is zero, or on failure of the backend.
pub fn irfft2(spectrum: &Spectrum, size: Option<(usize, usize)>) -> Result<Tensor> {
    let size = size.unwrap_or((spectrum.height(), spectrum.width()));
    real_inverse("irfft2", spectrum, Axes::Two, size, Route::Auto)
}

/// The same transforms as products with Fourier matrices, on plain tensor operations.
///
/// They run on any device that Candle has and are differentiable by Candle itself. The functions of the crate root use them on
/// devices without a fast transform; on the CPU they serve as the oracle of the tests. Cost `O(N^2)` per line.
pub mod dft {
    use super::*;

    /// [`fft`](crate::fft) by matrix products.
    ///
    /// # Errors
    /// As [`fft`](crate::fft).
    pub fn fft(signal: &ComplexTensor, norm: Norm) -> Result<Spectrum> {
        complex_forward("dft::fft", signal, Axes::One, norm, Route::Matmul)
    }

    /// [`fft2`](crate::fft2) by matrix products.
    ///
    /// # Errors
    /// As [`fft2`](crate::fft2).
    pub fn fft2(signal: &ComplexTensor, norm: Norm) -> Result<Spectrum> {
        complex_forward("dft::fft2", signal, Axes::Two, norm, Route::Matmul)
    }

    /// [`rfft`](crate::rfft) by matrix products.
    ///
    /// # Errors
    /// As [`rfft`](crate::rfft).
    pub fn rfft(signal: &Tensor, norm: Norm) -> Result<Spectrum> {
        real_forward("dft::rfft", signal, Axes::One, norm, Route::Matmul)
    }

    /// [`rfft2`](crate::rfft2) by matrix products.
    ///
    /// # Errors
    /// As [`rfft2`](crate::rfft2).
    pub fn rfft2(signal: &Tensor, norm: Norm) -> Result<Spectrum> {
        real_forward("dft::rfft2", signal, Axes::Two, norm, Route::Matmul)
    }

    /// [`ifft`](crate::ifft) by matrix products.
    ///
    /// # Errors
    /// As [`ifft`](crate::ifft).
    pub fn ifft(spectrum: &Spectrum) -> Result<ComplexTensor> {
        complex_inverse("dft::ifft", spectrum, Axes::One, Route::Matmul)
    }

    /// [`ifft2`](crate::ifft2) by matrix products.
    ///
    /// # Errors
    /// As [`ifft2`](crate::ifft2).
    pub fn ifft2(spectrum: &Spectrum) -> Result<ComplexTensor> {
        complex_inverse("dft::ifft2", spectrum, Axes::Two, Route::Matmul)
    }

    /// [`irfft`](crate::irfft) by matrix products.
    ///
    /// # Errors
    /// As [`irfft`](crate::irfft).
    pub fn irfft(spectrum: &Spectrum, length: Option<usize>) -> Result<Tensor> {
        let size = (1, length.unwrap_or(spectrum.width()));
        real_inverse("dft::irfft", spectrum, Axes::One, size, Route::Matmul)
    }

    /// [`irfft2`](crate::irfft2) by matrix products.
    ///
    /// # Errors
    /// As [`irfft2`](crate::irfft2).
    pub fn irfft2(spectrum: &Spectrum, size: Option<(usize, usize)>) -> Result<Tensor> {
        let size = size.unwrap_or((spectrum.height(), spectrum.width()));
        real_inverse("dft::irfft2", spectrum, Axes::Two, size, Route::Matmul)
    }
}

fn complex_forward(
    operation: &'static str,
    signal: &ComplexTensor,
    axes: Axes,
    norm: Norm,
    route: Route,
) -> Result<Spectrum> {
    let (height, width) = extents(operation, signal.dims(), axes)?;
    let transform =
        LinearTransform { kind: Kind::Complex { inverse: false }, axes, scale: norm.forward_scale(height * width) };
    let planes = transform.apply(signal.planes(), route)?;
    Spectrum::new(ComplexTensor::from_planes(planes)?, axes, Extent::Full, norm)
}

fn complex_inverse(operation: &'static str, spectrum: &Spectrum, axes: Axes, route: Route) -> Result<ComplexTensor> {
    check_facts(operation, spectrum, axes, false)?;
    let (height, width) = extents(operation, spectrum.dims(), axes)?;
    let transform = LinearTransform {
        kind: Kind::Complex { inverse: true },
        axes,
        scale: spectrum.norm().inverse_scale(height * width),
    };
    ComplexTensor::from_planes(transform.apply(spectrum.values().planes(), route)?)
}

fn real_forward(operation: &'static str, signal: &Tensor, axes: Axes, norm: Norm, route: Route) -> Result<Spectrum> {
    check_float(operation, signal)?;
    let (height, width) = extents(operation, signal.dims(), axes)?;
    let transform =
        LinearTransform { kind: Kind::RealToHalf { interior: 1.0 }, axes, scale: norm.forward_scale(height * width) };
    let planes = transform.apply(signal, route)?;
    Spectrum::new(ComplexTensor::from_planes(planes)?, axes, Extent::Half { width }, norm)
}

fn real_inverse(
    operation: &'static str,
    spectrum: &Spectrum,
    axes: Axes,
    (height, width): (usize, usize),
    route: Route,
) -> Result<Tensor> {
    check_facts(operation, spectrum, axes, true)?;
    if height == 0 || width == 0 {
        return Err(Error::argument("size", (height, width), "use sizes of at least 1"));
    }
    extents(operation, spectrum.dims(), axes)?;
    let mut values = fit(spectrum.values(), 0, width / 2 + 1)?;
    if axes == Axes::Two {
        values = fit(&values, 1, height)?;
    }
    let transform = LinearTransform {
        kind: Kind::HalfToReal { width, interior: 2.0 },
        axes,
        scale: spectrum.norm().inverse_scale(height * width),
    };
    transform.apply(values.planes(), route)
}

/// Crops an axis (counted from the last) to `len`, or fills it with zeros at its end.
fn fit(values: &ComplexTensor, from_last: usize, len: usize) -> Result<ComplexTensor> {
    let planes = values.planes();
    let axis = planes.rank() - 1 - from_last;
    let have = planes.dim(axis)?;
    let planes = match have.cmp(&len) {
        std::cmp::Ordering::Equal => planes.clone(),
        std::cmp::Ordering::Greater => planes.narrow(axis, 0, len)?,
        std::cmp::Ordering::Less => planes.pad_with_zeros(axis, 0, len - have)?,
    };
    ComplexTensor::from_planes(planes)
}

/// Height and width of the transformed axes (height 1 for one axis).
fn extents(operation: &'static str, dims: &[usize], axes: Axes) -> Result<(usize, usize)> {
    let size = match (axes, dims) {
        (Axes::One, [.., width]) => (1, *width),
        (Axes::Two, [.., height, width]) => (*height, *width),
        (Axes::One, _) => return Err(Error::shape(operation, dims, "expected at least one axis, [..., N]")),
        (Axes::Two, _) => return Err(Error::shape(operation, dims, "expected at least two axes, [..., H, W]")),
    };
    if dims.contains(&0) {
        return Err(Error::shape(operation, dims, "an axis is empty"));
    }
    Ok(size)
}

fn check_facts(operation: &'static str, spectrum: &Spectrum, axes: Axes, half: bool) -> Result<()> {
    if spectrum.axes() != axes {
        return Err(Error::shape(
            operation,
            spectrum.dims(),
            "the spectrum is of another number of axes; use the inverse that matches its forward transform",
        ));
    }
    match (half, spectrum.extent()) {
        (true, Extent::Half { .. }) | (false, Extent::Full) => Ok(()),
        (true, Extent::Full) => {
            Err(Error::shape(operation, spectrum.dims(), "a full spectrum has a complex signal; use ifft or ifft2"))
        }
        (false, Extent::Half { .. }) => {
            Err(Error::shape(operation, spectrum.dims(), "a half spectrum has a real signal; use irfft or irfft2"))
        }
    }
}
