//! Where a training starts: at the best linear student, found in closed form, so that the steps are spent on what is not linear.
//!
//! - The embedding spans the principal directions of the tokens (randomised subspace iteration: Halko, Martinsson & Tropp 2011), whitened.
//! - The bottleneck passes on what it is given, as far as it is wide enough: `gelu(a) - gelu(-a) = a`, two hidden channels for one. Hidden
//!   channels beyond that keep their random first weights and add nothing yet.
//! - The heads are the least-squares fit of the standardised features to what the masked, noisy body gives.
//!
//! Blocks keep their random first weights. Sums run over batches in a fixed order, so the start does not depend on the number of threads.

use candle_core::{Device, Tensor};
use masf_core::{Progress, PyramidSource, random_stream};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use crate::Result;
use crate::features::Batch;
use crate::grid::LevelGrid;
use crate::trainer::Trainer;

/// Most images that are looked at, evenly chosen.
const MOST_IMAGES: usize = 128;
/// Images at once.
const BATCH: usize = 8;
/// Subspace iterations: products with the covariance of the tokens.
const ITERATIONS: usize = 3;
/// What is added to the diagonal of a covariance, as a share of its mean.
const RIDGE: f64 = 1e-4;

/// Replaces the random first weights of embedding, bottleneck and heads.
pub(crate) fn linear(trainer: &mut Trainer<'_>, source: &dyn PyramidSource, progress: &dyn Progress) -> Result<()> {
    let count = source.len().min(MOST_IMAGES);
    let images: Vec<usize> = (0..count).map(|index| index * source.len() / count).collect();
    progress.start("first weights", (count * (ITERATIONS + 2)) as u64);
    let started = embedding(trainer, source, &images, progress)
        .and_then(|embedding| trainer.set("embedding", embedding))
        .and_then(|()| bottleneck(trainer))
        .and_then(|()| heads(trainer, source, &images, progress));
    progress.finish();
    started
}

/// The embedding `[I + 1, D]`: whitened principal directions, bias zero, as no mean is left in standardised tokens.
fn embedding(
    trainer: &Trainer<'_>,
    source: &dyn PyramidSource,
    images: &[usize],
    progress: &dyn Progress,
) -> Result<Vec<f32>> {
    let (inputs, width) = (trainer.grid.values(), trainer.params.width);
    let rank = width.min(inputs);
    let mut random = random_stream(trainer.params.seed, "distill.start.directions");
    let mut directions: Vec<f64> = (0..inputs * rank).map(|_| StandardNormal.sample(&mut random)).collect();
    let mut covariance = vec![0f64; rank * rank];
    for iteration in 0..=ITERATIONS {
        orthonormalise(&mut directions, rank);
        let values = directions.iter().map(|value| *value as f32).collect();
        let basis = Tensor::from_vec(values, (inputs, rank), &Device::Cpu)?;
        let mut turned = vec![0f64; inputs * rank];
        for indices in images.chunks(BATCH) {
            progress.check()?;
            let tokens = Batch::tokens(&source.batch(indices)?, &trainer.grid, &trainer.statistics)?;
            let projected = tokens.matmul(&basis)?;
            match iteration < ITERATIONS {
                true => add(&mut turned, &tokens.t()?.matmul(&projected)?)?,
                false => add(&mut covariance, &projected.t()?.matmul(&projected)?)?,
            }
            progress.step(indices.len() as u64);
        }
        if iteration < ITERATIONS {
            directions = turned;
        }
    }
    let rows = (images.len() * trainer.grid.tokens()) as f64;
    covariance.iter_mut().for_each(|value| *value /= rows);
    let factor = cholesky(covariance, rank);
    // With covariance L L' of the projections, projections times L'^-1 have that of the identity: rows of the basis, solved forwards.
    let mut values = vec![0f32; (inputs + 1) * width];
    values.par_chunks_mut(width).zip(directions.par_chunks_mut(rank)).for_each(|(out, row)| {
        forwards(&factor, row);
        for (out, value) in out.iter_mut().zip(row) {
            *out = *value as f32;
        }
    });
    Ok(values)
}

