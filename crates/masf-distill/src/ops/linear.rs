//! Affine maps of tokens, GELU, and the residual MLP, each with its gradient in one operation.
//!
//! A weight is `[input + 1, output]`: the last row is the bias. The MLP is `x + W2 gelu(W1 n(x))` with `n` the layer
//! normalisation without gain and bias, which `W1` absorbs.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::norm::{normalise_backward, normalise_rows};
use super::product::{Matrix, add_column_sums, product, zip_chunks};
use super::simd;
use super::{kept, slice, tensor, with_slice};

/// `x W + b` for rows `x [R, I]`, weight `[I + 1, O]`.
pub(crate) struct Linear {
    /// Whether the gradient of `x` is wanted.
    pub(crate) input_gradient: bool,
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, input), (_, output)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        let (x, w) = (slice(x, xl)?, slice(w, wl)?);
        let mut y = vec![0.0; rows * output];
        affine(&mut y, x, w, rows, input, output)?;
        Ok((CpuStorage::F32(y), Shape::from((rows, output))))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((rows, input), (_, output)) = (x.dims2()?, w.dims2()?);
        with_slice(grad, |grad| {
            let weight = with_slice(x, |x| weight_gradient(x, grad, rows, input, output))?;
            let gx = match self.input_gradient {
                true => Some(with_slice(w, |w| input_gradient(grad, w, rows, input, output))?),
                false => None,
            };
            let gx = gx.map(|gx| tensor(gx, (rows, input))).transpose()?;
            Ok((gx, Some(tensor(weight, (input + 1, output))?)))
        })
    }
}

/// `y = x W + b`.
pub(crate) fn affine(y: &mut [f32], x: &[f32], w: &[f32], rows: usize, input: usize, output: usize) -> Result<()> {
    let (weight, bias) = w.split_at(input * output);
    product(y, Matrix::new(x, rows, input), Matrix::new(weight, input, output), 1.0, 0.0, Some(bias))
}

/// The gradient of a weight with its bias row, from inputs and gradients of outputs.
pub(crate) fn weight_gradient(x: &[f32], grad: &[f32], rows: usize, input: usize, output: usize) -> Result<Vec<f32>> {
    let mut gradient = vec![0.0; (input + 1) * output];
    let (weight, bias) = gradient.split_at_mut(input * output);
    product(weight, Matrix::new(x, rows, input).t(), Matrix::new(grad, rows, output), 1.0, 0.0, None)?;
    add_column_sums(grad, output, bias);
    Ok(gradient)
}

/// The gradient of the inputs.
pub(crate) fn input_gradient(grad: &[f32], w: &[f32], rows: usize, input: usize, output: usize) -> Result<Vec<f32>> {
    let mut gradient = vec![0.0; rows * input];
    let weight = Matrix::new(&w[..input * output], input, output).t();
    product(&mut gradient, Matrix::new(grad, rows, output), weight, 1.0, 0.0, None)?;
    Ok(gradient)
}

/// GELU of every element.
pub(crate) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut y = vec![0.0; x.len()];
        zip_chunks(&mut y, x, gelu_chunk);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut gx = with_slice(grad, |grad| Ok(grad.to_vec()))?;
        with_slice(x, |x| {
            zip_chunks(&mut gx, x, slope_chunk);
            Ok(())
        })?;
        Ok(Some(tensor(gx, x.shape().clone())?))
    }
}

#[inline(always)]
fn gelu_chunk(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = simd::gelu(*x);
    }
}

#[inline(always)]
fn slope_chunk(grad: &mut [f32], x: &[f32]) {
    for (grad, x) in grad.iter_mut().zip(x) {
        *grad *= simd::gelu_slope(*x);
    }
}

/// The residual MLP; see the module's head.
pub(crate) struct Mlp {
    keep: bool,
    saved: Mutex<Option<Saved>>,
}

/// What the gradient needs.
struct Saved {
    normal: Vec<f32>,
    inverse: Vec<f32>,
    before: Vec<f32>,
    after: Vec<f32>,
}

impl Mlp {
    /// `keep` says whether a gradient will be asked for.
    pub(crate) fn new(keep: bool) -> Self {
        Self { keep, saved: Mutex::new(None) }
    }
}

impl CustomOp3 for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        up: &CpuStorage,
        ul: &Layout,
        down: &CpuStorage,
        dl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (_, hidden)) = (xl.shape().dims2()?, ul.shape().dims2()?);
        let (x, up, down) = (slice(x, xl)?, slice(up, ul)?, slice(down, dl)?);
        let (normal, inverse) = normalise_rows(x, width);
        let mut before = vec![0.0; rows * hidden];
        affine(&mut before, &normal, up, rows, width, hidden)?;
        let mut after = vec![0.0; rows * hidden];
        zip_chunks(&mut after, &before, gelu_chunk);
        let mut y = x.to_vec();
        let (weight, bias) = down.split_at(hidden * width);
        let (a, b) = (Matrix::new(&after, rows, hidden), Matrix::new(weight, hidden, width));
        product(&mut y, a, b, 1.0, 1.0, Some(bias))?;
        if self.keep {
            *super::lock(&self.saved) = Some(Saved { normal, inverse, before, after });
        }
        Ok((CpuStorage::F32(y), Shape::from((rows, width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        up: &Tensor,
        down: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((rows, width), (_, hidden)) = (x.dims2()?, up.dims2()?);
        let Saved { normal, inverse, before, after } = kept(&self.saved, self.name())?;
        with_slice(grad, |grad| {
            let g_down = weight_gradient(&after, grad, rows, hidden, width)?;
            let mut g_hidden = with_slice(down, |down| input_gradient(grad, down, rows, hidden, width))?;
            zip_chunks(&mut g_hidden, &before, slope_chunk);
            let g_up = weight_gradient(&normal, &g_hidden, rows, width, hidden)?;
            let mut gx = with_slice(up, |up| input_gradient(&g_hidden, up, rows, width, hidden))?;
            normalise_backward(&mut gx, &normal, &inverse, width);
            zip_chunks(&mut gx, grad, |gx, grad| {
                for (gx, grad) in gx.iter_mut().zip(grad) {
                    *gx += grad;
                }
            });
            Ok((
                Some(tensor(gx, (rows, width))?),
                Some(tensor(g_up, (width + 1, hidden))?),
                Some(tensor(g_down, (hidden + 1, width))?),
            ))
        })
    }
}
