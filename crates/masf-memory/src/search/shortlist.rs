//! A shortlist by a few principal directions, ranked by direct distances.
//!
//! With orthonormal directions `R` and the mean `m` of the prototypes, `|q - p|^2 = |R'(q - p)|^2 + |a - b|^2`, where `a` and `b` are what
//! `R` leaves of `q - m` and `p - m`. These rests lie in many directions of little variance each and are nearly orthogonal to
//! each other, so `|a|^2 + |b|^2` stands for the last term: what a defect has outside the leading directions still counts, which a
//! reduction to principal components would drop. The estimate is one short matrix product; the few prototypes with the
//! least are compared directly, so that every distance that comes out is the true distance to a prototype, at worst not the nearest.
//! Of queries that are said to be alike, the mean is compared with all prototypes, and each with those that come out of that.

use std::cmp::Ordering;
use std::ops::Range;

use masf_core::vectorised;
use rayon::prelude::*;

use super::scan::smallest;
use super::{check_groups, check_prototypes, check_queries, queries_per_task};
use crate::lanes::{squared_distance, squared_norm};
use crate::panels::{Panels, Tiles, WIDTH};
use crate::pca::{leading_directions, mean, spread};
use crate::{ExactSearch, LinearMap, MemoryError, Neighbours, PrototypeSearch, Result};

/// Queries of a task: prototypes that several of them are compared with are fetched once.
const QUERIES_PER_TASK: usize = 256;
/// Rows that directions are learned from.
const DIRECTION_ROWS: usize = 2048;
/// Rows whose keys are computed at once while packing.
const ROWS_PER_BLOCK: usize = 512;
/// Prototypes that like queries choose from, for each that one of them is compared with.
const SHARED: usize = 4;
/// An estimate that lies by this share of the squared distance above the least is not worth a comparison.
const CLOSE: f32 = 0.15;

/// Search among the prototypes that a few principal directions find promising.
///
/// The answer for a query depends neither on the batch nor on the threads; on processors with other vector units the shortlist may differ
/// where estimates are equal up to rounding. Memory: the prototypes, and `2 directions` values for each.
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
    /// What the prototypes have along the directions, `[prototypes, directions]`, and the squared norms of what they have besides.
    rows: Vec<f32>,
    rests: Vec<f32>,
    /// The same packed, with the squared norms of the centred prototypes.
    panels: Panels,
}

/// Estimates or squared distances and their prototypes, least first.
type Shortlist = Vec<(f32, u32)>;

/// What a thread needs for comparing keys with all prototypes.
#[derive(Default)]
struct Products {
    tiles: Tiles,
    out: Vec<f32>,
    /// What estimates must be below to enter a shortlist.
    limits: Vec<f32>,
}

/// What a thread needs for searching.
#[derive(Default)]
struct Scratch {
    keys: Vec<f32>,
    /// The mean keys of like queries.
    means: Vec<f32>,
    products: Products,
    /// What like queries choose from.
    shared: Vec<Shortlist>,
    /// Of every query.
    shortlists: Vec<Shortlist>,
    /// The `k`-th estimate of every query.
    least: Vec<f32>,
    /// Prototype, query and place in its shortlist of every comparison.
    pairs: Vec<(u32, u32, u32)>,
}

impl Scratch {
    /// Puts squared distances in the place of estimates, and leaves out what is too far to be among the `k` nearest.
    fn measure_close(&mut self, queries: &[f32], rows: &[f32], dimensions: usize, k: usize) {
        self.least.clear();
        self.least.extend(self.shortlists.iter().map(|shortlist| shortlist[k - 1].0));
        self.measure(0..k, queries, rows, dimensions);
        for (shortlist, least) in self.shortlists.iter_mut().zip(&self.least) {
            let farthest = shortlist[..k].iter().fold(0.0, |most: f32, entry| most.max(entry.0));
            let close = shortlist[k..].partition_point(|entry| entry.0 <= least + CLOSE * farthest);
            shortlist.truncate(k + close);
        }
        self.measure(k..usize::MAX, queries, rows, dimensions);
    }

    /// The `k` nearest of every query, of what was measured.
    fn neighbours(&mut self, k: usize) -> Neighbours {
        let mut found = Neighbours { k, ..Neighbours::default() };
        for shortlist in &mut self.shortlists {
            shortlist.sort_unstable_by(order);
            found.indices.extend(shortlist.iter().take(k).map(|entry| entry.1));
            found.distances.extend(shortlist.iter().take(k).map(|entry| entry.0.sqrt()));
        }
        found
    }

    /// Puts squared distances in the place of estimates, at some places of every shortlist: prototype by prototype, as neighbouring queries share
    /// them and each lies in far memory.
    fn measure(&mut self, places: Range<usize>, queries: &[f32], rows: &[f32], dimensions: usize) {
        self.pairs.clear();
        for (query, shortlist) in (0u32..).zip(&self.shortlists) {
            let places = places.start..places.end.min(shortlist.len());
            self.pairs.extend(places.map(|place| (shortlist[place].1, query, place as u32)));
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
        let panels = Panels::new(count, directions.output());
        let mut keys = Self { panels, directions, origin, rows: Vec::new(), rests: Vec::with_capacity(count) };
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
                keys.rests.push((squared - squared_norm(key)).max(0.0));
            }
            keys.rows.extend_from_slice(&values);
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
        let Scratch { keys, products, shortlists, .. } = scratch;
        self.of(queries, keys)?;
        self.promising(keys, length, products, shortlists);
        Ok(())
    }