/// A bottleneck that passes on as many channels as it has pairs of hidden ones. Hidden channels without a pair stay random on their way
/// down: with zeros on both sides no gradient would ever reach them. A single one has no pair; it stays as it was drawn.
fn bottleneck(trainer: &mut Trainer<'_>) -> Result<()> {
    let (width, hidden) = (trainer.params.width, trainer.params.bottleneck);
    let pairs = width.min(hidden / 2);
    if pairs == 0 {
        return Ok(());
    }
    let (mut down, mut up) = (trainer.value("bottleneck.down")?, vec![0f32; (hidden + 1) * width]);
    for row in down.chunks_exact_mut(hidden) {
        row[..2 * pairs].fill(0.0);
    }
    for channel in 0..pairs {
        for (unit, sign) in [(2 * channel, 1.0), (2 * channel + 1, -1.0)] {
            down[channel * hidden + unit] = sign;
            up[unit * width + channel] = sign;
        }
    }
    trainer.set("bottleneck.down", down)?;
    trainer.set("bottleneck.up", up)
}

/// The heads `[D + 1, P C]` by the normal equations, with the masks and the noise of training.
fn heads(
    trainer: &mut Trainer<'_>,
    source: &dyn PyramidSource,
    images: &[usize],
    progress: &dyn Progress,
) -> Result<()> {
    let (inputs, outputs) = (trainer.params.width + 1, trainer.grid.values());
    let mut gram = vec![0f64; inputs * inputs];
    let mut cross = vec![0f64; inputs * outputs];
    let mut random = random_stream(trainer.params.seed, "distill.start.masks");
    for indices in images.chunks(BATCH) {
        progress.check()?;
        // The tokens are what the heads are to give, too.
        let tokens = Batch::tokens(&source.batch(indices)?, &trainer.grid, &trainer.statistics)?;
        let x = trainer.body(&tokens, trainer.masks(indices.len(), &mut random))?;
        let x = x.pad_with_zeros(1, 0, 1)?.broadcast_add(&last(inputs)?)?.t()?;
        add(&mut gram, &x.matmul(&x.t()?.contiguous()?)?)?;
        add(&mut cross, &x.matmul(&tokens)?)?;
        progress.step(indices.len() as u64);
    }
    let factor = cholesky(gram, inputs);
    let solutions: Vec<Vec<f64>> = (0..outputs)
        .into_par_iter()
        .map(|column| {
            let mut x: Vec<f64> = cross.iter().skip(column).step_by(outputs).copied().collect();
            forwards(&factor, &mut x);
            backwards(&factor, &mut x);
            x
        })
        .collect();
    let columns: Vec<usize> = trainer.grid.levels.iter().map(LevelGrid::values).collect();
    let mut solutions = solutions.iter();
    for (name, columns) in trainer.grid.names().into_iter().zip(columns) {
        let mut values = vec![0f32; inputs * columns];
        for (column, solution) in solutions.by_ref().take(columns).enumerate() {
            for (row, value) in solution.iter().enumerate() {
                values[row * columns + column] = *value as f32;
            }
        }
        trainer.set(&format!("head{name}"), values)?;
    }
    Ok(())
}

/// The last unit vector.
fn last(count: usize) -> Result<Tensor> {
    let mut values = vec![0f32; count];
    values[count - 1] = 1.0;
    Ok(Tensor::from_vec(values, count, &Device::Cpu)?)
}

fn add(sums: &mut [f64], addend: &Tensor) -> Result<()> {
    let addend = addend.flatten_all()?.to_vec1::<f32>()?;
    for (sum, value) in sums.iter_mut().zip(addend) {
        *sum += f64::from(value);
    }
    Ok(())
}

