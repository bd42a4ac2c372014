//! Greedy k-centre selection (Gonzalez 1985): each new centre is the point farthest from those chosen before.
//!
//! The covering radius is at most twice the best possible one. The obvious algorithm updates every point's distance for
//! every new centre. Here distances are updated lazily: the distance of a point to its nearest centre only shrinks, so a
//! value computed earlier is an upper bound, and a point whose old value is below the current maximum need not be looked
//! at. A small active set is kept up to date; when its maximum falls below the bounds of the others, the points with
//! the largest bounds catch up with all centres they missed, in one cache-friendly go. The sequence chosen is that of the
//! obvious algorithm, ties included (lowest index first), whatever the number of threads.

use masf_core::{Progress, vectorised};
use rayon::prelude::*;

use crate::lanes::{squared_distance_below, squared_norm};
use crate::{MemoryError, Result};

/// The centres chosen from a set of points.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Coreset {
    /// Indices of the centres, in the order of choice.
    pub indices: Vec<usize>,
    /// The covering radius: the largest distance of a point to its nearest centre.
    pub radius: f32,
}

/// Points that the active set may have after a refill (more only where bounds tie).
const ACTIVE: usize = 2048;
/// Points that one task brings up to date.
const POINTS_PER_TASK: usize = 32;
/// Centres that are applied to the points of a task before the next ones are: 128 dimensions of them fit the L1 cache.
const CENTRES_PER_BLOCK: usize = 64;
/// Largest squared norm of a descriptor: differences of two have finite squares.
pub(crate) const MOST_SQUARED_NORM: f32 = 1e36;

/// Chooses up to `count` of the points `[n, dimensions]`, beginning with the point `first`.
///
/// Fewer are chosen when every point coincides with a centre: duplicates are never chosen. Steps and cancellation go
/// through `progress`, whose stage the caller has started.
///
/// # Errors
/// [`MemoryError`] for no points, a `first` or `count` out of range or points that are not finite;
/// [`masf_core::Error::Cancelled`].
pub fn greedy_k_centre(
    points: &[f32],
    dimensions: usize,
    count: usize,
    first: usize,
    progress: &dyn Progress,
) -> masf_core::Result<Coreset> {
    let total = check(points, dimensions, count, first)?;
    let mut search = LazyGreedy::new(points, dimensions, vec![f32::INFINITY; total], count.min(total));
    search.add(first);
    let mut farthest = search.farthest();
    while search.centres.len() < count && farthest.0 > 0.0 {
        search.add(farthest.1);
        farthest = search.farthest();
        if search.centres.len().is_multiple_of(16) {
            progress.check()?;
            progress.step(16);
        }
    }
    Ok(Coreset { indices: search.centres, radius: farthest.0.sqrt() })
}

fn check(points: &[f32], dimensions: usize, count: usize, first: usize) -> Result<usize> {
    if dimensions == 0 || !points.len().is_multiple_of(dimensions) {
        return Err(MemoryError::Dimensions { what: "points", found: points.len(), dimensions });
    }
    let total = points.len() / dimensions;
    if total == 0 || total > u32::MAX as usize {
        return Err(MemoryError::parameter("number of points", total, "1 to 4294967295"));
    }
    if first >= total {
        return Err(MemoryError::parameter("first centre", first, format!("less than the {total} points")));
    }
    if count == 0 {
        return Err(MemoryError::parameter("number of centres", count, "at least 1"));
    }
    check_magnitude("point", points, dimensions)?;
    Ok(total)
}

/// Refuses rows that are not finite or too large.
pub(crate) fn check_magnitude(what: &'static str, rows: &[f32], dimensions: usize) -> Result<()> {
    const ROWS: usize = 256;
    let chunks = rows.par_chunks(ROWS * dimensions).enumerate();
    let found = chunks.find_map_first(|(chunk, rows)| check_rows(what, rows, dimensions, chunk * ROWS..).err());
    found.map_or(Ok(()), Err)
}

/// [`check_magnitude`] of rows with other indices, on this thread.
pub(crate) fn check_rows(
    what: &'static str,
    rows: &[f32],
    dimensions: usize,
    indices: impl IntoIterator<Item = usize>,
) -> Result<()> {
    for (row, index) in rows.chunks_exact(dimensions).zip(indices) {
        let squared_norm = vectorised(
            #[inline(always)]
            || squared_norm(row),
        );
        // NaN is outside of every range.
        if !(0.0..=MOST_SQUARED_NORM).contains(&squared_norm) {
            return Err(MemoryError::Magnitude { what, index, squared_norm });
        }
    }
    Ok(())
}

pub(crate) struct LazyGreedy<'a> {
    points: &'a [f32],
    dimensions: usize,
    /// For each point, the squared distance to the nearest of the first `seen` centres.
    bounds: Vec<f32>,
    seen: Vec<u32>,
    /// Points that have seen all centres but the newest, ascending.
    active: Vec<u32>,
    /// All points outside `active` have a bound below this.
    threshold: f32,
    centres: Vec<usize>,
    /// The coordinates of the centres, one after another.
    rows: Vec<f32>,
    /// Reused by refills.
    scratch: Vec<f32>,
}

