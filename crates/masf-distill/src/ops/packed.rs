//! A head with its weight packed for the matrix product, which gives distances without ever holding all predictions.

use candle_core::{Error, Result, Tensor};
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use super::cosine::Sums;
use super::with_slice;
use crate::features::ChannelStatistics;

/// Tokens of one task: their predictions stay in the second-level cache.
const ROWS: usize = 32;

/// A head `[D + 1, P C]`.
pub(crate) struct PackedHead {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    input: usize,
}

impl PackedHead {
    pub(crate) fn new(head: &Tensor) -> Result<Self> {
        let (rows, output) = head.dims2()?;
        let input = rows - 1;
        with_slice(head, |values| {
            let (weight, bias) = values.split_at(input * output);
            let weight = NdTensorView::from_data([input, output], weight);
            let weight = GemmExecutor::<f32>::new().prepack_b(weight);
            Ok(Self { weight, bias: bias.to_vec(), input })
        })
    }

    /// The distances (raw, standardised) of every token's positions, token by token, of one image: `x [N, D]`, features `[h, w, C]`, and where in the
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
                let a = NdTensorView::from_data([rows, self.input], x);
                let options = GemmOptions { bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() };
                GemmExecutor::<f32>::new()
                    .gemm(predictions, GemmInputA::Unpacked(a), GemmInputB::Packed(&self.weight), options)
                    .map_err(|error| Error::Msg(format!("matrix product: {error}")))?;
                pulp::Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for ((distances, position), z) in
                            distances.iter_mut().zip(positions).zip(predictions.chunks_exact(channels))
                        {
                            let Some(position) = position else { continue };
                            let t = &features[position * channels..(position + 1) * channels];
                            let sums = Sums::of(z, t, statistics);
                            *distances = [sums.distance(0), sums.distance(1)];
                        }
                    },
                );
                Result::Ok(())
            })?;
        Ok(distances)
    }
}
