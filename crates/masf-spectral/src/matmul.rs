//! The transforms as products with Fourier matrices: for devices without a fast transform, and as the oracle of the tests.
//!
//! `(C + iS)_{kn} = exp(+-2 pi i k n / N)`. A complex product is two real ones per part; the phase index `k n mod N` is reduced in
//! integers, so that long transforms lose no accuracy.

use crate::error::Result;
use crate::op::{Kind, LinearTransform};
use crate::spectrum::Axes;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::TAU;

/// Applies the transform with plain tensor operations.
pub(crate) fn apply(transform: &LinearTransform, input: &Tensor) -> Result<Tensor> {
    match transform.kind {
        Kind::Complex { inverse } => {
            let (mut re, mut im) = (input.get(0)?, input.get(1)?);
            let sign = if inverse { 1.0 } else { -1.0 };
            (re, im) = last_axis(&re, &im, sign)?;
            if transform.axes == Axes::Two {
                (re, im) = second_last_axis(&re, &im, sign)?;
            }
            Ok(Tensor::stack(&[re, im], 0)?.affine(transform.scale, 0.0)?)
        }
        Kind::RealToHalf { interior } => {
            let width = input.dims().last().copied().unwrap_or(1);
            let table = Table::new(width, width / 2 + 1, -1.0, interior, input)?;
            // Rows of the table are frequencies: x [.., n] times table^T [n, k].
            let mut re = product(input, &table.cos.t()?)?;
            let mut im = product(input, &table.sin.t()?)?;
            if transform.axes == Axes::Two {
                (re, im) = second_last_axis(&re, &im, -1.0)?;
            }
            Ok(Tensor::stack(&[re, im], 0)?.affine(transform.scale, 0.0)?)
        }
        Kind::HalfToReal { width, interior } => {
            let (mut re, mut im) = (input.get(0)?, input.get(1)?);
            if transform.axes == Axes::Two {
                (re, im) = second_last_axis(&re, &im, 1.0)?;
            }
            let table = Table::new(width, width / 2 + 1, 1.0, interior, input)?;
            let real = product(&re, &table.cos)?.sub(&product(&im, &table.sin)?)?;
            Ok(real.affine(transform.scale, 0.0)?)
        }
    }
}

/// Cosines and sines `[frequencies, points]`, rows between the zero and the Nyquist one weighted by `interior`.
struct Table {
    cos: Tensor,
    sin: Tensor,
}

impl Table {
    fn new(points: usize, frequencies: usize, sign: f64, interior: f64, like: &Tensor) -> Result<Self> {
        let mut cos = Vec::with_capacity(points * frequencies);
        let mut sin = Vec::with_capacity(points * frequencies);
        for k in 0..frequencies {
            let weight = if k == 0 || 2 * k == points { 1.0 } else { interior };
            for n in 0..points {
                let angle = TAU * ((k * n) % points) as f64 / points as f64;
                cos.push(weight * angle.cos());
                sin.push(weight * sign * angle.sin());
            }
        }
        let tensor = |values: Vec<f64>| -> Result<Tensor> {
            let tensor = Tensor::from_vec(values, (frequencies, points), &Device::Cpu)?;
            // In f32 before the copy: Metal has no f64.
            let dtype = if like.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            Ok(tensor.to_dtype(dtype)?.to_device(like.device())?)
        };
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)? })
    }
}

fn last_axis(re: &Tensor, im: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
    let points = re.dims().last().copied().unwrap_or(1);
    // The full table is symmetric.
    let table = Table::new(points, points, sign, 1.0, re)?;
    let out_re = product(re, &table.cos)?.sub(&product(im, &table.sin)?)?;
    let out_im = product(re, &table.sin)?.add(&product(im, &table.cos)?)?;
    Ok((out_re, out_im))
}

fn second_last_axis(re: &Tensor, im: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
    let rank = re.rank();
    let (re, im) = (re.transpose(rank - 2, rank - 1)?, im.transpose(rank - 2, rank - 1)?);
    let (re, im) = last_axis(&re, &im, sign)?;
    Ok((re.transpose(rank - 2, rank - 1)?, im.transpose(rank - 2, rank - 1)?))
}

/// `[..., n]` times `[n, m]`.
fn product(lhs: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let dims = lhs.dims();
    let points = dims.last().copied().unwrap_or(1);
    let mut out_dims = dims.to_vec();
    if let Some(last) = out_dims.last_mut() {
        *last = matrix.dim(1)?;
    }
    let rows = lhs.contiguous()?.reshape(((), points))?;
    Ok(rows.matmul(&matrix.contiguous()?)?.reshape(out_dims)?)
}
