//! A shortlist by a few principal directions, ranked by direct distances.
//!
//! With orthonormal directions `R` and the mean `m` of the prototypes, `|q - p|^2 = |R'(q - p)|^2 + |a - b|^2`, where `a` and `b` are what
//! `R` leaves of `q - m` and `p - m`. These rests lie in many directions of little variance each and are nearly orthogonal to
//! each other, so `|a|^2 + |b|^2` stands for the last term: what a defect has outside the leading directions still counts, which a
//! reduction to principal components would drop. The estimate is one short matrix product; the few prototypes with the
//! least are compared directly, so that every distance that comes out is the true distance to a prototype, at worst not the nearest.

use masf_core::vectorised;
use rayon::prelude::*;

use super::scan::smallest;
use super::{check_prototypes, check_queries, queries_per_task};
use crate::lanes::{squared_distance, squared_norm};
use crate::panels::{Panels, Tiles, WIDTH};
use crate::pca::{leading_directions, mean, spread};
use crate::{ExactSearch, LinearMap, MemoryError, Neighbours, PrototypeSearch, Result};

/// Queries of a task: their keys and descriptors stay in the second-level cache.
const QUERIES_PER_TASK: usize = 126;
/// Rows that directions are learned from.
const DIRECTION_ROWS: usize = 2048;
/// Rows whose keys are computed at once while packing.
const ROWS_PER_BLOCK: usize = 512;

/// Search among the prototypes that a few principal directions find promising.
///
/// The answer for a query depends neither on the batch nor on the threads; on processors with other vector units the shortlist may differ
/// where estimates are equal up to rounding. Memory: the prototypes, and `directions` values for each.
#[derive(Clone)]
pub struct ShortlistSearch {
    prototypes: Prototypes,
    dimensions: usize,
    candidates: usize,
}

/// The prototypes.
#[derive(Clone)]
enum Prototypes {
    /// Too few dimensions or prototypes for a shortlist.
    Alone(ExactSearch),
    Keyed(Vec<f32>, Keys),
}

/// What estimates are made of.
#[derive(Clone)]
struct Keys {
    /// `[dimensions, directions]`.
    directions: LinearMap,
    /// The mean of the prototypes along the directions.
    origin: Vec<f32>,
    panels: Panels,
}

/// What a thread needs for searching.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    tiles: Tiles,
    out: Vec<f32>,
    /// Estimates and prototypes of every query, least first.
    shortlists: Vec<Vec<(f32, u32)>>,
    /// Prototype, query and place in its shortlist of every candidate.
    pairs: Vec<(u32, u32, u32)>,
}

impl Scratch {
    /// Puts squared distances in the place of estimates: prototype by prototype, as neighbouring queries share them and each lies in
    /// far memory.
    fn measure(&mut self, queries: &[f32], rows: &[f32], dimensions: usize) {
        self.pairs.clear();
        for (query, shortlist) in (0u32..).zip(&self.shortlists) {
            self.pairs.extend((0u32..).zip(shortlist).map(|(place, entry)| (entry.1, query, place)));
        }
        self.pairs.sort_unstable();
        let range = |index: u32| index as usize * dimensions..(index as usize + 1) * dimensions;
        vectorised(
            #[inline(always)]
            || {
                for (id, query, place) in &self.pairs {
                    let distance = squared_distance(&queries[range(*query)], &rows[range(*id)]);
                    self.shortlists[*query as usize][*place as usize].0 = distance;
                }
            },
        );
    }
}

impl std::fmt::Debug for ShortlistSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShortlistSearch")
            .field("count", &self.count())
            .field("dimensions", &self.dimensions)
            .field("candidates", &self.candidates)
            .finish()
    }
}

impl ShortlistSearch {
    /// Search among the prototypes `[n, dimensions]` by their first `directions` principal directions, with `candidates` (or `k`, where that
    /// is more) direct distances for each query. With at most twice as many dimensions as directions, where there is little to save, or no
    /// more prototypes than candidates it is [`ExactSearch`].
    ///
    /// # Errors
    /// As [`ExactSearch::new`], and [`MemoryError::Parameter`] for no directions or candidates.
    pub fn new(prototypes: Vec<f32>, dimensions: usize, directions: usize, candidates: usize) -> Result<Self> {
        let count = check_prototypes(&prototypes, dimensions)?;
        for (name, value) in [("directions", directions), ("candidates", candidates)] {
            if value == 0 {
                return Err(MemoryError::parameter(name, 0, "at least 1"));
            }
        }
        let prototypes = match directions.saturating_mul(2) >= dimensions || candidates >= count {
            true => Prototypes::Alone(ExactSearch::new(prototypes, dimensions)?),
            false => {
                let keys = Keys::new(&prototypes, dimensions, directions)?;
                Prototypes::Keyed(prototypes, keys)
            }
        };
        Ok(Self { prototypes, dimensions, candidates })
    }
}

