//! Principal components by block power iteration on the covariance (Halko, Martinsson and Tropp 2011, section 4.4).
//!
//! The covariance is summed over blocks of rows (matrix products in `f32`, sums over blocks in `f64`). A block of random
//! vectors, somewhat wider than the components wanted, is multiplied by it and orthonormalised a fixed number of times; the
//! Rayleigh-Ritz step then diagonalises the covariance within the block by Jacobi rotations. Where the block is as wide as
//! the space this is exact; otherwise the last components are approximate when the spectrum decays slowly.

use masf_core::Progress;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

use crate::{LinearMap, MemoryError, Result};

/// Rows of one block of the covariance.
const ROWS: usize = 1024;
/// Multiplications of the block by the covariance.
pub(crate) const ITERATIONS: usize = 12;
/// Vectors beyond those wanted.
const OVERSAMPLING: usize = 16;
/// Least variance that whitening divides by, as a share of the largest: directions without variance are not blown up.
const LEAST_VARIANCE: f64 = 1e-4;

/// Working memory, in 4-byte values.
pub(crate) fn memory(dimensions: usize, components: usize) -> usize {
    let block = width(dimensions, components);
    // The covariance in both precisions and one product; a block of rows, plain and packed; the vectors.
    4 * dimensions * dimensions + 3 * ROWS * dimensions + 8 * dimensions * block + 6 * block * block
}

fn width(dimensions: usize, components: usize) -> usize {
    (components + OVERSAMPLING).min(dimensions)
}

/// The first principal components of rows of length `dimensions`, largest variance first, as a map, with their variances.
///
/// The map does not subtract the mean, which changes no distance. Signs are such that a component's largest entry is
/// positive. Every iteration is a step of the caller's stage.
pub(crate) fn principal_components<'a>(
    rows: impl Iterator<Item = &'a [f32]> + Clone,
    dimensions: usize,
    components: usize,
    whiten: bool,
    seed: u64,
    progress: &dyn Progress,
) -> Result<(LinearMap, Vec<f64>)> {
    let covariance = covariance(rows, dimensions)?;
    let block = width(dimensions, components);
    let start = LinearMap::random(block, dimensions, seed, "memory.pca")?;
    let mut vectors: Vec<f64> = start.matrix().iter().copied().map(f64::from).collect();
    orthonormalise(&mut vectors, dimensions);
    let mut images = multiply(&vectors, &covariance, dimensions)?;
    for _ in 0..ITERATIONS {
        MemoryError::if_cancelled(progress)?;
        vectors.copy_from_slice(&images);
        orthonormalise(&mut vectors, dimensions);
        images = multiply(&vectors, &covariance, dimensions)?;
        progress.step(1);
    }
    let mut within = vec![0.0; block * block];
    for (row, image) in within.chunks_exact_mut(block).zip(images.chunks_exact(dimensions)) {
        for (value, vector) in row.iter_mut().zip(vectors.chunks_exact(dimensions)) {
            *value = dot(image, vector);
        }
    }
    let (variances, rotation) = symmetric_eigen(within, block, progress)?;
    let mut order: Vec<usize> = (0..block).collect();
    order.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]).then(a.cmp(b)));
    order.truncate(components);
    let largest = order.first().map_or(0.0, |first| variances[*first]);
    let mut matrix = vec![0f32; dimensions * components];
    for (column, &chosen) in order.iter().enumerate() {
        let mut component = vec![0.0; dimensions];
        for (vector, weights) in vectors.chunks_exact(dimensions).zip(rotation.chunks_exact(block)) {
            for (sum, value) in component.iter_mut().zip(vector) {
                *sum += weights[chosen] * value;
            }
        }
        let sign = component.iter().copied().fold(0f64, |most, x| if x.abs() > most.abs() { x } else { most }).signum();
        let deviation = variances[chosen].max(LEAST_VARIANCE * largest).sqrt();
        let factor = if whiten && deviation > 0.0 { sign / deviation } else { sign };
        for (row, value) in matrix.chunks_exact_mut(components).zip(component) {
            row[column] = (factor * value) as f32;
        }
    }
    let variances = order.iter().map(|chosen| variances[*chosen].max(0.0)).collect();
    Ok((LinearMap::new(matrix, dimensions, components)?, variances))
}

