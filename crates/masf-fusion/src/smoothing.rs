//! Resizing and Gaussian smoothing of maps as one sum along each axis.
//!
//! Both are linear along each axis, so their matrices multiply: `A = G U` with the bilinear matrix `U [H, h]` and the
//! Gaussian one `G [H, H]`; a map becomes `A_y X A_x^T`. `A` is a narrow band: only that is summed. The Gaussian is that of `scipy.ndimage.gaussian_filter`: cut at
//! four standard deviations, normalised, mirrored at the border (`reflect`: d c b a | a b c d | d c b a).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use masf_core::resample::bilinear_matrix;
use masf_core::{Result, values, vectorised};

/// The Gaussian convolution of the rows of a matrix `[length, columns]` along them; the matrix itself for `sigma = 0`.
fn smoothed_rows(rows: &[f32], length: usize, sigma: f64) -> Vec<f32> {
    let radius = (4.0 * sigma + 0.5) as i64;
    let mut kernel: Vec<f64> = (-radius..=radius).map(|x| gaussian(x as f64, sigma)).collect();
    let total: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|weight| *weight /= total);
    let columns = rows.len() / length.max(1);
    let mut smoothed = Vec::with_capacity(rows.len());
    let mut sums = vec![0f64; columns];
    vectorised(
        #[inline(always)]
        || {
            for centre in 0..length as i64 {
                sums.fill(0.0);
                for (offset, weight) in (-radius..=radius).zip(&kernel) {
                    let row = &rows[reflect(centre + offset, length as i64) * columns..][..columns];
                    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value));
                }
                smoothed.extend(sums.iter().map(|sum| *sum as f32));
            }
        },
    );
    smoothed
}

fn gaussian(x: f64, sigma: f64) -> f64 {
    if sigma == 0.0 { 1.0 } else { (-0.5 * (x / sigma).powi(2)).exp() }
}

/// The index that mirroring at the borders gives, for any distance outside.
fn reflect(index: i64, length: i64) -> usize {
    let wrapped = index.rem_euclid(2 * length);
    (if wrapped < length { wrapped } else { 2 * length - 1 - wrapped }) as usize
}

/// Resizes to a fixed size and smooths.
pub(crate) struct Smoother {
    rows: Axis,
    columns: Axis,
}

impl Smoother {
    /// From maps of size `from` to maps of size `to`, smoothed with `sigma` (in pixels of `to`).
    pub(crate) fn new(from: (usize, usize), to: (usize, usize), sigma: f64) -> Result<Self> {
        let rows = Axis::new(from.0, to.0, sigma)?;
        let columns = if (from.0, to.0) == (from.1, to.1) { rows.clone() } else { Axis::new(from.1, to.1, sigma)? };
        Ok(Self { rows, columns })
    }

    /// `[h, w]` to `[H, W]`, on the map's device.
    pub(crate) fn apply(&self, map: &Tensor) -> Result<Tensor> {
        let (height, width) =
            (self.rows.matrix.len() / self.rows.input, self.columns.matrix.len() / self.columns.input);
        let from = values(map)?;
        // `[h, W]`, then `[H, W]`.
        let (mut wide, mut smoothed) = (vec![0f32; self.rows.input * width], vec![0f32; height * width]);
        vectorised(
            #[inline(always)]
            || {
                for (wide, row) in wide.chunks_exact_mut(width).zip(from.chunks_exact(self.columns.input)) {
                    for (value, (taps, weights)) in wide.iter_mut().zip(self.columns.taps()) {
                        *value = row[taps].iter().zip(weights).map(|(value, weight)| value * weight).sum();
                    }
                }
                for (out, (taps, weights)) in smoothed.chunks_exact_mut(width).zip(self.rows.taps()) {
                    for (row, weight) in wide.chunks_exact(width).skip(taps.start).zip(weights) {
                        out.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
                    }
                }
            },
        );
        Ok(Tensor::from_vec(smoothed, (height, width), map.device())?)
    }
}

