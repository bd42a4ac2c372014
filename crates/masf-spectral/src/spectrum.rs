//! The spectrum of a signal: complex values with the facts that make the inverse unambiguous.

use crate::complex::ComplexTensor;
use crate::error::{Error, Result};
use crate::frequency::constant;
use crate::norm::Norm;
use candle_core::Tensor;

/// How many of the last axes a transform runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axes {
    /// The last axis.
    One,
    /// The last two axes, `[..., H, W]`.
    Two,
}

/// Which columns of the last axis a spectrum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All frequencies, from a complex signal.
    Full,
    /// The frequencies `0 ..= width / 2` of a real signal; the others follow by Hermitian symmetry.
    Half {
        /// Length of the last axis of the signal; the spectrum alone cannot tell an even from an odd one.
        width: usize,
    },
}

/// The Fourier transform of a signal `[..., H, W]` (or `[..., W]`): values of the same shape, for a real signal with the
/// last axis cut to `W / 2 + 1`, in the standard order (zero frequency first).
///
/// Made by [`fft`](crate::fft), [`rfft`](crate::rfft), [`fft2`](crate::fft2) and [`rfft2`](crate::rfft2), or from parts by
/// [`Spectrum::new`]. The pointwise operations keep the facts and are differentiable.
#[derive(Debug, Clone)]
pub struct Spectrum {
    values: ComplexTensor,
    axes: Axes,
    extent: Extent,
    norm: Norm,
}

impl Spectrum {
    /// Joins values with the facts about them. Errors if the shape contradicts the facts.
    pub fn new(values: ComplexTensor, axes: Axes, extent: Extent, norm: Norm) -> Result<Self> {
        let rank = values.dims().len();
        let needed = match axes {
            Axes::One => 1,
            Axes::Two => 2,
        };
        if rank < needed {
            return Err(Error::shape("Spectrum::new", values.dims(), "fewer axes than the transform runs over"));
        }
        let columns = values.dims().last().copied().unwrap_or(0);
        if let Extent::Half { width } = extent
            && (width == 0 || columns != width / 2 + 1)
        {
            return Err(Error::shape(
                "Spectrum::new",
                values.dims(),
                "the last axis of a half spectrum has width / 2 + 1 columns",
            ));
        }
        Ok(Self { values, axes, extent, norm })
    }

    /// The complex values.
    pub fn values(&self) -> &ComplexTensor {
        &self.values
    }

    /// The complex values, taking them out.
    pub fn into_values(self) -> ComplexTensor {
        self.values
    }

    /// Shape of the values.
    pub fn dims(&self) -> &[usize] {
        self.values.dims()
    }

    /// The axes that were transformed.
    pub fn axes(&self) -> Axes {
        self.axes
    }

    /// Full or half, with the width of the signal.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The normalisation of the forward transform; the inverse uses its counterpart.
    pub fn norm(&self) -> Norm {
        self.norm
    }

    /// Length of the last axis of the signal.
    pub fn width(&self) -> usize {
        match self.extent {
            Extent::Full => self.dims().last().copied().unwrap_or(0),
            Extent::Half { width } => width,
        }
    }

    /// Length of the second last axis of the signal; 1 for a transform over one axis.
    pub fn height(&self) -> usize {
        match (self.axes, self.dims()) {
            (Axes::Two, [.., height, _]) => *height,
            _ => 1,
        }
    }

    /// These values times something that must not have made them larger.
    fn scaled(&self, values: ComplexTensor, operation: &'static str, by: &[usize]) -> Result<Self> {
        if values.dims() != self.dims() {
            return Err(Error::shape(operation, by, "it has to broadcast to the values"));
        }
        self.with_values(values)
    }

    /// The same facts about other values of the same shape.
    pub fn with_values(&self, values: ComplexTensor) -> Result<Self> {
        Self::new(values, self.axes, self.extent, self.norm)
    }

