//! Cells: seeded k-means (Lloyd 1982) with random starts.
//!
//! Every step searches exactly and sums in `f64` in the order of the points, so the result does not depend on threads.

use masf_core::random_stream;
use rand::seq::index::sample;

use crate::{ExactSearch, PrototypeSearch, Result};

/// Points that centres are learned from, for each centre; more change little.
const POINTS_PER_CELL: usize = 40;
/// Rounds of assignment and averaging.
const ROUNDS: usize = 8;

/// The centres of at most `cells` cells of checked points `[n, dimensions]`.
pub(crate) fn centres_of(points: &[f32], dimensions: usize, cells: usize, seed: u64) -> Result<ExactSearch> {
    let count = points.len() / dimensions;
    let cells = cells.clamp(1, count);
    let mut random = random_stream(seed, "memory.cells");
    let row = |index: usize| &points[index * dimensions..(index + 1) * dimensions];
    // The learning points are in random order, so the first ones are a random start.
    let chosen = sample(&mut random, count, count.min(cells.saturating_mul(POINTS_PER_CELL))).into_vec();
    let learned: Vec<f32> = chosen.iter().flat_map(|index| row(*index)).copied().collect();
    k_means(&learned, dimensions, learned[..cells * dimensions].to_vec(), ROUNDS)
}

/// Lloyd's rounds over points `[n, dimensions]` from the centres `[cells, dimensions]`, at most `rounds`; a cell without points keeps its
/// centre. The centres that come out, as a search among them.
///
/// # Errors
/// As [`ExactSearch::new`] for the centres and [`PrototypeSearch::nearest`] for the points.
pub fn k_means(points: &[f32], dimensions: usize, centres: Vec<f32>, rounds: usize) -> Result<ExactSearch> {
    let mut centres = ExactSearch::new(centres, dimensions)?;
    for _ in 0..rounds {
        let nearest = centres.nearest(points, 1)?;
        let mut moved = centres.prototypes().to_vec();
        let mut sums = vec![0f64; moved.len()];
        let mut sizes = vec![0usize; centres.count()];
        for (point, cell) in points.chunks_exact(dimensions).zip(&nearest.indices) {
            let cell = *cell as usize;
            sizes[cell] += 1;
            for (sum, value) in sums[cell * dimensions..][..dimensions].iter_mut().zip(point) {
                *sum += f64::from(*value);
            }
        }
        for ((centre, sum), size) in moved.chunks_exact_mut(dimensions).zip(sums.chunks_exact(dimensions)).zip(&sizes) {
            if *size > 0 {
                for (value, sum) in centre.iter_mut().zip(sum) {
                    *value = (sum / *size as f64) as f32;
                }
            }
        }
        if moved == centres.prototypes() {
            break;
        }
        centres = ExactSearch::new(moved, dimensions)?;
    }
    Ok(centres)
}

/// The points of every cell, ascending: every point is a member of the cell of its nearest centre, and a cell may be empty.
pub(crate) fn members(centres: &ExactSearch, points: &[f32]) -> Result<Vec<Vec<u32>>> {
    let mut members = vec![Vec::new(); centres.count()];
    for (index, cell) in centres.nearest(points, 1)?.indices.into_iter().enumerate() {
        members[cell as usize].push(index as u32);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn separate_clumps_become_cells_of_their_own() -> Result<()> {
        let mut random = random_stream(0, "test");
        let points: Vec<f32> =
            (0..900).flat_map(|index| [(index % 3) as f32 * 100.0, random.random_range(-1.0..1.0)]).collect();
        let found = members(&centres_of(&points, 2, 30, 1)?, &points)?;
        assert_eq!(found.iter().map(Vec::len).sum::<usize>(), 900);
        for members in &found {
            assert!(members.windows(2).all(|pair| pair[0] < pair[1] && pair[0] % 3 == pair[1] % 3));
        }
        Ok(())
    }

    #[test]
    fn equal_points_leave_cells_empty() -> Result<()> {
        let found = members(&centres_of(&[2.5; 60], 2, 7, 1)?, &[2.5; 60])?;
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [30, 0, 0, 0, 0, 0, 0]);
        assert_eq!(members(&centres_of(&[1.0, 2.0], 2, 9, 1)?, &[1.0, 2.0])?, [[0]]);
        Ok(())
    }
}
