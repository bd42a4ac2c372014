//! Short keys whose distances are never above those of the descriptors, so that most prototypes are ruled out cheaply.
//!
//! With orthonormal directions `R` the key of a descriptor `x` (relative to the mean `m`) is `[R'(x - m), |rest|]`, where `rest`
//! is what `R` leaves of `x - m`. The triangle inequality gives `|key(a) - key(b)| <= |a - b|` for any `R`; the leading
//! principal directions make the left side large, as patch descriptors vary in few directions (the bound behind
//! VA-file and PCA filters: Weber, Schek and Blott, VLDB 1998). A prototype whose key is farther than the best direct
//! distance cannot be the nearest, and is never looked at. The answer is that of comparing all direct distances.
//!
//! Rounding: all inequalities below hold for the computed values. `u = 2^-24`; a sum of `n` products has a relative
//! error of at most `n u` in terms of absolute values (Higham, Accuracy and Stability, section 3.1).

use masf_core::vectorised;
use rayon::prelude::*;

use crate::lanes::{squared_distance, squared_norm};
use crate::pca::{leading_directions, mean, spread};
use crate::{LinearMap, Result};

/// Unit roundoff of `f32`.
const U: f64 = f32::EPSILON as f64 / 2.0;
/// Rows that directions are learned from: they need not be the best, and loading a model waits for them.
const DIRECTION_ROWS: usize = 512;
/// Numbers of directions that are tried.
const HEADS: [usize; 4] = [32, 64, 128, 192];
/// What a direct distance costs against the same work in the matrix product, roughly: each fetches a prototype from far memory.
const DIRECT_COST: f64 = 25.0;
/// Prototypes that stand for queries when the directions are chosen.
const PROBES: usize = 32;
/// The squared distance of a patch to its prototype, in terms of that of a prototype to the next one (measured: 1.13 at the median,
/// good test images of magnetic_tile against 3000 prototypes, ResNet-50 v2).
const CLOSER: f32 = 1.13;
/// Below so many prototypes or dimensions the plain product is as fast.
const LEAST_COUNT: usize = 512;
const LEAST_DIMENSIONS: usize = 64;
/// The rest's norm counts as at least this share of the root mean square: its rounding error stays bounded.
const LEAST_REST: f64 = 0.25;
/// Dimensions that one product sums; their sums are added, which keeps the rounding error small.
const DEPTH: usize = 128;
/// Rows whose keys are computed at once.
const ROWS_PER_BLOCK: usize = 512;

/// How keys are made.
#[derive(Debug, Clone)]
pub(crate) struct Sieve {
    mean: Vec<f32>,
    /// The least value of a key's last entry.
    floor: f64,
    head: Option<Head>,
}

#[derive(Debug, Clone)]
struct Head {
    /// Maps of [`DEPTH`] dimensions each.
    directions: Vec<LinearMap>,
    /// Bounds the error of a projection, relative to the norm of what is projected.
    error: f64,
}

/// Keys of some rows.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// `[n, key dimensions]`.
    pub(crate) values: Vec<f32>,
    /// How far a computed key may be from the true one.
    pub(crate) errors: Vec<f64>,
    centred: Vec<f32>,
    projected: Vec<f32>,
    part: Vec<f32>,
}

impl Head {
    fn width(&self) -> usize {
        self.directions.first().map_or(0, LinearMap::output)
    }

    /// Projects rows.
    fn project(&self, rows: &[f32], dimensions: usize, part: &mut Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        out.resize(rows.len() / dimensions * self.width(), 0.0);
        part.resize(out.len(), 0.0);
        for (slice, directions) in self.directions.iter().enumerate() {
            directions.apply_to_columns(rows, dimensions, slice * DEPTH, part)?;
            for (sum, part) in out.iter_mut().zip(part.iter()) {
                *sum += part;
            }
        }
        Ok(())
    }
}

