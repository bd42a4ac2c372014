//! Scaling of descriptor channels, so that no channel rules the distance by its unit alone.

use masf_core::{LevelSpec, vectorised};
use rayon::prelude::*;

/// How the channels of a descriptor are scaled before distances are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standardisation {
    /// Features as the backbone gives them.
    None,
    /// Mean 0 and standard deviation 1 for every channel; a (nearly) constant channel is divided by 1 % of its level's
    /// root mean square deviation instead of its own.
    Channel,
    /// Mean 0 for every channel and one divisor for all channels of a level, so that levels weigh alike but channels keep
    /// their relative spread. The default, by the measurement in `docs/decisions.md`.
    #[default]
    Level,
}

/// Least standard deviation of a channel, as a share of its level's root mean square deviation.
const LEAST_DEVIATION: f64 = 0.01;
/// Rows that one task sums; fixed, so that sums do not depend on the number of threads.
const ROWS_PER_TASK: usize = 1024;

/// Mean and factor of every channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standardiser {
    pub(crate) mean: Vec<f32>,
    pub(crate) factor: Vec<f32>,
}

impl Standardiser {
    /// Learns from descriptors, row after row; `None` where features stay as they are.
    pub(crate) fn learn(kind: Standardisation, rows: &[f32], levels: &[LevelSpec]) -> Option<Self> {
        let dimensions: usize = levels.iter().map(|level| level.channels).sum();
        if kind == Standardisation::None || dimensions == 0 || rows.is_empty() {
            return None;
        }
        let count = (rows.len() / dimensions) as f64;
        let mean: Vec<f64> = column_sums(rows, dimensions, |_, value| value).iter().map(|sum| sum / count).collect();
        let squares = column_sums(rows, dimensions, |column, value| (value - mean[column]).powi(2));
        let variance: Vec<f64> = squares.iter().map(|sum| sum / count).collect();
        let mut factor = Vec::with_capacity(dimensions);
        let mut rest = variance.as_slice();
        for level in levels {
            let (own, tail) = rest.split_at(level.channels);
            rest = tail;
            let level_deviation = (own.iter().sum::<f64>() / level.channels.max(1) as f64).sqrt();
            for variance in own {
                let deviation = match kind {
                    Standardisation::Channel => variance.sqrt().max(LEAST_DEVIATION * level_deviation),
                    _ => level_deviation,
                };
                let inverse = (1.0 / deviation) as f32;
                // A level without any spread: its unit is all there is.
                factor.push(if inverse.is_finite() && inverse > 0.0 { inverse } else { 1.0 });
            }
        }
        Some(Self { mean: mean.into_iter().map(|mean| mean as f32).collect(), factor })
    }

    /// Applies mean and factor to descriptors in place.
    pub(crate) fn apply(&self, rows: &mut [f32]) {
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(self.mean.len().max(1)) {
                    for ((value, mean), factor) in row.iter_mut().zip(&self.mean).zip(&self.factor) {
                        *value = (*value - mean) * factor;
                    }
                }
            },
        );
    }
}

impl Standardiser {
    /// Undoes [`apply`](Self::apply), up to rounding.
    pub(crate) fn undo(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len().max(1)) {
            for ((value, mean), factor) in row.iter_mut().zip(&self.mean).zip(&self.factor) {
                *value = *value / factor + mean;
            }
        }
    }
}

/// The sum over rows of `term(column, value)` for every column.
fn column_sums(rows: &[f32], dimensions: usize, term: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
    let partial: Vec<Vec<f64>> = rows
        .par_chunks(dimensions * ROWS_PER_TASK)
        .map(|rows| {
            let mut sums = vec![0.0; dimensions];
            for row in rows.chunks_exact(dimensions) {
                for (column, (sum, value)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += term(column, f64::from(*value));
                }
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; dimensions];
    for sums in partial {
        for (total, sum) in total.iter_mut().zip(sums) {
            *total += sum;
        }
    }
    total
}