/// Smoothers that were made, as every image needs the same few. A copy begins with none, and all are equal: they are nothing but time saved.
#[derive(Default)]
pub(crate) struct Smoothers(Mutex<Vec<(Request, Arc<Smoother>)>>);

/// Sizes from and to, and the standard deviation.
type Request = ((usize, usize), (usize, usize), f64);

/// Most that are kept: a fusion of two branches needs three for each size of input.
const KEPT: usize = 12;

impl Smoothers {
    /// As [`Smoother::new`].
    pub(crate) fn get(&self, from: (usize, usize), to: (usize, usize), sigma: f64) -> Result<Arc<Smoother>> {
        let request = (from, to, sigma);
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = kept().iter().find(|(made, _)| *made == request) {
            return Ok(found.clone());
        }
        // Made without the lock: several threads may make the same one at first, and each is as good.
        let made = Arc::new(Smoother::new(from, to, sigma)?);
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((request, made.clone()));
        Ok(made)
    }
}

impl Clone for Smoothers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Smoothers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Smoothers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Smoothers")
    }
}

/// The sums along one axis.
#[derive(Clone)]
struct Axis {
    input: usize,
    /// `[output, input]`.
    matrix: Vec<f32>,
    /// Where the weights of every output position are not zero.
    taps: Vec<Range<usize>>,
}

impl Axis {
    fn new(input: usize, output: usize, sigma: f64) -> Result<Self> {
        let bilinear = bilinear_matrix(input, output, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let matrix = smoothed_rows(&bilinear, output, sigma);
        let taps = |row: &[f32]| {
            let start = row.iter().position(|weight| *weight != 0.0).unwrap_or(0);
            start..row.iter().rposition(|weight| *weight != 0.0).map_or(start, |last| last + 1)
        };
        let taps = matrix.chunks_exact(input).map(taps).collect();
        Ok(Self { input, matrix, taps })
    }

    /// For every output position the input positions that it is summed from, and their weights.
    #[inline(always)]
    fn taps(&self) -> impl Iterator<Item = (Range<usize>, &[f32])> {
        let rows = self.matrix.chunks_exact(self.input);
        self.taps.iter().zip(rows).map(|(taps, row)| (taps.clone(), &row[taps.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn matches_scipy() -> Result<()> {
        // scipy.ndimage.gaussian_filter(numpy.arange(12.0).reshape(3, 4) ** 2, 1.5)
        let map = Tensor::arange(0f32, 12f32, &Device::Cpu)?.sqr()?.reshape((3, 4))?;
        let smoothed = Smoother::new((3, 4), (3, 4), 1.5)?.apply(&map)?.flatten_all()?.to_vec1::<f32>()?;
        for (a, b) in smoothed.iter().zip(SCIPY) {
            assert!((a - b).abs() < 1e-3, "{smoothed:?}");
        }
        Ok(())
    }

    const SCIPY: [f32; 12] =
        [23.1417, 26.7168, 31.9421, 35.7664, 34.1437, 38.7130, 45.3422, 50.1607, 45.3760, 50.9394, 58.9727, 64.7852];

    #[test]
    fn constants_stay_and_mass_is_kept() -> Result<()> {
        for (length, sigma) in [(1, 4.0), (5, 4.0), (64, 0.0), (31, 2.5)] {
            let identity = Tensor::eye(length, DType::F32, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            let smoothed = smoothed_rows(&identity, length, sigma);
            let matrix = Tensor::from_vec(smoothed, (length, length), &Device::Cpu)?;
            for axis in [0, 1] {
                for sum in matrix.sum(axis)?.to_vec1::<f32>()? {
                    assert!((sum - 1.0).abs() < 1e-5, "length {length}, sigma {sigma}: {sum}");
                }
            }
        }
        Ok(())
    }
}
