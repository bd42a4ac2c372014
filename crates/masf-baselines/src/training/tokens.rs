//! Networks on tokens: maps as `[B, positions, channels]`, row-major over the grid, with plain operations of Candle except for norms and cosines
//! (`fused`), changes of grid, and the 3 x 3 neighbourhoods of a convolution, whose gradient Candle computes slowly on a CPU.

use candle_core::{CpuStorage, CustomOp1, Device, Error, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::fused::{Over, cosine, normalise};
use super::{operand, values};

/// What a leaky ReLU leaves of negative values.
const SLOPE: f32 = 0.01;

/// `(height, width)` of a grid of tokens.
pub(crate) type Grid = (usize, usize);

/// `x W + b` for tokens `x [B, P, I]`, `W [I, O]`, `b [O]`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (batch, positions, input) = x.dims3()?;
    let y = x.reshape((batch * positions, input))?.matmul(weight)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    y.reshape((batch, positions, weight.dim(1)?))
}

/// `max(x, 0.01 x)`.
pub(crate) fn leaky_relu(x: &Tensor) -> Result<Tensor> {
    x.maximum(&(x * f64::from(SLOPE))?)
}

/// Every channel of every image of mean 0 and variance 1 over the positions, then a leaky ReLU.
pub(crate) fn leaky_instance_norm(x: &Tensor) -> Result<Tensor> {
    normalise(x, Over::Positions, SLOPE)
}

/// Every token of mean 0 and variance 1 over the channels, then a leaky ReLU.
pub(crate) fn leaky_layer_norm(x: &Tensor) -> Result<Tensor> {
    normalise(x, Over::Channels, SLOPE)
}

/// Every token of mean 0 and variance 1 over the channels.
pub(crate) fn layer_norm(x: &Tensor) -> Result<Tensor> {
    normalise(x, Over::Channels, 1.0)
}

/// A sparse matrix for one axis: the length that is read, the length that is made, and `(to, from, weight)`.
type Axis = (usize, usize, Vec<(usize, usize, f32)>);

/// A fixed linear map from a grid to another, along its rows and then its columns.
#[derive(Clone)]
pub(crate) struct Resampling {
    rows: Axis,
    columns: Axis,
}

/// The tokens `[B, P, C]` of every image on another grid, `[B, Q, C]`.
pub(crate) fn map_positions(x: &Tensor, resampling: &Resampling) -> Result<Tensor> {
    x.contiguous()?.apply_op1(resampling.clone())
}

/// Bilinear resizing, as [`masf_core::resample`] does it.
pub(crate) fn bilinear(from: Grid, to: Grid) -> Resampling {
    let axis = |from: usize, to: usize| -> Axis {
        let reads = masf_core::resample::bilinear_weights(from, to).enumerate();
        let weights = reads.flat_map(|(index, reads)| reads.map(|(position, weight)| (index, position, weight)));
        (from, to, weights.collect())
    };
    Resampling { rows: axis(from.0, to.0), columns: axis(from.1, to.1) }
}

/// Means over the cells of a coarser grid: a position belongs to the cell that its place falls into.
pub(crate) fn cell_means(from: Grid, to: Grid) -> Resampling {
    let axis = |from: usize, to: usize| -> Axis {
        let weights = (0..from).map(|index| {
            let cell = index * to / from;
            let count = ((cell + 1) * from).div_ceil(to) - (cell * from).div_ceil(to);
            (cell, index, 1.0 / count as f32)
        });
        (from, to, weights.collect())
    };
    Resampling { rows: axis(from.0, to.0), columns: axis(from.1, to.1) }
}

/// Maps the middle axis of `[_, from, inner]`.
fn along(x: &[f32], inner: usize, (from, to, weights): &Axis) -> Vec<f32> {
    let mut out = vec![0f32; x.len() / from * to];
    out.par_chunks_mut(to * inner).zip(x.par_chunks(from * inner)).for_each(|(out, x)| {
        for (to, from, weight) in weights {
            for (out, value) in out[to * inner..].iter_mut().zip(&x[from * inner..][..inner]) {
                *out += weight * value;
            }
        }
    });
    out
}

