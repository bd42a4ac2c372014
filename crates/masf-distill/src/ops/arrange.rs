//! Moving tokens between layouts, masking and shifting them, and filtering spectra.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;

use super::product::{add_column_sums, add_to, zip_with};
use super::{operand, tensor, with_slice};

/// `[B, R, C]` to `[B, C, R]`.
pub(crate) struct Swap;

impl CustomOp1 for Swap {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, rows, columns) = layout.shape().dims3()?;
        let x = operand(x, layout)?;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns)).for_each(|(y, x)| {
            let strips = y.par_chunks_mut(STRIP * rows).enumerate();
            strips.for_each(|(strip, y)| transpose(x, y, rows, columns, strip * STRIP, rows));
        });
        Ok((CpuStorage::F32(y), Shape::from((batch, columns, rows))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Swap)?))
    }
}

/// Columns that one task transposes.
const STRIP: usize = 48;

/// Writes the transposes of columns `first` to `first + STRIP` (or the last) of `[rows, columns]` as rows of `pitch` values, in
/// tiles that stay in the first-level cache.
fn transpose(x: &[f32], y: &mut [f32], rows: usize, columns: usize, first: usize, pitch: usize) {
    const TILE: usize = 16;
    let end = columns.min(first + STRIP);
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (first..end).step_by(TILE) {
            for c in c0..(c0 + TILE).min(end) {
                let start = (c - first) * pitch + r0;
                let out = &mut y[start..start + TILE.min(rows - r0)];
                for (r, out) in (r0..).zip(out) {
                    *out = x[r * columns + c];
                }
            }
        }
    }
}

/// Spectral tokens `[B F, 2 D]` (real parts, then imaginary ones) of planes `[2, B, D, F]`.
pub(crate) struct SpectralTokens {
    /// Images, channels, frequencies.
    pub(crate) shape: (usize, usize, usize),
}

impl CustomOp1 for SpectralTokens {
    fn name(&self) -> &'static str {
        "spectral-tokens"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, width, count) = self.shape;
        let x = operand(x, layout)?;
        let (re, im) = x.split_at(x.len() / 2);
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(2 * width * count)
            .zip(re.par_chunks(width * count).zip(im.par_chunks(width * count)))
            .for_each(|(y, (re, im))| {
                y.par_chunks_mut(STRIP * 2 * width).enumerate().for_each(|(strip, y)| {
                    transpose(re, y, width, count, strip * STRIP, 2 * width);
                    transpose(im, &mut y[width..], width, count, strip * STRIP, 2 * width);
                });
            });
        Ok((CpuStorage::F32(y), Shape::from((batch * count, 2 * width))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width, count) = self.shape;
        let mut planes = vec![0.0; x.elem_count()];
        let (re, im) = planes.split_at_mut(x.elem_count() / 2);
        with_slice(grad, |grad| {
            re.par_chunks_mut(width * count)
                .zip(im.par_chunks_mut(width * count))
                .zip(grad.par_chunks(2 * width * count))
                .for_each(|((re, im), grad)| {
                    for (frequency, row) in grad.chunks_exact(2 * width).enumerate() {
                        for channel in 0..width {
                            re[channel * count + frequency] = row[channel];
                            im[channel * count + frequency] = row[width + channel];
                        }
                    }
                });
            Ok(())
        })?;
        Ok(Some(tensor(planes, x.shape().clone())?))
    }
}

/// The product of spectra `[2, B, M]` with complex gains `[2, M]`, both planar.
pub(crate) struct Gains;

impl CustomOp2 for Gains {
    fn name(&self) -> &'static str {
        "spectral-gains"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, gains: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, gains) = (operand(x, xl)?, operand(gains, gl)?);
        Ok((CpuStorage::F32(multiply(x, gains, 1.0)), xl.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, gains: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let count = gains.elem_count() / 2;
        with_slice(grad, |grad| {
            // The adjoint of a product is the product with the conjugate.
            let gx = with_slice(gains, |gains| Ok(multiply(grad, gains, -1.0)))?;
            let mut g = vec![0.0; 2 * count];
            with_slice(x, |x| {
                let ((xr, xi), (gr, gi)) = (x.split_at(x.len() / 2), grad.split_at(grad.len() / 2));
                let (re, im) = g.split_at_mut(count);
                const CHUNK: usize = 1 << 12;
                re.par_chunks_mut(CHUNK).zip(im.par_chunks_mut(CHUNK)).enumerate().for_each(|(chunk, (re, im))| {
                    for start in (chunk * CHUNK..xr.len()).step_by(count) {
                        let range = start..start + re.len();
                        let (xr, xi, gr, gi) = (&xr[range.clone()], &xi[range.clone()], &gr[range.clone()], &gi[range]);
                        vectorised(
                            #[inline(always)]
                            || {
                                for (index, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
                                    *re += xr[index] * gr[index] + xi[index] * gi[index];
                                    *im += xr[index] * gi[index] - xi[index] * gr[index];
                                }
                            },
                        );
                    }
                });
                Ok(())
            })?;
            Ok((Some(tensor(gx, x.shape().clone())?), Some(tensor(g, gains.shape().clone())?)))
        })
    }
}