/// Makes the columns of a row-major matrix orthonormal, by Gram-Schmidt, done twice; a column that depends on those before it becomes zero.
fn orthonormalise(values: &mut [f64], columns: usize) {
    /// What may be left of a dependent column.
    const NOISE: f64 = 1e-10;
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(columns);
    for index in 0..columns {
        let mut column: Vec<f64> = values.iter().skip(index).step_by(columns).copied().collect();
        let before = norm(&column);
        for _ in 0..2 {
            let dots: Vec<f64> = done.par_iter().map(|other| dot(other, &column)).collect();
            for (other, along) in done.iter().zip(dots) {
                column.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let left = norm(&column);
        let scale = if left > NOISE * before { 1.0 / left } else { 0.0 };
        column.iter_mut().for_each(|value| *value *= scale);
        done.push(column);
    }
    for (index, column) in done.iter().enumerate() {
        for (value, element) in values.iter_mut().skip(index).step_by(columns).zip(column) {
            *value = *element;
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// The lower factor `L` of `A + ridge = L L'`, `A` symmetric `[n, n]` without negative eigenvalues.
fn cholesky(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let mean = (0..n).map(|i| a[i * n + i]).sum::<f64>() / n as f64;
    let ridge = if mean > 0.0 { RIDGE * mean } else { 1.0 };
    for j in 0..n {
        a[j * n + j] += ridge;
        for i in j..n {
            let left = a[i * n + j] - dot(&a[i * n..i * n + j], &a[j * n..j * n + j]);
            // Rounding takes nothing near the ridge away.
            a[i * n + j] = if i == j { left.max(0.5 * ridge).sqrt() } else { left / a[j * n + j] };
        }
    }
    a
}

/// `L^-1 x` in place.
fn forwards(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in 0..n {
        x[i] = (x[i] - dot(&factor[i * n..i * n + i], &x[..i])) / factor[i * n + i];
    }
}

/// `L'^-1 x` in place.
fn backwards(factor: &[f64], x: &mut [f64]) {
    let n = x.len();
    for i in (0..n).rev() {
        x[i] /= factor[i * n + i];
        let known = x[i];
        x[..i].iter_mut().zip(&factor[i * n..i * n + i]).for_each(|(x, below)| *x -= below * known);
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn factors_solve_systems() {
        let n = 7;
        let mut random = random_stream(3, "test.system");
        let root: Vec<f64> = (0..n * n).map(|_| random.random_range(-1.0..1.0)).collect();
        let a = |i: usize, j: usize| {
            dot(&root[i * n..(i + 1) * n], &root[j * n..(j + 1) * n]) + f64::from(u8::from(i == j))
        };
        let square: Vec<f64> = (0..n * n).map(|index| a(index / n, index % n)).collect();
        let ridge = RIDGE * (0..n).map(|i| a(i, i)).sum::<f64>() / n as f64;
        let wanted: Vec<f64> = (0..n).map(|i| i as f64 - 2.0).collect();
        let mut x: Vec<f64> = (0..n).map(|i| dot(&square[i * n..(i + 1) * n], &wanted) + ridge * wanted[i]).collect();
        let factor = cholesky(square, n);
        forwards(&factor, &mut x);
        backwards(&factor, &mut x);
        for (found, wanted) in x.iter().zip(&wanted) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
    }

    #[test]
    fn nothing_varies_is_no_division_by_zero() {
        let factor = cholesky(vec![0.0; 9], 3);
        let mut x = vec![1.0, 2.0, 3.0];
        forwards(&factor, &mut x);
        assert_eq!(x, [1.0, 2.0, 3.0]);
    }

    #[test]
    fn columns_become_orthonormal_and_dependent_ones_zero() {
        let (rows, columns) = (9, 4);
        let mut random = random_stream(4, "test.columns");
        let mut values: Vec<f64> = (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        for row in values.chunks_exact_mut(columns) {
            row[2] = 2.0 * row[0] - row[1];
        }
        let first = values.iter().step_by(columns).copied().collect::<Vec<_>>();
        orthonormalise(&mut values, columns);
        let column = |index: usize| values.iter().skip(index).step_by(columns).copied().collect::<Vec<f64>>();
        for i in 0..columns {
            for j in 0..columns {
                let expected = f64::from(u8::from(i == j && i != 2));
                assert!((dot(&column(i), &column(j)) - expected).abs() < 1e-12, "{i} {j}");
            }
        }
        assert!((dot(&column(0), &first) - norm(&first)).abs() < 1e-12);
    }
}