impl Keys {
    fn new(rows: &[f32], dimensions: usize, directions: usize) -> Result<Self> {
        let count = rows.len() / dimensions;
        let mean = mean(rows, dimensions);
        let matrix = leading_directions(rows, &mean, spread(rows, &mean), directions, DIRECTION_ROWS)?;
        let directions = LinearMap::new(matrix, dimensions, directions)?;
        let origin = directions.apply(&mean)?;
        let mut keys = Self { panels: Panels::new(count, directions.output()), directions, origin };
        let (mut values, mut centred) = (Vec::new(), vec![0.0; dimensions]);
        for (block, rows) in rows.chunks(ROWS_PER_BLOCK * dimensions).enumerate() {
            keys.of(rows, &mut values)?;
            let pairs = rows.chunks_exact(dimensions).zip(values.chunks_exact(keys.directions.output()));
            for (index, (row, key)) in pairs.enumerate() {
                let squared = vectorised(
                    #[inline(always)]
                    || {
                        for (centred, (value, mean)) in centred.iter_mut().zip(row.iter().zip(&mean)) {
                            *centred = value - mean;
                        }
                        squared_norm(&centred)
                    },
                );
                keys.panels.set_with_norm(block * ROWS_PER_BLOCK + index, key, squared);
            }
        }
        Ok(keys)
    }

    /// The keys of rows: what they have along the directions, from the mean of the prototypes on.
    fn of(&self, rows: &[f32], keys: &mut Vec<f32>) -> Result<()> {
        let width = self.origin.len();
        keys.resize(rows.len() / self.directions.input() * width, 0.0);
        self.directions.apply_to(rows, keys)?;
        for key in keys.chunks_exact_mut(width) {
            key.iter_mut().zip(&self.origin).for_each(|(value, origin)| *value -= origin);
        }
        Ok(())
    }

    /// The least estimates of every query of a task.
    fn shortlist(&self, queries: &[f32], length: usize, scratch: &mut Scratch) -> Result<()> {
        let Scratch { keys, tiles, out, shortlists, .. } = scratch;
        self.of(queries, keys)?;
        let width = self.directions.output();
        tiles.pack(keys.chunks_exact(width), width);
        shortlists.resize_with(queries.len() / self.directions.input(), Vec::new);
        shortlists.iter_mut().for_each(Vec::clear);
        for panel in 0..self.panels.len() {
            self.panels.products(panel, tiles, out);
            vectorised(
                #[inline(always)]
                || {
                    for (shortlist, estimates) in shortlists.iter_mut().zip(out.as_chunks::<WIDTH>().0) {
                        enter(shortlist, length, estimates, (panel * WIDTH) as u32);
                    }
                },
            );
        }
        Ok(())
    }
}

/// Puts the estimates of a panel, whose first prototype is `first`, into a shortlist; the lowest index comes first among equals.
#[inline(always)]
fn enter(shortlist: &mut Vec<(f32, u32)>, length: usize, estimates: &[f32; WIDTH], first: u32) {
    let worst = |shortlist: &Vec<(f32, u32)>| match shortlist.len() < length {
        true => f32::INFINITY,
        false => shortlist[length - 1].0,
    };
    let mut limit = worst(shortlist);
    if smallest(estimates) >= limit {
        return;
    }
    for (estimate, id) in estimates.iter().zip(first..) {
        if *estimate < limit {
            let place = shortlist.partition_point(|entry| entry.0 <= *estimate);
            shortlist.truncate(length - 1);
            shortlist.insert(place, (*estimate, id));
            limit = worst(shortlist);
        }
    }
}

impl PrototypeSearch for ShortlistSearch {
    fn count(&self) -> usize {
        self.prototypes().len() / self.dimensions
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn prototypes(&self) -> &[f32] {
        match &self.prototypes {
            Prototypes::Alone(search) => search.prototypes(),
            Prototypes::Keyed(rows, _) => rows,
        }
    }

    fn queries_per_task(&self) -> usize {
        QUERIES_PER_TASK
    }

    fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        let (rows, keys) = match &self.prototypes {
            Prototypes::Alone(search) => return search.nearest(queries, k),
            Prototypes::Keyed(rows, keys) => (rows, keys),
        };
        let dimensions = self.dimensions;
        let length = self.candidates.max(k);
        let queries_per_task = queries_per_task(queries.len() / dimensions, QUERIES_PER_TASK);
        let parts: Vec<Neighbours> = queries
            .par_chunks(queries_per_task * dimensions)
            .map_init(Scratch::default, |scratch, queries| {
                keys.shortlist(queries, length, scratch)?;
                scratch.measure(queries, rows, dimensions);
                let mut found = Neighbours { k, ..Neighbours::default() };
                for shortlist in &mut scratch.shortlists {
                    shortlist.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    found.indices.extend(shortlist.iter().take(k).map(|entry| entry.1));
                    found.distances.extend(shortlist.iter().take(k).map(|entry| entry.0.sqrt()));
                }
                Ok(found)
            })
            .collect::<Result<_>>()?;
        Ok(Neighbours::join(k, parts))
    }
}
