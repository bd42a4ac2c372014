//! The Fourier transforms as linear maps with adjoints, and their place in Candle's graph.
//!
//! A transform is linear, so its gradient is its adjoint. Write `F` for the unscaled forward transform. Seen as real-linear maps of
//! (re, im) pairs, three kinds are closed under taking adjoints:
//!
//! * `Complex`: `s F` and `s F*` are each other's adjoints.
//! * `RealToHalf { interior: c }`: `X_k = s c_k (F x)_k` on the half spectrum, with `c_k = 1` in the zero and Nyquist columns and `c` in the
//!   columns between. `rfft` has `c = 1`.
//! * `HalfToReal { interior: c }`: `x_n = s sum_k c_k Re(X_k exp(2 pi i k n / N))`, the sum over the half spectrum. `irfft` has
//!   `c = 2`, as each column between stands for its mirror image too.
//!
//! `RealToHalf` and `HalfToReal` with the same `s` and `c` are each other's adjoints: so the gradient of `rfft` is a
//! `HalfToReal` that does not double, and that of `irfft` a `RealToHalf` that does.

use crate::engine;
use crate::error::Result;
use crate::matmul;
use crate::spectrum::Axes;
use crate::transform::Route;
use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

/// What is transformed into what; see the module's head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Complex { inverse: bool },
    RealToHalf { interior: f64 },
    HalfToReal { width: usize, interior: f64 },
}

/// A transform over the last one or two axes of planar tensors (`[2, ...]` where complex).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LinearTransform {
    pub(crate) kind: Kind,
    pub(crate) axes: Axes,
    pub(crate) scale: f64,
}

impl LinearTransform {
    /// Applies the transform to a float tensor whose shape the caller has checked.
    pub(crate) fn apply(&self, input: &Tensor, route: Route) -> Result<Tensor> {
        let dtype = input.dtype();
        if matches!(dtype, DType::F16 | DType::BF16) {
            let output = self.apply(&input.to_dtype(DType::F32)?, route)?;
            return Ok(output.to_dtype(dtype)?);
        }
        if route == Route::Auto && input.device().is_cpu() {
            Ok(input.apply_op1(*self)?)
        } else {
            matmul::apply(self, input)
        }
    }

    /// The adjoint, which takes outputs of this transform to inputs of width `width`.
    fn adjoint(&self, width: usize) -> Self {
        let kind = match self.kind {
            Kind::Complex { inverse } => Kind::Complex { inverse: !inverse },
            Kind::RealToHalf { interior } => Kind::HalfToReal { width, interior },
            Kind::HalfToReal { interior, .. } => Kind::RealToHalf { interior },
        };
        Self { kind, ..*self }
    }

    /// Shape of the output for an input shape.
    fn output_dims(&self, input: &[usize]) -> Vec<usize> {
        let mut dims = input.to_vec();
        match self.kind {
            Kind::Complex { .. } => {}
            Kind::RealToHalf { .. } => {
                if let Some(last) = dims.last_mut() {
                    *last = *last / 2 + 1;
                }
                dims.insert(0, 2);
            }
            Kind::HalfToReal { width, .. } => {
                if let Some(last) = dims.last_mut() {
                    *last = width;
                }
                dims.remove(0);
            }
        }
        dims
    }
}

impl CustomOp1 for LinearTransform {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Complex { .. } => "fft",
            Kind::RealToHalf { .. } => "rfft",
            Kind::HalfToReal { .. } => "irfft",
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let dims = self.output_dims(layout.dims());
        let storage = match storage {
            CpuStorage::F32(data) => CpuStorage::F32(engine::run(self, data, layout)?),
            CpuStorage::F64(data) => CpuStorage::F64(engine::run(self, data, layout)?),
            other => candle_core::bail!("{}: dtype {:?} is not supported", self.name(), other.dtype()),
        };
        Ok((storage, Shape::from(dims)))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let width = arg.dims().last().copied().unwrap_or(1);
        let adjoint = self.adjoint(width);
        Ok(Some(adjoint.apply(grad, Route::Auto)?))
    }
}
