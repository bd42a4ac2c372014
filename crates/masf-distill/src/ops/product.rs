//! Matrix products and sums over rows, the same bits for any number of threads.

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, Error, Layout, Result, Shape};
use masf_core::vectorised;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

/// Values that one task changes.
pub(crate) const CHUNK: usize = 1 << 14;
/// Rows that one task of a sum over rows takes; fixed, so that sums do not depend on the number of threads.
const ROWS_PER_TASK: usize = 64;

/// A matrix in a slice, possibly transposed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a>(NdTensorView<'a, f32, 2>);

impl<'a> Matrix<'a> {
    /// `[rows, columns]`, row-major; the caller guarantees the length.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self(NdTensorView::from_data([rows, columns], values))
    }

    /// Columns `start..end` of `[rows, columns]`.
    pub(crate) fn columns(values: &'a [f32], rows: usize, columns: usize, start: usize, end: usize) -> Self {
        Self(NdTensorView::from_data([rows, columns], values).slice((.., start..end)))
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self(self.0.transposed())
    }
}

/// A matrix in a storage, possibly transposed: an operand of Candle's product, which is faster than [`product`] on large
/// matrices but takes whole storages only.
pub(crate) struct Operand<'a> {
    storage: &'a CpuStorage,
    layout: Layout,
}

impl<'a> Operand<'a> {
    /// `[rows, columns]` from `offset` on, row-major.
    pub(crate) fn new(storage: &'a CpuStorage, offset: usize, rows: usize, columns: usize) -> Self {
        Self { storage, layout: Layout::contiguous_with_offset(Shape::from((rows, columns)), offset) }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Result<Self> {
        Ok(Self { layout: self.layout.transpose(0, 1)?, ..self })
    }
}

/// The product of two matrices.
pub(crate) fn multiply(a: Operand<'_>, b: Operand<'_>) -> Result<Vec<f32>> {
    let ((m, k), (_, n)) = (a.layout.shape().dims2()?, b.layout.shape().dims2()?);
    match a.storage.matmul(b.storage, (1, m, n, k), &a.layout, &b.layout)? {
        CpuStorage::F32(values) => Ok(values),
        other => Err(Error::Msg(format!("a product of {:?}", other.dtype()))),
    }
}

/// Adds a bias `[columns]` to every row.
pub(crate) fn add_bias(values: &mut [f32], bias: &[f32]) {
    values.par_chunks_mut(bias.len() * ROWS_PER_TASK).for_each(|rows| {
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(bias.len()) {
                    for (value, bias) in row.iter_mut().zip(bias) {
                        *value += bias;
                    }
                }
            },
        );
    });
}

/// `out = scale a b`, of matrices that may be columns of larger ones.
pub(crate) fn product(out: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, scale: f32) -> Result<()> {
    let options = GemmOptions { alpha: scale, ..GemmOptions::default() };
    GemmExecutor::<f32>::new()
        .gemm(out, GemmInputA::Unpacked(a.0), GemmInputB::Unpacked(b.0), options)
        .map_err(|error| Error::Msg(format!("matrix product: {error}")))
}

/// Adds the sum of all rows of `[rows, columns]` to `out`.
pub(crate) fn add_column_sums(values: &[f32], columns: usize, out: &mut [f32]) {
    let partial: Vec<Vec<f32>> = values
        .par_chunks(columns * ROWS_PER_TASK)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            vectorised(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(columns) {
                        for (sum, value) in sums.iter_mut().zip(row) {
                            *sum += value;
                        }
                    }
                },
            );
            sums
        })
        .collect();
    for sums in partial {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out += sum;
        }
    }
}

/// Replaces every value by `change` of it and the other one, in parallel, compiled for the vector unit; `change` must be `#[inline(always)]`.
pub(crate) fn zip_with(out: &mut [f32], other: &[f32], change: impl Fn(f32, f32) -> f32 + Sync) {
    out.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK)).for_each(|(out, other)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, other) in out.iter_mut().zip(other) {
                    *out = change(*out, *other);
                }
            },
        );
    });
}

/// Adds element by element.
pub(crate) fn add_to(out: &mut [f32], other: &[f32]) {
    zip_with(
        out,
        other,
        #[inline(always)]
        |out, other| out + other,
    );
}
