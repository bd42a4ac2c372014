//! Weights packed for the matrix product, for inference: any affine map, and heads, which give distances without ever holding all predictions.

use candle_core::{Error, Result, Tensor};
use masf_core::vectorised;
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::cosine::Sums;
use super::linear::gelu_of_some;
use super::with_slice;
use crate::features::ChannelStatistics;

/// Tokens of one task: their predictions stay in the second-level cache.
const ROWS: usize = 32;

/// An affine map with weight and bias `[I + 1, O]`.
pub(crate) struct PackedLinear {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    input: usize,
}

impl PackedLinear {
    pub(crate) fn new(weight: &Tensor) -> Result<Self> {
        let (rows, output) = weight.dims2()?;
        let input = rows - 1;
        with_slice(weight, |values| {
            let (weight, bias) = values.split_at(input * output);
            let weight = NdTensorView::from_data([input, output], weight);
            let weight = GemmExecutor::<f32>::new().prepack_b(weight);
            Ok(Self { weight, bias: bias.to_vec(), input })
        })
    }

    /// `x W + b` for some rows of `x [R, I]`, into `[R, O]`, plus `share` of what is there.
    fn rows(&self, x: &[f32], out: &mut [f32], share: f32) -> Result<()> {
        let a = NdTensorView::from_data([x.len() / self.input, self.input], x);
        let options = GemmOptions { beta: share, bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() };
        GemmExecutor::<f32>::new()
            .gemm(out, GemmInputA::Unpacked(a), GemmInputB::Packed(&self.weight), options)
            .map_err(|error| Error::Msg(format!("matrix product: {error}")))
    }

    /// `x W + b` for `x [R, I]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, vec![0f32; x.dim(0)? * self.bias.len()], 0.0, |_| {})
    }

    /// `gelu(x W + b)`.
    pub(crate) fn apply_gelu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, vec![0f32; x.dim(0)? * self.bias.len()], 0.0, gelu_of_some)
    }

    /// `y + x W + b`.
    pub(crate) fn add_to(&self, y: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.run(x, with_slice(y, |y| Ok(y.to_vec()))?, 1.0, |_| {})
    }

    /// `then` of `x W + b` plus `share` of what is in `y`.
    fn run(&self, x: &Tensor, mut y: Vec<f32>, share: f32, then: impl Fn(&mut [f32]) + Sync) -> Result<Tensor> {
        let output = self.bias.len();
        with_slice(x, |x| {
            y.par_chunks_mut(ROWS * output).zip(x.par_chunks(ROWS * self.input)).try_for_each(|(y, x)| {
                self.rows(x, y, share)?;
                then(y);
                Ok(())
            })
        })?;
        Tensor::from_vec(y, (x.dim(0)?, output), x.device())
    }

    /// As a head `[D + 1, P C]`: the distances (raw; standardised, times the [activity](Sums::activity)) of every token's positions, token by token, of one image: `x [N, D]`, features `[h, w, C]`, and where in the
    /// map each position lies. Zero where it does not exist.
    pub(crate) fn distances(
        &self,
        x: &[f32],
        features: &[f32],
        positions: &[Option<usize>],
        statistics: &ChannelStatistics,
    ) -> Result<Vec<[f32; 2]>> {
        let (output, channels) = (self.bias.len(), statistics.mean.len());
        let per_cell = output / channels;
        let mut distances = vec![[0f32; 2]; positions.len()];
        distances
            .par_chunks_mut(ROWS * per_cell)
            .zip(positions.par_chunks(ROWS * per_cell))
            .zip(x.par_chunks(ROWS * self.input))
            .try_for_each_init(Vec::new, |predictions: &mut Vec<f32>, ((distances, positions), x)| {
                let rows = x.len() / self.input;
                predictions.resize(rows * output, 0.0);
                self.rows(x, predictions, 0.0)?;
                vectorised(
                    #[inline(always)]
                    || {
                        for ((distances, position), z) in
                            distances.iter_mut().zip(positions).zip(predictions.chunks_exact(channels))
                        {
                            let Some(position) = position else { continue };
                            let t = &features[position * channels..(position + 1) * channels];
                            let sums = Sums::of(z, t, statistics);
                            *distances = [sums.distance(0), sums.distance(1) * sums.activity(channels)];
                        }
                    },
                );
                Result::Ok(())
            })?;
        Ok(distances)
    }
}
