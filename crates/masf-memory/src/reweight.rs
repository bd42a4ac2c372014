//! PatchCore's image score: the largest patch distance, weighed by how well its neighbourhood is populated.
//!
//! Roth et al., CVPR 2022, equation 7: with `q` the patch of the largest distance, `p` its nearest prototype and `N` the `b`
//! prototypes nearest to `p` (itself among them), the score is `(1 - exp(|q - p|) / sum over n in N of exp(|q - n|)) |q - p|`.
//! The exponentials are taken relative to the largest, so none overflows.

use crate::lanes::squared_distance;
use crate::search::prototype;
use crate::{PrototypeSearch, Result};

/// `measured` entries of a row count, from the first on. The score of a query whose nearest prototype is `nearest`, at `distance`; the plain distance in a bank of one prototype.
pub(crate) fn weighed(
    search: &dyn PrototypeSearch,
    measured: usize,
    query: &[f32],
    nearest: u32,
    distance: f32,
    neighbours: usize,
) -> Result<f32> {
    let k = neighbours.min(search.count());
    if k < 2 {
        return Ok(distance);
    }
    let around = search.nearest(prototype(search, nearest), k)?;
    let distances: Vec<f64> = around
        .indices
        .iter()
        .map(|index| f64::from(squared_distance(&query[..measured], &prototype(search, *index)[..measured]).sqrt()))
        .collect();
    let distance = f64::from(distance);
    let largest = distances.iter().copied().fold(distance, f64::max);
    let sum: f64 = distances.iter().map(|other| (other - largest).exp()).sum();
    Ok(((1.0 - (distance - largest).exp() / sum).max(0.0) * distance) as f32)
}