impl Sieve {
    /// Keys that are the centred descriptors themselves.
    pub(crate) fn plain(rows: &[f32], dimensions: usize) -> Self {
        let mean = mean(rows, dimensions);
        let floor = LEAST_REST * spread(rows, &mean);
        Self { mean, floor, head: None }
    }

    /// The same without directions.
    pub(crate) fn plain_of(&self) -> Self {
        Self { head: None, ..self.clone() }
    }

    /// The keys that promise the cheapest exact search among `rows`.
    ///
    /// The choice changes the speed alone.
    pub(crate) fn choose(rows: &[f32], dimensions: usize) -> Result<Self> {
        let count = rows.len() / dimensions;
        let plain = Self::plain(rows, dimensions);
        if count < LEAST_COUNT || dimensions < LEAST_DIMENSIONS {
            return Ok(plain);
        }
        let most = HEADS.into_iter().filter(|head| 2 * head <= dimensions).max().unwrap_or(HEADS[0]);
        let directions = leading_directions(rows, &plain.mean, plain.floor / LEAST_REST, most, DIRECTION_ROWS)?;
        let widest = plain.with_directions(&directions, most)?;
        let (mut keys, mut values) = (Keys::default(), Vec::with_capacity(count * (most + 1)));
        for rows in rows.chunks(ROWS_PER_BLOCK * dimensions) {
            widest.keys(rows, &mut keys)?;
            values.extend_from_slice(&keys.values);
        }
        let survivors = widest.survivors(rows, &values);
        let cost = |head: usize, survivors: f64| {
            (count * (head + 1) + dimensions * head) as f64 + DIRECT_COST * survivors * dimensions as f64
        };
        let best = HEADS.into_iter().zip(survivors).filter(|(head, _)| *head <= most);
        let best = best.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1)));
        match best {
            Some((head, survivors)) if cost(head, survivors) < (count * dimensions) as f64 => {
                let rows = directions.chunks_exact(most);
                plain.with_directions(&rows.flat_map(|row| &row[..head]).copied().collect::<Vec<_>>(), head)
            }
            _ => Ok(plain),
        }
    }

    /// With orthonormal directions `[dimensions, head]`.
    fn with_directions(&self, matrix: &[f32], head: usize) -> Result<Self> {
        // Sums of `DEPTH` products, their sum, and the directions' own rounding.
        let sums = DEPTH + self.mean.len().div_ceil(DEPTH) + 8;
        let error = (head as f64).sqrt() * sums as f64 * U + 2.0 * defect(matrix, head);
        let slices = matrix.chunks(DEPTH * head);
        let directions = slices.map(|slice| LinearMap::new(slice.to_vec(), slice.len() / head, head));
        let head = Some(Head { directions: directions.collect::<Result<_>>()?, error });
        Ok(Self { mean: self.mean.clone(), floor: self.floor, head })
    }

    /// The length of a key.
    pub(crate) fn dimensions(&self) -> usize {
        self.head.as_ref().map_or(self.mean.len(), |head| head.width() + 1)
    }

    /// Whether keys are shorter than descriptors.
    pub(crate) fn is_short(&self) -> bool {
        self.head.is_some()
    }

    /// The keys of rows, on this thread.
    pub(crate) fn keys(&self, rows: &[f32], keys: &mut Keys) -> Result<()> {
        let dimensions = self.mean.len();
        keys.errors.clear();
        keys.centred.clear();
        for row in rows.chunks_exact(dimensions) {
            keys.centred.extend(row.iter().zip(&self.mean).map(|(value, mean)| value - mean));
        }
        let norm = |row: &[f32]| {
            f64::from(vectorised(
                #[inline(always)]
                || squared_norm(row),
            ))
        };
        let Some(head) = &self.head else {
            std::mem::swap(&mut keys.values, &mut keys.centred);
            let norms = keys.values.chunks_exact(dimensions).map(|row| norm(row).sqrt());
            keys.errors.extend(norms.map(|norm| 2.0 * U * norm));
            return Ok(());
        };
        let width = head.width();
        head.project(&keys.centred, dimensions, &mut keys.part, &mut keys.projected)?;
        keys.values.clear();
        let lanes = (dimensions as f64 / 32.0 + 16.0) * U;
        for (row, projected) in keys.centred.chunks_exact(dimensions).zip(keys.projected.chunks_exact(width)) {
            let whole = norm(row);
            let rest = (whole - norm(projected)).max(0.0).sqrt().max(self.floor);
            keys.values.extend_from_slice(projected);
            keys.values.push(rest as f32);
            // |max(sqrt(a), f) - max(sqrt(b), f)| <= |a - b| / 2 f; the squares differ by 2 |projection| error and by what
            // their sums in lanes lose.
            let error = head.error + (1.1 * head.error + lanes) * whole.sqrt() / self.floor.max(f64::MIN_POSITIVE);
            keys.errors.push((error + 4.0 * U) * whole.sqrt());
        }
        Ok(())
    }

    /// For each of [`HEADS`], how many rows keys of that length leave to look at, on average over some rows as queries.
    fn survivors(&self, rows: &[f32], keys: &[f32]) -> [f64; HEADS.len()] {
        let (dimensions, width) = (self.mean.len(), self.dimensions());
        let count = rows.len() / dimensions;
        let probes = PROBES.min(count);
        let of_probe = |probe: usize| {
            let own = probe * count / probes;
            let row = |index: usize| &rows[index * dimensions..(index + 1) * dimensions];
            let key = |index: usize| &keys[index * width..(index + 1) * width];
            let others = (0..count).filter(|index| *index != own);
            let nearest = others
                .clone()
                .map(|index| {
                    vectorised(
                        #[inline(always)]
                        || squared_distance(row(own), row(index)),
                    )
                })
                .fold(f32::INFINITY, f32::min);
            let limit = CLOSER * nearest;
            let mut left = [0f64; HEADS.len()];
            for index in others {
                let mut squared = 0.0;
                let (mut a_rest, mut b_rest) = (squared_norm(key(own)), squared_norm(key(index)));
                let mut start = 0;
                for (left, head) in left.iter_mut().zip(HEADS) {
                    if head >= width {
                        break;
                    }
                    let (a, b) = (&key(own)[start..head], &key(index)[start..head]);
                    squared += vectorised(
                        #[inline(always)]
                        || squared_distance(a, b),
                    );
                    (a_rest, b_rest) = vectorised(
                        #[inline(always)]
                        || (a_rest - squared_norm(a), b_rest - squared_norm(b)),
                    );
                    start = head;
                    let apart = a_rest.max(0.0).sqrt() - b_rest.max(0.0).sqrt();
                    if squared + apart * apart <= limit {
                        *left += 1.0;
                    }
                }
            }
            left
        };
        let sum = |a: [f64; HEADS.len()], b: [f64; HEADS.len()]| std::array::from_fn(|index| a[index] + b[index]);
        let all: Vec<_> = (0..probes).into_par_iter().map(of_probe).collect();
        all.into_iter().fold([0.0; HEADS.len()], sum).map(|total| total / probes as f64)
    }
}

/// How far directions `[dimensions, head]` are from orthonormal: the Frobenius norm of `R'R - 1`, where directions of
/// length zero (there is no further variance) may stay.
fn defect(matrix: &[f32], head: usize) -> f64 {
    let mut gram = vec![0f64; head * head];
    for row in matrix.chunks_exact(head) {
        for (gram, a) in gram.chunks_exact_mut(head).zip(row) {
            for (sum, b) in gram.iter_mut().zip(row) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
    }
    let wanted = |index: usize, value: f64| if index.is_multiple_of(head + 1) && value != 0.0 { 1.0 } else { 0.0 };
    gram.iter().enumerate().map(|(index, value)| (value - wanted(index, *value)).powi(2)).sum::<f64>().sqrt()
}