/// The mean of rows.
pub(crate) fn mean(rows: &[f32], dimensions: usize) -> Vec<f32> {
    let mut sums = vec![0f64; dimensions];
    for row in rows.chunks_exact(dimensions) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let count = (rows.len() / dimensions).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// The root mean square distance of rows from their mean.
pub(crate) fn spread(rows: &[f32], mean: &[f32]) -> f64 {
    let of_row = |row: &[f32]| row.iter().zip(mean).map(|(value, mean)| f64::from(value - mean).powi(2)).sum::<f64>();
    let squares: f64 = rows.chunks_exact(mean.len()).map(of_row).sum();
    (squares / (rows.len() / mean.len()).max(1) as f64).sqrt()
}

/// Multiplications by the covariance for the leading directions: they need not be exact.
const DIRECTION_ITERATIONS: usize = 3;

/// Orthonormal directions of (nearly) the largest variance around `mean`, in descending order, as a matrix
/// `[dimensions, count]`; zero where there is no further variance. Orthogonal iteration on evenly spaced rows, at most
/// `sample` of them; `spread` is that of the rows.
pub(crate) fn leading_directions(
    rows: &[f32],
    mean: &[f32],
    spread: f64,
    count: usize,
    sample: usize,
) -> Result<Vec<f32>> {
    let dimensions = mean.len();
    let total = rows.len() / dimensions;
    let kept = total.min(sample);
    // Brings centred rows to norms of about 1.
    let scale = spread.recip() as f32;
    let scale = if scale.is_normal() { scale } else { 1.0 };
    let mut centred = Vec::with_capacity(kept * dimensions);
    for part in 0..kept {
        let row = &rows[part * total / kept * dimensions..][..dimensions];
        centred.extend(row.iter().zip(mean).map(|(value, mean)| scale * (value - mean)));
    }
    // A product with a single row takes another path, whose bits depend on the number of threads.
    let tried = count.max(2);
    let mut directions: Vec<f32> = LinearMap::random(tried, dimensions, 0, "memory.directions")?.matrix().to_vec();
    let rows = NdTensorView::from_data([kept, dimensions], centred.as_slice());
    let product = GemmExecutor::<f32>::new();
    let mut shares = vec![0f32; tried * kept];
    for _ in 0..DIRECTION_ITERATIONS {
        let view = NdTensorView::from_data([tried, dimensions], directions.as_slice());
        let (a, b) = (GemmInputA::Unpacked(view), GemmInputB::Unpacked(rows.transposed()));
        product.gemm(&mut shares, a, b, GemmOptions::default())?;
        let view = NdTensorView::from_data([tried, kept], shares.as_slice());
        product.gemm(
            &mut directions,
            GemmInputA::Unpacked(view),
            GemmInputB::Unpacked(rows),
            GemmOptions::default(),
        )?;
        let mut exact: Vec<f64> = directions.iter().copied().map(f64::from).collect();
        orthonormalise(&mut exact, dimensions);
        directions = exact.into_iter().map(|value| value as f32).collect();
    }
    let column = |axis: usize| (0..count).map(move |index| index * dimensions + axis);
    Ok((0..dimensions).flat_map(column).map(|index| directions[index]).collect())
}

/// The covariance of rows, divided by their number.
fn covariance<'a>(rows: impl Iterator<Item = &'a [f32]> + Clone, dimensions: usize) -> Result<Vec<f32>> {
    let mut count = 0f64;
    let mut mean = vec![0f64; dimensions];
    for row in rows.clone() {
        count += 1.0;
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / count) as f32).collect();
    let product = GemmExecutor::<f32>::new();
    let mut total = vec![0f64; dimensions * dimensions];
    let mut part = vec![0f32; dimensions * dimensions];
    let mut centred = Vec::with_capacity(ROWS * dimensions);
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        centred.clear();
        for row in rows.by_ref().take(ROWS) {
            centred.extend(row.iter().zip(&mean).map(|(value, mean)| value - mean));
        }
        let view = NdTensorView::from_data([centred.len() / dimensions, dimensions], centred.as_slice());
        let (a, b) = (GemmInputA::Unpacked(view.transposed()), GemmInputB::Unpacked(view));
        product.gemm(&mut part, a, b, GemmOptions::default())?;
        for (total, part) in total.iter_mut().zip(&part) {
            *total += f64::from(*part);
        }
    }
    Ok(total.into_iter().map(|sum| (sum / count) as f32).collect())
}