impl CustomOp1 for Resampling {
    fn name(&self) -> &'static str {
        "resampling"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, positions, channels) = layout.shape().dims3()?;
        if positions != self.rows.0 * self.columns.0 {
            return Err(Error::Msg(format!(
                "{positions} tokens are not of a grid of {} x {}",
                self.rows.0, self.columns.0
            )));
        }
        let x = along(operand(x, layout)?, self.columns.0 * channels, &self.rows);
        let x = along(&x, channels, &self.columns);
        Ok((CpuStorage::F32(x), Shape::from((batch, self.rows.1 * self.columns.1, channels))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let transposed = |(from, to, weights): &Axis| -> Axis {
            (*to, *from, weights.iter().map(|(to, from, weight)| (*from, *to, *weight)).collect())
        };
        let transposed = Self { rows: transposed(&self.rows), columns: transposed(&self.columns) };
        map_positions(gradient, &transposed).map(Some)
    }
}

/// `1 - cos` of whole maps, the mean over the images.
pub(crate) fn cosine_distance(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    flat_cosine(a, b)?.mean_all()?.affine(-1.0, 1.0)
}

/// The cosine of every image's map with another, `[B]`.
pub(crate) fn flat_cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let batch = a.dim(0)?;
    cosine(&a.reshape((batch, ()))?, &b.reshape((batch, ()))?)
}

/// The 3 x 3 neighbourhood of every `stride`-th position, `[B, P, C]` to `[B, Q, 9 C]`, zero beyond the border; a convolution is its
/// product with `[9 C, O]`.
pub(crate) fn neighbourhoods(x: &Tensor, grid: Grid, stride: usize) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Neighbourhoods { grid, stride })
}

/// The grid of [`neighbourhoods`].
pub(crate) fn strided(grid: Grid, stride: usize) -> Grid {
    (grid.0.div_ceil(stride), grid.1.div_ceil(stride))
}

struct Neighbourhoods {
    grid: Grid,
    stride: usize,
}

impl Neighbourhoods {
    /// For every output position in turn the place among the nine and the input position.
    fn reads(&self) -> Vec<Vec<(usize, usize)>> {
        let (height, width) = self.grid;
        let (rows, columns) = strided(self.grid, self.stride);
        let mut reads = Vec::with_capacity(rows * columns);
        for (row, column) in (0..rows * columns).map(|q| (q / columns * self.stride, q % columns * self.stride)) {
            let near = |tap: usize| {
                let (y, x) = ((row + tap / 3).checked_sub(1)?, (column + tap % 3).checked_sub(1)?);
                (y < height && x < width).then_some((tap, y * width + x))
            };
            reads.push((0..9).filter_map(near).collect());
        }
        reads
    }
}