    /// The same where queries come in groups of like ones, of these lengths.
    fn shortlist_alike(&self, queries: &[f32], groups: &[usize], length: usize, scratch: &mut Scratch) -> Result<()> {
        let Scratch { keys, means, products, shared, shortlists, .. } = scratch;
        self.of(queries, keys)?;
        let width = self.directions.output();
        means.clear();
        means.resize(groups.len() * width, 0.0);
        let mut rest = keys.chunks_exact(width);
        for (mean, count) in means.chunks_exact_mut(width).zip(groups) {
            for key in rest.by_ref().take(*count) {
                mean.iter_mut().zip(key).for_each(|(mean, value)| *mean += value / *count as f32);
            }
        }
        self.promising(means, length.saturating_mul(SHARED), products, shared);
        shortlists.resize_with(keys.len() / width, Vec::new);
        vectorised(
            #[inline(always)]
            || {
                let mut queries = shortlists.iter_mut().zip(keys.chunks_exact(width));
                for (shared, count) in shared.iter().zip(groups) {
                    for (shortlist, key) in queries.by_ref().take(*count) {
                        shortlist.clear();
                        shortlist.extend(shared.iter().map(|(_, id)| {
                            let index = *id as usize;
                            let other = &self.rows[index * width..(index + 1) * width];
                            (squared_distance(key, other) + self.rests[index], *id)
                        }));
                        keep_least(shortlist, length);
                        shortlist.sort_unstable_by(order);
                    }
                }
            },
        );
        Ok(())
    }

    /// The least estimates for each of some keys, but for the squared norm of what belongs to the key.
    fn promising(&self, keys: &[f32], length: usize, products: &mut Products, shortlists: &mut Vec<Shortlist>) {
        let width = self.directions.output();
        let Products { tiles, out, limits } = products;
        tiles.pack(keys.chunks_exact(width), width);
        shortlists.resize_with(keys.len() / width, Vec::new);
        shortlists.iter_mut().for_each(Vec::clear);
        limits.clear();
        // Less than the infinite estimates of places without a prototype.
        limits.resize(shortlists.len(), f32::MAX);
        // From the last on: a coreset begins with rare patches, which few queries are near to.
        for panel in (0..self.panels.len()).rev() {
            let first = (panel * WIDTH) as u32;
            self.panels.products(panel, tiles, out);
            vectorised(
                #[inline(always)]
                || {
                    let estimates = out.as_chunks::<WIDTH>().0;
                    for ((shortlist, limit), estimates) in shortlists.iter_mut().zip(&mut *limits).zip(estimates) {
                        if smallest(estimates) <= *limit {
                            for (estimate, id) in estimates.iter().zip(first..) {
                                if *estimate <= *limit {
                                    shortlist.push((*estimate, id));
                                }
                            }
                            if shortlist.len() >= 2 * length {
                                *limit = keep_least(shortlist, length);
                            }
                        }
                    }
                },
            );
        }
        for shortlist in shortlists {
            keep_least(shortlist, length);
            shortlist.sort_unstable_by(order);
        }
    }
}

/// Less estimates come first, and lower indices among equals.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Keeps the first `length` entries, in any order; gives what others must be below to be among them.
fn keep_least(shortlist: &mut Shortlist, length: usize) -> f32 {
    if shortlist.len() < length {
        return f32::MAX;
    }
    let (_, last, _) = shortlist.select_nth_unstable_by(length - 1, order);
    let limit = last.0;
    shortlist.truncate(length);
    limit
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
        let queries_per_task = queries_per_task(queries.len() / dimensions, QUERIES_PER_TASK);
        let parts: Vec<Neighbours> = queries
            .par_chunks(queries_per_task * dimensions)
            .map_init(Scratch::default, |scratch, queries| {
                keys.shortlist(queries, self.candidates.max(k), scratch)?;
                scratch.measure(0..usize::MAX, queries, rows, dimensions);
                Ok(scratch.neighbours(k))
            })
            .collect::<Result<_>>()?;
        Ok(Neighbours::join(k, parts))
    }

    fn nearest_alike(&self, queries: &[f32], groups: &[usize], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        check_groups(groups, queries.len() / self.dimensions)?;
        match &self.prototypes {
            Prototypes::Alone(search) => search.nearest(queries, k),
            Prototypes::Keyed(rows, keys) => {
                let mut scratch = Scratch::default();
                keys.shortlist_alike(queries, groups, self.candidates.max(k), &mut scratch)?;
                scratch.measure_close(queries, rows, self.dimensions, k);
                Ok(scratch.neighbours(k))
            }
        }
    }
}
