//! The operations of the student, each with its gradient: fused ones for `f32` on the CPU, plain tensor operations elsewhere.
//!
//! The plain form is the definition: the tests compare the fused form with it, and it with finite differences in `f64`.

mod arrange;
mod attention;
mod cosine;
mod linear;
mod norm;
mod packed;
mod product;
mod simd;

use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{D, DType, Device, Error, Result, Shape, Storage, Tensor};
use masf_core::operand;

pub(crate) use attention::AttentionShape;
pub(crate) use cosine::LevelTargets;
pub(crate) use packed::PackedLinear;
pub(crate) use product::zip_with;

/// How operations run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No gradient will be asked for.
    Inference,
    /// Gradients are kept.
    Training,
}

fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// `x W + b`, `x [R, I]`, `w [I + 1, O]` with the bias as last row. Without `input_gradient` none flows to `x`.
pub(crate) fn linear(x: &Tensor, w: &Tensor, input_gradient: bool) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(w, linear::Linear { input_gradient });
    }
    let (weight, bias) = split(w)?;
    x.matmul(&weight)?.broadcast_add(&bias)
}

fn split(w: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = w.dim(0)? - 1;
    Ok((w.narrow(0, 0, rows)?, w.narrow(0, rows, 1)?))
}

/// GELU in its tanh form.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(linear::Gelu);
    }
    let cubed = x.powf(3.0)?.affine(simd::GELU_CUBE, 0.0)?;
    // x sigmoid(y) with sigmoid(y) = (1 + tanh(y / 2)) / 2.
    let half = ((x + cubed)? * (simd::GELU_SLOPE / 2.0))?;
    x.mul(&half.tanh()?.affine(0.5, 0.5)?)
}

/// Rows of mean 0 and variance 1.
pub(crate) fn layer_norm(x: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(norm::LayerNorm::new());
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + norm::EPSILON)?.sqrt()?)
}

/// `x + W2 gelu(W1 n(x))`.
pub(crate) fn mlp(x: &Tensor, up: &Tensor, down: &Tensor, mode: Mode) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op3(up, down, linear::Mlp::new(mode == Mode::Training));
    }
    x + linear(&gelu(&linear(&layer_norm(x)?, up, true)?)?, down, true)?
}

/// Attention with `heads` heads; see [`attention`].
pub(crate) fn attend(q: &Tensor, kv: &Tensor, shape: AttentionShape) -> Result<Tensor> {
    if fused(q) {
        return q.contiguous()?.apply_op2(&kv.contiguous()?, attention::Attention { shape });
    }
    let AttentionShape { queries, keys, width, heads } = shape;
    let head = shape.head();
    let split = |x: &Tensor, count: usize| x.reshape(((), count, heads, head))?.transpose(1, 2)?.contiguous();
    let (k, v) = (
        split(&kv.narrow(1, 0, width)?.contiguous()?, keys)?,
        split(&kv.narrow(1, width, width)?.contiguous()?, keys)?,
    );
    let scores = (split(q, queries)?.matmul(&k.t()?.contiguous()?)? * (1.0 / (head as f64).sqrt()))?;
    let exp = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape(q.shape())
}

/// `[B, R, C]` to `[B, C, R]`.
pub(crate) fn swap(x: &Tensor) -> Result<Tensor> {
    if fused(x) { x.contiguous()?.apply_op1(arrange::Swap) } else { x.transpose(1, 2)?.contiguous() }
}

/// Spectral tokens `[B F, 2 D]` of planes `[2, B, D, F]`.
pub(crate) fn spectral_tokens(planes: &Tensor) -> Result<Tensor> {
    let (_, batch, width, count) = planes.dims4()?;
    if fused(planes) {
        return planes.contiguous()?.apply_op1(arrange::SpectralTokens { shape: (batch, width, count) });
    }
    planes.permute((1, 3, 0, 2))?.contiguous()?.reshape((batch * count, 2 * width))
}

/// The product of spectra `[2, B, M]` with complex gains `[2, M]`.
pub(crate) fn gains(spectra: &Tensor, gains: &Tensor) -> Result<Tensor> {
    if fused(spectra) {
        return spectra.contiguous()?.apply_op2(gains, arrange::Gains);
    }
    let (xr, xi) = (spectra.get(0)?, spectra.get(1)?);
    let (gr, gi) = (gains.narrow(0, 0, 1)?, gains.narrow(0, 1, 1)?);
    let re = (xr.broadcast_mul(&gr)? - xi.broadcast_mul(&gi)?)?;
    let im = (xr.broadcast_mul(&gi)? + xi.broadcast_mul(&gr)?)?;
    Tensor::stack(&[re, im], 0)
}

/// `x + y` of one shape.
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(&y.contiguous()?, arrange::Add);
    }
    x + y
}

/// `x + b`, `x [R, D]`, where the bias `[P, D]` repeats after `P` rows.
pub(crate) fn add_rows(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(bias, arrange::AddRows);
    }
    let (period, width) = bias.dims2()?;
    x.reshape(((), period, width))?.broadcast_add(bias)?.reshape(x.shape())
}

/// Replaces the masked rows of `x [R, D]` by a token `[D]`.
pub(crate) fn mask_rows(x: &Tensor, token: &Tensor, masked: Vec<bool>) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(token, arrange::MaskRows { masked });
    }
    let mask: Vec<f32> = masked.iter().map(|masked| f32::from(*masked)).collect();
    let mask = Tensor::from_vec(mask, (masked.len(), 1), x.device())?.to_dtype(x.dtype())?;
    x.broadcast_mul(&mask.affine(-1.0, 1.0)?)? + mask.broadcast_mul(&token.unsqueeze(0)?)?
}

/// The product of planes `[2, B, D, F]` with a real response `[B, F]` for each image.
pub(crate) fn mask_frequencies(planes: &Tensor, responses: &Arc<Vec<f32>>) -> Result<Tensor> {
    let (_, batch, width, count) = planes.dims4()?;
    if fused(planes) {
        let op = arrange::MaskFrequencies { responses: responses.clone(), shape: (batch, width, count) };
        return planes.contiguous()?.apply_op1(op);
    }
    let responses = Tensor::from_slice(responses, (1, batch, 1, count), planes.device())?.to_dtype(planes.dtype())?;
    planes.broadcast_mul(&responses)
}

/// The product with fixed factors.
pub(crate) fn scale(x: &Tensor, factors: &Arc<Vec<f32>>) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(arrange::Scale(factors.clone()));
    }
    x.mul(&Tensor::from_slice(factors, x.shape(), x.device())?.to_dtype(x.dtype())?)
}

/// The loss of a level for what the heads take, `[B N, D]`, and its head `[D + 1, P C]`; see [`cosine`].
pub(crate) fn head_loss(x: &Tensor, head: &Tensor, targets: LevelTargets) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(head, cosine::HeadLoss::new(targets));
    }
    cosine::plain_loss(&linear(x, head, true)?, &targets)
}

/// Calls `read` with the values of a CPU `f32` tensor.
pub(crate) fn with_slice<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(operand(storage, layout)?),
        _ => Err(Error::Msg("an operand is not on the CPU".into())),
    }
}

/// A CPU tensor of values.
fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Takes what the forward pass kept.
fn kept<T>(saved: &Mutex<Option<T>>, name: &str) -> Result<T> {
    lock(saved).take().ok_or_else(|| Error::Msg(format!("{name}: nothing was kept for a gradient")))
}