impl CustomOp1 for Neighbourhoods {
    fn name(&self) -> &'static str {
        "neighbourhoods"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, positions, channels) = layout.shape().dims3()?;
        let x = operand(x, layout)?;
        let reads = self.reads();
        let mut out = vec![0f32; batch * reads.len() * 9 * channels];
        out.par_chunks_mut(9 * channels).enumerate().for_each(|(index, out)| {
            let image = &x[index / reads.len() * positions * channels..][..positions * channels];
            for &(tap, position) in &reads[index % reads.len()] {
                out[tap * channels..][..channels].copy_from_slice(&image[position * channels..][..channels]);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((batch, reads.len(), 9 * channels))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, positions, channels) = x.dims3()?;
        let gradient = values(gradient)?;
        let reads = self.reads();
        // Read from the side of the input, so that every sum has one task and a fixed order.
        let mut readers = vec![Vec::new(); positions];
        for (output, reads) in reads.iter().enumerate() {
            reads.iter().for_each(|(tap, position)| readers[*position].push((output, *tap)));
        }
        let mut slopes = vec![0f32; x.elem_count()];
        slopes.par_chunks_mut(channels).enumerate().for_each(|(index, slopes)| {
            let image = &gradient[index / positions * reads.len() * 9 * channels..][..reads.len() * 9 * channels];
            for &(output, tap) in &readers[index % positions] {
                for (slope, value) in slopes.iter_mut().zip(&image[(output * 9 + tap) * channels..]) {
                    *slope += value;
                }
            }
        });
        Ok(Some(Tensor::from_vec(slopes, x.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// Numbers without a pattern.
    fn tokens(shape: (usize, usize, usize)) -> Result<Tensor> {
        let count = shape.0 * shape.1 * shape.2;
        Tensor::from_vec((0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect(), shape, &Device::Cpu)
    }

    #[test]
    fn neighbourhoods_make_a_convolution() -> Result<()> {
        let ((height, width), channels, outputs) = ((5, 4), 3, 2);
        let x = tokens((2, height * width, channels))?;
        let weight = tokens((9, channels, outputs))?;
        for stride in [1, 2] {
            let y =
                linear(&neighbourhoods(&x, (height, width), stride)?, &weight.reshape((9 * channels, outputs))?, None)?;
            // Candle's own convolution, channels first.
            let map = x.reshape((2, height, width, channels))?.permute((0, 3, 1, 2))?.contiguous()?;
            let kernel = weight.reshape((3, 3, channels, outputs))?.permute((3, 2, 0, 1))?.contiguous()?;
            let expected = map.conv2d(&kernel, 1, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()?;
            let (y, expected) = (values(&y)?, values(&expected)?);
            assert_eq!(y.len(), expected.len());
            for (a, b) in y.iter().zip(expected) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
        Ok(())
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let grid = (3, 4);
        // No value is so near to zero that a difference would cross the bend of the leaky ReLU.
        let x = tokens((1, 12, 5))?.affine(1.0, 0.02)?;
        let weights = tokens((1, 4, 45))?;
        let loss = |x: &Tensor| -> Result<Tensor> {
            let near = neighbourhoods(x, grid, 2)?;
            let normal = (leaky_instance_norm(x)? + layer_norm(&leaky_relu(x)?)?)?;
            let resized = map_positions(&map_positions(x, &bilinear(grid, (5, 3)))?, &cell_means((5, 3), (2, 2)))?;
            let sums = (near.mul(&weights)?.sum_all()? + resized.mul(&tokens((1, 4, 5))?)?.sum_all()?)?;
            sums + cosine_distance(&normal, &tokens((1, 12, 5))?.affine(1.0, 0.3)?)?
        };
        let variable = Var::from_tensor(&x)?;
        let gradient = values(loss(&variable)?.backward()?.get(&variable).expect("it takes part"))?;
        for index in 0..60 {
            let at = |offset: f32| -> Result<f32> {
                let mut moved = values(&x)?;
                moved[index] += offset;
                loss(&Tensor::from_vec(moved, x.shape(), &Device::Cpu)?)?.to_scalar::<f32>()
            };
            let difference = (at(1e-2)? - at(-1e-2)?) / 2e-2;
            assert!((gradient[index] - difference).abs() < 2e-2, "{index}: {} {difference}", gradient[index]);
        }
        Ok(())
    }

    #[test]
    fn cells_average_and_bilinear_keeps_constants() -> masf_core::Result<()> {
        let x = Tensor::arange(0f32, 16f32, &Device::Cpu)?.reshape((1, 16, 1))?;
        let means = values(&map_positions(&x, &cell_means((4, 4), (2, 2)))?)?;
        assert_eq!(means, [2.5, 4.5, 10.5, 12.5]);
        let ones = Tensor::ones((2, 6, 3), candle_core::DType::F32, &Device::Cpu)?;
        for value in values(&map_positions(&ones, &bilinear((2, 3), (5, 5)))?)? {
            assert!((value - 1.0).abs() < 1e-6);
        }
        let x = tokens((2, 6, 3))?;
        let maps = x.reshape((2, 2, 3, 3))?.permute((0, 3, 1, 2))?;
        let expected = masf_core::resample::bilinear(&maps, (5, 2))?.permute((0, 2, 3, 1))?;
        for (a, b) in values(&map_positions(&x, &bilinear((2, 3), (5, 2)))?)?.iter().zip(values(&expected)?) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        // They hold as much as the sides, not as their product.
        assert_eq!(cell_means((128, 128), (128, 128)).rows.2.len(), 128);
        assert_eq!(bilinear((128, 128), (128, 128)).rows.2.len(), 256);
        Ok(())
    }
}