/// `x g`, or `x conj(g)` with `sign` -1.
fn multiply(x: &[f32], gains: &[f32], sign: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let ((xr, xi), (gr, gi)) = (x.split_at(x.len() / 2), gains.split_at(gains.len() / 2));
    let (yr, yi) = y.split_at_mut(x.len() / 2);
    const CHUNK: usize = 1 << 13;
    let images = yr.par_chunks_mut(gr.len()).zip(yi.par_chunks_mut(gr.len()));
    images.zip(xr.par_chunks(gr.len()).zip(xi.par_chunks(gr.len()))).for_each(|((yr, yi), (xr, xi))| {
        let chunks = yr.par_chunks_mut(CHUNK).zip(yi.par_chunks_mut(CHUNK));
        let chunks = chunks.zip(xr.par_chunks(CHUNK).zip(xi.par_chunks(CHUNK)));
        chunks.zip(gr.par_chunks(CHUNK).zip(gi.par_chunks(CHUNK))).for_each(|(((yr, yi), (xr, xi)), (gr, gi))| {
            vectorised(
                #[inline(always)]
                || {
                    for (((yr, yi), (xr, xi)), (gr, gi)) in
                        yr.iter_mut().zip(yi.iter_mut()).zip(xr.iter().zip(xi)).zip(gr.iter().zip(gi))
                    {
                        let gi = sign * gi;
                        *yr = xr * gr - xi * gi;
                        *yi = xr * gi + xi * gr;
                    }
                },
            );
        });
    });
    y
}

/// `x + y` of one shape. Candle's own addition has threads that wait for each other by spinning.
pub(crate) struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, y: &CpuStorage, yl: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut sum = operand(x, xl)?.to_vec();
        add_to(&mut sum, operand(y, yl)?);
        Ok((CpuStorage::F32(sum), xl.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}

/// `x + b` where the bias `[P, D]` repeats after `P` rows of `x [R, D]`.
pub(crate) struct AddRows;

impl CustomOp2 for AddRows {
    fn name(&self) -> &'static str {
        "add-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, bias: &CpuStorage, bl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (mut y, bias) = (operand(x, xl)?.to_vec(), operand(bias, bl)?);
        y.chunks_exact_mut(bias.len()).for_each(|y| add_to(y, bias));
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, bias: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut sums = vec![0.0; bias.elem_count()];
        with_slice(grad, |grad| {
            add_column_sums(grad, sums.len(), &mut sums.as_mut_slice()[..]);
            Ok(())
        })?;
        Ok((Some(grad.clone()), Some(tensor(sums, bias.shape().clone())?)))
    }
}

/// Replaces rows of `x [R, D]` by a token `[D]`.
pub(crate) struct MaskRows {
    /// Which rows are replaced.
    pub(crate) masked: Vec<bool>,
}

impl CustomOp2 for MaskRows {
    fn name(&self) -> &'static str {
        "mask-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, token: &CpuStorage, tl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (mut y, token) = (operand(x, xl)?.to_vec(), operand(token, tl)?);
        for (row, masked) in y.chunks_exact_mut(token.len()).zip(&self.masked) {
            if *masked {
                row.copy_from_slice(token);
            }
        }
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, token: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut of_token = vec![0.0; token.elem_count()];
        let mut gx = with_slice(grad, |grad| Ok(grad.to_vec()))?;
        for (row, masked) in gx.chunks_exact_mut(of_token.len()).zip(&self.masked) {
            if *masked {
                for (sum, value) in of_token.iter_mut().zip(row.iter()) {
                    *sum += value;
                }
                row.fill(0.0);
            }
        }
        Ok((Some(tensor(gx, grad.shape().clone())?), Some(tensor(of_token, token.shape().clone())?)))
    }
}

/// The product of planes `[2, B, D, F]` with a real response `[B, F]` for each image; its own adjoint.
#[derive(Clone)]
pub(crate) struct MaskFrequencies {
    pub(crate) responses: Arc<Vec<f32>>,
    /// Images, channels, frequencies.
    pub(crate) shape: (usize, usize, usize),
}

impl CustomOp1 for MaskFrequencies {
    fn name(&self) -> &'static str {
        "mask-frequencies"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, width, count) = self.shape;
        let mut y = operand(x, layout)?.to_vec();
        y.par_chunks_mut(width * count).enumerate().for_each(|(image, y)| {
            let response = &self.responses[image % batch * count..][..count];
            for row in y.chunks_exact_mut(count) {
                for (value, response) in row.iter_mut().zip(response) {
                    *value *= response;
                }
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(self)?))
    }
}

/// The product with fixed factors, element by element.
#[derive(Clone)]
pub(crate) struct Scale(pub(crate) Arc<Vec<f32>>);

impl CustomOp1 for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = operand(x, layout)?.to_vec();
        zip_with(
            &mut y,
            &self.0,
            #[inline(always)]
            |y, factor| y * factor,
        );
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(self)?))
    }
}