    /// Real part, a view of shape [`dims`](Self::dims).
    pub fn re(&self) -> Result<Tensor> {
        self.values.re()
    }

    /// Imaginary part, a view of shape [`dims`](Self::dims).
    pub fn im(&self) -> Result<Tensor> {
        self.values.im()
    }

    /// Sum of two spectra of equal shape and facts.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.same_facts(other)?;
        self.with_values(self.values.add(&other.values)?)
    }

    /// Difference of two spectra of equal shape and facts.
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.same_facts(other)?;
        self.with_values(self.values.sub(&other.values)?)
    }

    /// Pointwise product of two spectra of equal facts (leading axes broadcast).
    ///
    /// With [`Norm::Backward`] its inverse is the circular convolution of the signals; the other normalisations add a factor
    /// (`sqrt(N)` for [`Norm::Ortho`], `N` for [`Norm::Forward`], by which the result is to be multiplied).
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.same_facts(other)?;
        self.with_values(self.values.mul(&other.values)?)
    }

    /// Product with a complex transfer function that broadcasts to the values.
    pub fn filter(&self, transfer: &ComplexTensor) -> Result<Self> {
        self.scaled(self.values.mul(transfer)?, "Spectrum::filter", transfer.dims())
    }

    /// Product with a real mask that broadcasts to the values.
    pub fn scale(&self, mask: &Tensor) -> Result<Self> {
        self.scaled(self.values.scale(mask)?, "Spectrum::scale", mask.dims())
    }

    /// Complex conjugate: the spectrum of the reversed signal (for a real one).
    pub fn conj(&self) -> Result<Self> {
        self.with_values(self.values.conj()?)
    }

    /// Squared magnitude, of shape [`dims`](Self::dims).
    pub fn power(&self) -> Result<Tensor> {
        self.values.power()
    }

    /// `sqrt(re^2 + im^2 + eps)`, of shape [`dims`](Self::dims).
    pub fn magnitude(&self, eps: f64) -> Result<Tensor> {
        self.values.magnitude(eps)
    }

    /// Values divided by their magnitude; see [`ComplexTensor::phasor`].
    pub fn phasor(&self, eps: f64) -> Result<Self> {
        self.with_values(self.values.phasor(eps)?)
    }

    /// How often each column of the last axis counts in sums over all frequencies, `[columns]`: 1 for the zero and the
    /// Nyquist column, 2 for the other columns of a half spectrum, 1 everywhere in a full one.
    pub fn column_weights(&self) -> Result<Tensor> {
        let columns = self.dims().last().copied().unwrap_or(0);
        let weights = (0..columns)
            .map(|column| match self.extent {
                Extent::Half { width } if column != 0 && 2 * column != width => 2.0,
                _ => 1.0,
            })
            .collect();
        constant(weights, columns, self.values.planes())
    }

    /// Sum of squares of the *signal* by Parseval's theorem, one number per map: `[...]` without the transformed axes.
    pub fn energy(&self) -> Result<Tensor> {
        let power = self.values.widened()?.power()?;
        let per_column = power.broadcast_mul(&self.column_weights()?.to_dtype(power.dtype())?)?;
        let summed = match self.axes {
            Axes::One => per_column.sum(candle_core::D::Minus1)?,
            Axes::Two => per_column.sum(candle_core::D::Minus1)?.sum(candle_core::D::Minus1)?,
        };
        let points = self.height() * self.width();
        let forward = self.norm.forward_scale(points);
        Ok(summed.affine(1.0 / (points as f64 * forward * forward), 0.0)?.to_dtype(self.values.dtype())?)
    }

    fn same_facts(&self, other: &Self) -> Result<()> {
        if (self.axes, self.extent, self.norm) == (other.axes, other.extent, other.norm) {
            return Ok(());
        }
        Err(Error::argument(
            "spectrum",
            (other.axes, other.extent, other.norm),
            "both spectra need the same axes, extent and norm; use `filter` for a transfer function",
        ))
    }
}
