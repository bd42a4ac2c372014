//! Complex tensors, which Candle does not have: both parts in one planar tensor.

use crate::error::{Error, Result};
use candle_core::{DType, Tensor};

/// Keeps the gradient of vanishing magnitudes finite; shifts them by at most 1e-12.
pub(crate) const AMPLITUDE_EPS: f64 = 1e-24;

/// A complex tensor of shape `[...]`, stored as one real tensor of shape `[2, ...]`: real part, then imaginary part.
///
/// The planar layout keeps each part contiguous, so that [`re`](Self::re) and [`im`](Self::im) are views without a copy, and lets
/// sums, masks and powers act on both parts in one operation. All methods are differentiable.
#[derive(Debug, Clone)]
pub struct ComplexTensor {
    planes: Tensor,
}

impl ComplexTensor {
    /// Wraps a planar tensor `[2, ...]`. Errors if the first axis is not of length 2 or the dtype is not a float.
    pub fn from_planes(planes: Tensor) -> Result<Self> {
        if planes.rank() < 2 || planes.dims().first() != Some(&2) {
            return Err(Error::shape("ComplexTensor::from_planes", planes.dims(), "expected [2, ...]"));
        }
        check_float("ComplexTensor::from_planes", &planes)?;
        Ok(Self { planes })
    }

    /// Joins a real and an imaginary part of equal shape `[...]` (at least one axis) and dtype.
    pub fn new(re: &Tensor, im: &Tensor) -> Result<Self> {
        if re.dims() != im.dims() {
            return Err(Error::shape("ComplexTensor::new", im.dims(), "both parts need the same shape"));
        }
        Self::from_planes(Tensor::stack(&[re, im], 0)?)
    }

    /// A complex tensor with imaginary part zero.
    pub fn from_real(re: &Tensor) -> Result<Self> {
        Self::new(re, &re.zeros_like()?)
    }

    /// `radius * exp(i * phase)`, both `[...]`, in radians.
    pub fn from_polar(radius: &Tensor, phase: &Tensor) -> Result<Self> {
        Self::new(&radius.mul(&phase.cos()?)?, &radius.mul(&phase.sin()?)?)
    }

    /// The planar tensor `[2, ...]`.
    pub fn planes(&self) -> &Tensor {
        &self.planes
    }

    /// Shape without the leading axis of the two parts.
    pub fn dims(&self) -> &[usize] {
        self.planes.dims().get(1..).unwrap_or_default()
    }

    /// Dtype of the parts.
    pub fn dtype(&self) -> DType {
        self.planes.dtype()
    }

    /// The real part `[...]`, a view.
    pub fn re(&self) -> Result<Tensor> {
        Ok(self.planes.get(0)?)
    }

    /// The imaginary part `[...]`, a view.
    pub fn im(&self) -> Result<Tensor> {
        Ok(self.planes.get(1)?)
    }

    /// Sum of two complex tensors of equal shape.
    pub fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self { planes: self.planes.add(&other.planes)? })
    }

    /// Difference of two complex tensors of equal shape.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        Ok(Self { planes: self.planes.sub(&other.planes)? })
    }

    /// Complex product, with broadcasting of the trailing axes as in NumPy.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        let (a, b, c, d) = (self.re()?, self.im()?, other.re()?, other.im()?);
        let re = a.broadcast_mul(&c)?.sub(&b.broadcast_mul(&d)?)?;
        let im = a.broadcast_mul(&d)?.add(&b.broadcast_mul(&c)?)?;
        Self::new(&re, &im)
    }

    /// Product with a real tensor that broadcasts to this shape `[...]`.
    pub fn scale(&self, mask: &Tensor) -> Result<Self> {
        // Without the leading axis, a mask of a higher rank would broadcast against the axis of the parts.
        if mask.rank() > self.dims().len() {
            return Err(Error::shape("ComplexTensor::scale", mask.dims(), "the mask has more axes than the values"));
        }
        Ok(Self { planes: self.planes.broadcast_mul(mask)? })
    }

    /// Product with a number.
    pub fn scale_by(&self, factor: f64) -> Result<Self> {
        Ok(Self { planes: self.planes.affine(factor, 0.0)? })
    }

    /// Complex conjugate.
    pub fn conj(&self) -> Result<Self> {
        Ok(Self { planes: Tensor::stack(&[self.re()?, self.im()?.neg()?], 0)? })
    }

    /// Squared magnitude `re^2 + im^2`, `[...]`; infinite in f16 for magnitudes of 256 and more.
    pub fn power(&self) -> Result<Tensor> {
        Ok(self.planes.sqr()?.sum(0)?)
    }

    /// Magnitude `sqrt(re^2 + im^2 + eps)`, `[...]`. With `eps > 0` the gradient is finite at zero.
    ///
    /// Computed in f32 for f16 and bf16. Errors if `eps` is negative or not finite.
    pub fn magnitude(&self, eps: f64) -> Result<Tensor> {
        check_eps(eps)?;
        let wide = self.widened()?;
        Ok(wide.power()?.affine(1.0, eps)?.sqrt()?.to_dtype(self.dtype())?)
    }

    /// The value divided by its [`magnitude`](Self::magnitude): the phase as a point of the unit circle, without `atan2` and its cut.
    ///
    /// `eps > 0` makes the phasor of zero zero and its gradient finite; 1e-12 is a good value for maps of order 1. Errors if `eps` is not a
    /// positive number.
    pub fn phasor(&self, eps: f64) -> Result<Self> {
        check_eps(eps)?;
        if eps == 0.0 {
            return Err(Error::argument("eps", eps, "use a positive number: the phase of zero is undefined"));
        }
        let wide = self.widened()?;
        let magnitude = wide.magnitude(eps)?;
        Ok(Self { planes: wide.planes.broadcast_div(&magnitude)?.to_dtype(self.dtype())? })
    }

    /// Half-precision values as f32, in which `eps` is not lost.
    pub(crate) fn widened(&self) -> Result<Self> {
        Ok(Self { planes: widened(&self.planes)? })
    }
}

/// A half-precision tensor as f32, any other as it is.
pub(crate) fn widened(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => Ok(tensor.to_dtype(DType::F32)?),
        _ => Ok(tensor.clone()),
    }
}

pub(crate) fn check_eps(eps: f64) -> Result<()> {
    if eps.is_finite() && eps >= 0.0 {
        Ok(())
    } else {
        Err(Error::argument("eps", eps, "use a finite number that is not negative, such as 1e-12"))
    }
}

pub(crate) fn check_float(operation: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(()),
        dtype => Err(Error::Dtype { operation, dtype }),
    }
}
