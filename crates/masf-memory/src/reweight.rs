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
    let mut around = search.nearest(prototype(search, nearest), k)?;
    // A search that is not exact may leave out the very prototype.
    if around.distances.first().is_some_and(|own| *own > 0.0)
        && let Some(last) = around.indices.last_mut()
    {
        *last = nearest;
    }
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

#[cfg(test)]
mod tests {
    use masf_core::random_stream;
    use rand::Rng;

    use super::*;
    use crate::ShortlistSearch;

    #[test]
    fn a_prototype_that_the_search_leaves_out_counts() -> Result<()> {
        const DIMENSIONS: usize = 80;
        let mut random = random_stream(1, "test");
        let mut rows = vec![0f32; 200 * DIMENSIONS];
        // All that the first one has lies outside of the leading directions.
        rows[40] = 3.0;
        for row in rows.chunks_exact_mut(DIMENSIONS).skip(1) {
            row[..8].fill_with(|| random.random_range(-1.0..1.0));
        }
        let mut query = rows[..DIMENSIONS].to_vec();
        query[41] = 0.5;
        let search = ShortlistSearch::new(rows.clone(), DIMENSIONS, 8, 8)?;
        let around = search.nearest(&rows[..DIMENSIONS], 4)?.indices;
        assert!(!around.contains(&0));
        let distance = |index: &u32| {
            let squares = query.iter().zip(prototype(&search, *index)).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let sum: f64 = [0].iter().chain(&around[..3]).map(|index| distance(index).exp()).sum();
        let expected = 0.5 * (1.0 - 0.5f64.exp() / sum);
        let found = weighed(&search, DIMENSIONS, &query, 0, 0.5, 4)?;
        assert!((f64::from(found) - expected).abs() < 1e-6, "{found} instead of {expected}");
        Ok(())
    }
}