/// `vectors` `[b, dimensions]` times a symmetric matrix.
fn multiply(vectors: &[f64], matrix: &[f32], dimensions: usize) -> Result<Vec<f64>> {
    let vectors: Vec<f32> = vectors.iter().map(|value| *value as f32).collect();
    let left = NdTensorView::from_data([vectors.len() / dimensions, dimensions], vectors.as_slice());
    let right = NdTensorView::from_data([dimensions, dimensions], matrix);
    let mut out = vec![0f32; vectors.len()];
    let (a, b) = (GemmInputA::Unpacked(left), GemmInputB::Unpacked(right));
    GemmExecutor::<f32>::new().gemm(&mut out, a, b, GemmOptions::default())?;
    Ok(out.into_iter().map(f64::from).collect())
}

/// Modified Gram-Schmidt, twice; a vector that depends on those before it becomes zero.
fn orthonormalise(vectors: &mut [f64], dimensions: usize) {
    for index in 0..vectors.len() / dimensions {
        let (before, rest) = vectors.split_at_mut(index * dimensions);
        let vector = &mut rest[..dimensions];
        let length = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(dimensions) {
                let share = dot(vector, other);
                for (value, other) in vector.iter_mut().zip(other) {
                    *value -= share * other;
                }
            }
        }
        let remaining = dot(vector, vector).sqrt();
        let factor = if remaining > 1e-10 * length { 1.0 / remaining } else { 0.0 };
        for value in vector.iter_mut() {
            *value *= factor;
        }
    }
}

/// Dot product in eight lanes.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_blocks, a_rest) = a.as_chunks::<8>();
    let (b_blocks, b_rest) = b.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, 8.5).
fn symmetric_eigen(mut a: Vec<f64>, n: usize, progress: &dyn Progress) -> Result<(Vec<f64>, Vec<f64>)> {
    /// Far more sweeps than the quadratic convergence needs.
    const SWEEPS: usize = 40;
    let mut vectors = vec![0.0; n * n];
    for index in 0..n {
        vectors[index * n + index] = 1.0;
    }
    let scale: f64 = a.iter().map(|value| value * value).sum();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).flat_map(|p| (0..p).map(move |q| (p, q))).map(|(p, q)| a[p * n + q].powi(2)).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..n {
            MemoryError::if_cancelled(progress)?;
            for q in p + 1..n {
                let (app, aqq, apq) = (a[p * n + p], a[q * n + q], 0.5 * (a[p * n + q] + a[q * n + p]));
                if apq == 0.0 {
                    continue;
                }
                let theta = (aqq - app) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / t.hypot(1.0);
                let sine = t * cosine;
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = cosine * x - sine * y;
                    a[k * n + q] = sine * x + cosine * y;
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    a[p * n + k] = cosine * x - sine * y;
                    a[q * n + k] = sine * x + cosine * y;
                }
                for k in 0..n {
                    let (x, y) = (vectors[k * n + p], vectors[k * n + q]);
                    vectors[k * n + p] = cosine * x - sine * y;
                    vectors[k * n + q] = sine * x + cosine * y;
                }
            }
        }
    }
    Ok(((0..n).map(|index| a[index * n + index]).collect(), vectors))
}

#[cfg(test)]
mod tests;
