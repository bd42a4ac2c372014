//! Affine maps of tokens, GELU, and the residual MLP, each with its gradient in one operation.
//!
//! A weight is `[input + 1, output]`: the last row is the bias. The MLP is `x + W2 gelu(W1 n(x))` with `n` the layer
//! normalisation without gain and bias, which `W1` absorbs.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Error, Layout, Result, Shape, Storage, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::norm::{normalise_backward, normalise_rows};
use super::product::{CHUNK, Operand, add_bias, add_column_sums, add_to, multiply, zip_with};
use super::simd;
use super::{kept, operand, tensor, with_slice};

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
        let ((rows, _), (_, output)) = (xl.shape().dims2()?, wl.shape().dims2()?);
        let y = affine(Rows::of(x, xl)?, Rows::of(w, wl)?)?;
        Ok((CpuStorage::F32(y), Shape::from((rows, output))))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        with_rows(grad, |grad| {
            let weight = with_rows(x, |x| weight_gradient(x, grad))?;
            let gx = match self.input_gradient {
                true => Some(tensor(with_rows(w, |w| input_gradient(grad, w))?, x.shape().clone())?),
                false => None,
            };
            Ok((gx, Some(tensor(weight, w.shape().clone())?)))
        })
    }
}

/// A matrix `[rows, columns]` in a storage.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    storage: &'a CpuStorage,
    offset: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl<'a> Rows<'a> {
    /// A contiguous matrix.
    pub(crate) fn of(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (rows, columns) = layout.shape().dims2()?;
        operand(storage, layout)?;
        Ok(Self { storage, offset: layout.start_offset(), rows, columns })
    }

    /// A whole storage, whose length the caller guarantees.
    pub(crate) fn whole(storage: &'a CpuStorage, rows: usize, columns: usize) -> Self {
        Self { storage, offset: 0, rows, columns }
    }

    /// The first rows as an operand.
    fn first(self, rows: usize) -> Operand<'a> {
        Operand::new(self.storage, self.offset, rows, self.columns)
    }

    fn all(self) -> Operand<'a> {
        self.first(self.rows)
    }

    fn values(self) -> Result<&'a [f32]> {
        Ok(&self.storage.as_slice::<f32>()?[self.offset..self.offset + self.rows * self.columns])
    }

    /// The last row: a bias.
    pub(crate) fn bias(self) -> Result<&'a [f32]> {
        Ok(&self.values()?[(self.rows - 1) * self.columns..])
    }
}

/// Calls `read` with a CPU matrix.
pub(crate) fn with_rows<R>(tensor: &Tensor, read: impl FnOnce(Rows<'_>) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => read(Rows::of(storage, layout)?),
        _ => Err(Error::Msg("an operand is not on the CPU".into())),
    }
}

/// `x W`, the bias left out.
fn map(x: Rows<'_>, w: Rows<'_>) -> Result<Vec<f32>> {
    multiply(x.all(), w.first(w.rows - 1))
}

/// `x W + b`.
pub(crate) fn affine(x: Rows<'_>, w: Rows<'_>) -> Result<Vec<f32>> {
    let mut y = map(x, w)?;
    add_bias(&mut y, w.bias()?);
    Ok(y)
}

/// The gradient of a weight with its bias row, from inputs and gradients of outputs.
pub(crate) fn weight_gradient(x: Rows<'_>, grad: Rows<'_>) -> Result<Vec<f32>> {
    let mut gradient = multiply(x.all().t()?, grad.all())?;
    let weights = gradient.len();
    gradient.resize(weights + grad.columns, 0.0);
    add_column_sums(grad.values()?, grad.columns, &mut gradient[weights..]);
    Ok(gradient)
}

/// The gradient of the inputs.
pub(crate) fn input_gradient(grad: Rows<'_>, w: Rows<'_>) -> Result<Vec<f32>> {
    multiply(grad.all(), w.first(w.rows - 1).t()?)
}

/// GELU of every element.
pub(crate) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(gelu_of(operand(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut gx = with_slice(grad, |grad| Ok(grad.to_vec()))?;
        with_slice(x, |x| {
            times_slope(&mut gx, x);
            Ok(())
        })?;
        Ok(Some(tensor(gx, x.shape().clone())?))
    }
}

fn gelu_of(x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    gelu_in_place(&mut y);
    y
}

fn gelu_in_place(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(gelu_of_some);
}

/// GELU of values in place, on this thread.
pub(super) fn gelu_of_some(values: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || values.iter_mut().for_each(|value| *value = simd::gelu(*value)),
    );
}

/// Multiplies gradients by the slope at `x`.
fn times_slope(grad: &mut [f32], x: &[f32]) {
    zip_with(
        grad,
        x,
        #[inline(always)]
        |grad, x| grad * simd::gelu_slope(x),
    );
}

/// The residual MLP; see the module's head.
pub(crate) struct Mlp {
    keep: bool,
    saved: Mutex<Option<Saved>>,
}

/// What the gradient needs.
struct Saved {
    normal: CpuStorage,
    inverse: Vec<f32>,
    before: Vec<f32>,
    after: CpuStorage,
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
        let (up, down) = (Rows::of(up, ul)?, Rows::of(down, dl)?);
        let ((rows, width), hidden) = (xl.shape().dims2()?, up.columns);
        let x = operand(x, xl)?;
        let (normal, inverse) = normalise_rows(x, width);
        let normal = CpuStorage::F32(normal);
        let mut before = affine(Rows::whole(&normal, rows, width), up)?;
        let after = match self.keep {
            true => gelu_of(&before),
            false => {
                gelu_in_place(&mut before);
                std::mem::take(&mut before)
            }
        };
        let after = CpuStorage::F32(after);
        let mut y = affine(Rows::whole(&after, rows, hidden), down)?;
        add_to(&mut y, x);
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
        with_rows(grad, |grad| {
            let g_down = weight_gradient(Rows::whole(&after, rows, hidden), grad)?;
            let mut g_hidden = with_rows(down, |down| input_gradient(grad, down))?;
            times_slope(&mut g_hidden, &before);
            let g_hidden = CpuStorage::F32(g_hidden);
            let g_hidden = Rows::whole(&g_hidden, rows, hidden);
            let normal_rows = Rows::whole(&normal, rows, width);
            let g_up = weight_gradient(normal_rows, g_hidden)?;
            let mut gx = with_rows(up, |up| input_gradient(g_hidden, up))?;
            normalise_backward(&mut gx, normal_rows.values()?, &inverse, width);
            add_to(&mut gx, grad.values()?);
            Ok((
                Some(tensor(gx, (rows, width))?),
                Some(tensor(g_up, (width + 1, hidden))?),
                Some(tensor(g_down, (hidden + 1, width))?),
            ))
        })
    }
}