impl<'a> LazyGreedy<'a> {
    fn new(points: &'a [f32], dimensions: usize, bounds: Vec<f32>, count: usize) -> Self {
        let total = bounds.len();
        Self {
            points,
            dimensions,
            bounds,
            seen: vec![0; total],
            active: Vec::new(),
            threshold: f32::INFINITY,
            centres: Vec::with_capacity(count),
            rows: Vec::with_capacity(count * dimensions),
            scratch: Vec::with_capacity(total),
        }
    }

    /// Goes on after centres that were chosen before: `bounds` has the squared distance of every point to the nearest of them, infinity where there
    /// are none, and less than zero for points that are not to be chosen.
    pub(crate) fn going_on(points: &'a [f32], dimensions: usize, bounds: Vec<f32>) -> Self {
        Self::new(points, dimensions, bounds, 0)
    }

    /// Up to `count` further centres, in the order of choice.
    pub(crate) fn choose(mut self, count: usize) -> Vec<usize> {
        if count > 0
            && let Some(first) = self.bounds.iter().position(|bound| *bound == f32::INFINITY)
        {
            self.add(first);
        }
        while self.centres.len() < count {
            let (distance, index) = self.farthest();
            if distance <= 0.0 {
                break;
            }
            self.add(index);
        }
        self.centres
    }

    fn add(&mut self, index: usize) {
        self.centres.push(index);
        self.rows.extend_from_slice(&self.points[index * self.dimensions..(index + 1) * self.dimensions]);
    }

    /// The squared distance and index of the point farthest from the centres; the lowest index where several are.
    fn farthest(&mut self) -> (f32, usize) {
        let active = std::mem::take(&mut self.active);
        self.catch_up(active);
        loop {
            let mut best = (-1.0, 0);
            for &index in &self.active {
                let bound = self.bounds[index as usize];
                if bound > best.0 {
                    best = (bound, index as usize);
                }
            }
            if best.0 >= self.threshold {
                return best;
            }
            self.refill();
        }
    }

    /// Lowers the threshold to the bound of the `ACTIVE`-th point, and makes the points above it active.
    fn refill(&mut self) {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.bounds);
        let rank = ACTIVE.min(self.scratch.len()) - 1;
        let (_, threshold, _) = self.scratch.select_nth_unstable_by(rank, |a, b| b.total_cmp(a));
        self.threshold = *threshold;
        let candidates = self.bounds.iter().zip(0u32..).filter(|(bound, _)| **bound >= self.threshold);
        let candidates = candidates.map(|(_, index)| index).collect();
        self.catch_up(candidates);
        if self.threshold == f32::INFINITY {
            // The first round: now all bounds are known.
            self.refill();
        }
    }

    /// Shows all centres to some points; those that stay at the threshold or above it become the active set.
    fn catch_up(&mut self, mut indices: Vec<u32>) {
        let tasks = indices.par_chunks(POINTS_PER_TASK).map(|indices| {
            vectorised(
                #[inline(always)]
                || self.updated(indices),
            )
        });
        let updated: Vec<[f32; POINTS_PER_TASK]> = if self.missed(&indices) * self.dimensions > 1 << 17 {
            tasks.collect()
        } else {
            // Too little for the threads to pay their way.
            indices
                .chunks(POINTS_PER_TASK)
                .map(|indices| {
                    vectorised(
                        #[inline(always)]
                        || self.updated(indices),
                    )
                })
                .collect()
        };
        let centres = self.centres.len() as u32;
        for (indices, updated) in indices.chunks(POINTS_PER_TASK).zip(updated) {
            for (&index, bound) in indices.iter().zip(updated) {
                self.bounds[index as usize] = bound;
                self.seen[index as usize] = centres;
            }
        }
        indices.retain(|&index| self.bounds[index as usize] >= self.threshold);
        self.active = indices;
    }

    /// How many distances it takes to bring points up to date.
    fn missed(&self, indices: &[u32]) -> usize {
        indices.iter().map(|&index| self.centres.len() - self.seen[index as usize] as usize).sum()
    }

    /// The bounds of some points after all centres.
    #[inline(always)]
    fn updated(&self, indices: &[u32]) -> [f32; POINTS_PER_TASK] {
        let mut bounds = [0f32; POINTS_PER_TASK];
        for (bound, &index) in bounds.iter_mut().zip(indices) {
            *bound = self.bounds[index as usize];
        }
        let first = indices.iter().map(|&index| self.seen[index as usize] as usize).min().unwrap_or(0);
        let mut start = first;
        while start < self.centres.len() {
            let end = (start + CENTRES_PER_BLOCK).min(self.centres.len());
            for (bound, &index) in bounds.iter_mut().zip(indices) {
                let index = index as usize;
                let own = start.max(self.seen[index] as usize).min(end);
                let point = &self.points[index * self.dimensions..(index + 1) * self.dimensions];
                let centres = &self.rows[own * self.dimensions..end * self.dimensions];
                for centre in centres.chunks_exact(self.dimensions) {
                    *bound = bound.min(squared_distance_below(point, centre, *bound));
                }
            }
            start = end;
        }
        bounds
    }
}

#[cfg(test)]
mod tests;
