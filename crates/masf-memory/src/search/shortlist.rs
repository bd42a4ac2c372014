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
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::scan::smallest;
use super::{check_groups, check_prototypes, check_queries, queries_per_task};
use crate::coreset::check_magnitude;
use crate::lanes::{squared_distance, squared_norm};
use crate::panels::{Panels, TILE, Tiles, WIDTH};
use crate::pca::{leading_directions, mean, spread};
use crate::spare::Spare;
use crate::{ExactSearch, LinearMap, MemoryError, Neighbours, PrototypeSearch, Result};

/// Queries of a task: prototypes that several of them are compared with are fetched once.
const QUERIES_PER_TASK: usize = 256;
/// Rows that directions are learned from.
const DIRECTION_ROWS: usize = 2048;
/// Rows whose keys are computed at once while packing.
const ROWS_PER_BLOCK: usize = 512;
/// Keys whose products are held at once: whole tiles.
const KEYS_AT_ONCE: usize = 11 * TILE;
/// Panels of prototypes whose products with these keys are held at once: 4096 prototypes, 1 MB, which stays in the second-level cache.
const PANELS_AT_ONCE: usize = 64;
/// Estimates of which the least is noted.
const BLOCK: usize = 16;
/// Blocks of a panel.
const BLOCKS: usize = WIDTH / BLOCK;
/// Queries whose rows are asked for at once: they stay in near memory.
const ROWS_AT_ONCE: usize = 64;
/// Prototypes that like queries choose from, for each that one of them is compared with.
const SHARED: usize = 4;
/// An estimate is wrong by twice the product of two rests, of which that of the prototype is known. One that lies by more than this share of its square
/// above another one is hardly ever that of a nearer prototype (`docs/decisions.md`).
const CLOSE: f32 = 0.45;

/// Search among the prototypes that a few principal directions find promising.
///
/// The answer for a query depends neither on the batch nor on the threads; on processors with other vector units the shortlist may differ
/// where estimates are equal up to rounding. Memory: the prototypes, `2 directions` values for each, and buffers of
/// less than 2 MiB (by default) for each of as many searches as ever ran at once.
#[derive(Clone)]
pub struct ShortlistSearch {
    prototypes: Prototypes,
    dimensions: usize,
    candidates: usize,
    scratch: Spare<Scratch>,
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
    /// What the prototypes have along the directions, `[prototypes, directions]`.
    rows: Vec<f32>,
    /// The squared norms of the centred prototypes, and of what they have besides.
    squared_norms: Vec<f32>,
    rests: Vec<f32>,
    /// The first two packed.
    panels: Panels,
}

/// Estimates or squared distances and their prototypes, least first.
type Shortlist = Vec<(f32, u32)>;

/// What a thread needs for comparing keys with all prototypes, some panels after others.
#[derive(Default)]
struct Products {
    tiles: Tiles,
    /// Blocks of the panels at hand.
    blocks: usize,
    /// `[panels, places of the keys, BLOCKS]`.
    estimates: Vec<[f32; BLOCK]>,
    /// The least estimate of every block, `[places, blocks]`.
    least: Vec<f32>,
    order: Vec<f32>,
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
    /// Prototype, query and place in its shortlist of every comparison.
    pairs: Vec<(u32, u32, u32)>,
}

impl Scratch {
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
}

/// Puts squared distances in the place of estimates: prototype by prototype, as neighbouring queries share them and each lies in far memory.
fn measure(
    shortlists: &mut [Shortlist],
    pairs: &mut Vec<(u32, u32, u32)>,
    queries: &[f32],
    rows: &[f32],
    dimensions: usize,
) {
    pairs.clear();
    for (query, shortlist) in (0u32..).zip(&*shortlists) {
        pairs.extend(shortlist.iter().zip(0u32..).map(|((_, id), place)| (*id, query, place)));
    }
    pairs.sort_unstable();
    let range = |index: u32| index as usize * dimensions..(index as usize + 1) * dimensions;
    vectorised(
        #[inline(always)]
        || {
            for (id, query, place) in &*pairs {
                let distance = squared_distance(&queries[range(*query)], &rows[range(*id)]);
                shortlists[*query as usize][*place as usize].0 = distance;
            }
        },
    );
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
    /// more prototypes than candidates or directions it is [`ExactSearch`].
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
        let prototypes = match directions.saturating_mul(2) >= dimensions || candidates.max(directions) >= count {
            true => Prototypes::Alone(ExactSearch::new(prototypes, dimensions)?),
            false => {
                let keys = Keys::new(&prototypes, dimensions, directions)?;
                Prototypes::Keyed(prototypes, keys)
            }
        };
        Ok(Self { prototypes, dimensions, candidates, scratch: Spare::default() })
    }

    /// The directions that keys are made with, and the prototypes' mean along them, where there are keys.
    pub(crate) fn keys(&self) -> Option<(&LinearMap, &[f32])> {
        match &self.prototypes {
            Prototypes::Alone(_) => None,
            Prototypes::Keyed(_, keys) => Some((&keys.directions, &keys.origin)),
        }
    }

    /// As [`nearest_alike`](PrototypeSearch::nearest_alike) where the caller makes the keys, for each query what it has along the directions beyond the
    /// prototypes' mean, and then the queries themselves, range by range: it lends them to what it is given. It refuses those that cannot be searched for.
    pub(crate) fn nearest_alike_with(
        &self,
        groups: &[usize],
        k: usize,
        make_keys: impl FnOnce(&mut Vec<f32>) -> Result<()>,
        mut lend: impl FnMut(Range<usize>, &mut dyn FnMut(&[f32])) -> Result<()>,
    ) -> Result<Neighbours> {
        let queries = groups.iter().sum();
        let (rows, keys) = match &self.prototypes {
            Prototypes::Keyed(rows, keys) => (rows, keys),
            Prototypes::Alone(search) => {
                let mut found = Ok(Neighbours::default());
                lend(0..queries, &mut |queries| found = search.nearest_alike(queries, groups, k))?;
                return found;
            }
        };
        self.scratch.with(|scratch| {
            make_keys(&mut scratch.keys)?;
            if let Err(error) = check_magnitude("key", &scratch.keys, keys.directions.output()) {
                // So are the queries, most likely, which says more.
                lend(0..queries, &mut |_| {})?;
                return Err(error);
            }
            keys.shortlist_alike(groups, self.candidates.max(k), scratch);
            scratch.shortlists.iter_mut().for_each(|shortlist| keys.keep_close(shortlist, k));
            for start in (0..queries).step_by(ROWS_AT_ONCE) {
                let range = start..(start + ROWS_AT_ONCE).min(queries);
                let Scratch { shortlists, pairs, .. } = &mut *scratch;
                let shortlists = &mut shortlists[range.clone()];
                lend(range, &mut |queries| measure(shortlists, pairs, queries, rows, self.dimensions))?;
            }
            Ok(scratch.neighbours(k))
        })
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
        let mut keys = Self {
            rows: Vec::with_capacity(count * directions.output()),
            panels,
            directions,
            origin,
            squared_norms: Vec::with_capacity(count),
            rests: Vec::with_capacity(count),
        };
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
                keys.squared_norms.push(squared);
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

    /// The same where queries, whose keys are in place, come in groups of like ones, of these lengths.
    fn shortlist_alike(&self, groups: &[usize], length: usize, scratch: &mut Scratch) {
        let Scratch { keys, means, products, shared, shortlists, .. } = scratch;
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
        let mut queries = shortlists.iter_mut().zip(keys.chunks_exact(width));
        for (shared, count) in shared.iter().zip(groups) {
            for (shortlist, key) in queries.by_ref().take(*count) {
                Arch::new().dispatch(Estimates { keys: self, shared, key, shortlist });
                keep_least(shortlist, length);
                shortlist.sort_unstable_by(order);
            }
        }
    }

    /// Leaves out of a shortlist, least estimates first, what is too far to be among the `k` nearest.
    fn keep_close(&self, shortlist: &mut Shortlist, k: usize) {
        let least = shortlist[k - 1].0;
        let mut place = 0;
        shortlist.retain(|(estimate, id)| {
            place += 1;
            place <= k || *estimate <= least + CLOSE * self.rests[*id as usize]
        });
    }

    /// The least estimates for each of some keys, in any order, but for the squared norm of what belongs to the key.
    fn promising(&self, keys: &[f32], length: usize, products: &mut Products, shortlists: &mut Vec<Shortlist>) {
        let width = self.directions.output();
        shortlists.resize_with(keys.len() / width, Vec::new);
        for (keys, shortlists) in keys.chunks(KEYS_AT_ONCE * width).zip(shortlists.chunks_mut(KEYS_AT_ONCE)) {
            products.least_of_all(&self.panels, keys, width, length, shortlists);
        }
    }
}

/// Estimates of some prototypes for a key, but for the key's own squared norm, as in [`Products`].
struct Estimates<'a> {
    keys: &'a Keys,
    shared: &'a [(f32, u32)],
    key: &'a [f32],
    shortlist: &'a mut Shortlist,
}

impl WithSimd for Estimates<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { keys, shared, key, shortlist } = self;
        let width = key.len();
        let (vectors, rest) = S::as_simd_f32s(key);
        shortlist.clear();
        for (_, id) in shared {
            let index = *id as usize;
            let (others, others_rest) = S::as_simd_f32s(&keys.rows[index * width..(index + 1) * width]);
            let mut sums = simd.splat_f32s(0.0);
            for (a, b) in vectors.iter().zip(others) {
                sums = simd.mul_add_e_f32s(*a, *b, sums);
            }
            let product = rest.iter().zip(others_rest).fold(simd.reduce_sum_f32s(sums), |sum, (a, b)| sum + a * b);
            shortlist.push((keys.squared_norms[index] - 2.0 * product, *id));
        }
    }
}

impl Products {
    /// The least estimates of all prototypes for every key, in any order.
    fn least_of_all(
        &mut self,
        panels: &Panels,
        keys: &[f32],
        width: usize,
        length: usize,
        shortlists: &mut [Shortlist],
    ) {
        self.tiles.pack(keys.chunks_exact(width), width);
        shortlists.iter_mut().for_each(Vec::clear);
        for first in (0..panels.len()).step_by(PANELS_AT_ONCE) {
            self.of(panels, first..(first + PANELS_AT_ONCE).min(panels.len()));
            for (index, shortlist) in shortlists.iter_mut().enumerate() {
                self.choose(index, first * WIDTH, length, shortlist);
            }
        }
    }

    /// Estimates for the prototypes of some panels, and the least of every block of them.
    fn of(&mut self, panels: &Panels, some: Range<usize>) {
        let places = self.tiles.places();
        self.blocks = some.len() * BLOCKS;
        self.estimates.resize(self.blocks * places, [0.0; BLOCK]);
        self.least.resize(self.blocks * places, 0.0);
        for (panel, estimates) in self.estimates.chunks_exact_mut(BLOCKS * places).enumerate() {
            panels.products(some.start + panel, &self.tiles, estimates.as_flattened_mut());
            vectorised(
                #[inline(always)]
                || {
                    let least = self.least.chunks_exact_mut(self.blocks);
                    for (least, estimates) in least.zip(estimates.as_chunks::<BLOCKS>().0) {
                        for (least, block) in least[panel * BLOCKS..].iter_mut().zip(estimates) {
                            *least = smallest(block);
                        }
                    }
                },
            );
        }
    }

    /// Takes the least estimates for a key, from prototype `first` on, into those of the panels before. So many blocks have one that is no more
    /// than the limit, so none above it is wanted.
    fn choose(&mut self, key: usize, first: usize, length: usize, shortlist: &mut Shortlist) {
        let least = &self.least[key * self.blocks..(key + 1) * self.blocks];
        // Less than the infinite estimates of places without a prototype.
        let mut limit = f32::MAX;
        if length <= self.blocks {
            self.order.clear();
            self.order.extend_from_slice(least);
            limit = limit.min(*self.order.select_nth_unstable_by(length - 1, f32::total_cmp).1);
        }
        for (block, _) in least.iter().enumerate().filter(|(_, least)| **least <= limit) {
            let estimates = &self.estimates[(block / BLOCKS * self.tiles.places() + key) * BLOCKS + block % BLOCKS];
            let entries =
                estimates.iter().zip((first + block * BLOCK) as u32..).filter(|(estimate, _)| **estimate <= limit);
            shortlist.extend(entries.map(|(estimate, id)| (*estimate, id)));
        }
        keep_least(shortlist, length);
    }
}

/// Less estimates come first, and lower indices among equals.
fn order(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// Keeps the first `length` entries, in any order.
fn keep_least(shortlist: &mut Shortlist, length: usize) {
    if shortlist.len() > length {
        shortlist.select_nth_unstable_by(length - 1, order);
        shortlist.truncate(length);
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
        match &self.prototypes {
            Prototypes::Alone(search) => search.queries_per_task(),
            Prototypes::Keyed(..) => QUERIES_PER_TASK,
        }
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
            .map(|queries| {
                self.scratch.with(|scratch| {
                    keys.shortlist(queries, self.candidates.max(k), scratch)?;
                    let Scratch { shortlists, pairs, .. } = scratch;
                    measure(shortlists, pairs, queries, rows, dimensions);
                    Ok(scratch.neighbours(k))
                })
            })
            .collect::<Result<_>>()?;
        Ok(Neighbours::join(k, parts))
    }

    fn nearest_alike(&self, queries: &[f32], groups: &[usize], k: usize) -> Result<Neighbours> {
        let own = match &self.prototypes {
            Prototypes::Alone(search) => return search.nearest_alike(queries, groups, k),
            Prototypes::Keyed(_, keys) => keys,
        };
        check_queries(self, queries, k)?;
        let dimensions = self.dimensions;
        check_groups(groups, queries.len() / dimensions)?;
        self.nearest_alike_with(
            groups,
            k,
            |keys| own.of(queries, keys),
            |range, action| {
                action(&queries[range.start * dimensions..range.end * dimensions]);
                Ok(())
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use masf_core::random_stream;
    use rand::Rng;

    use super::*;

    /// 8 MB of a file could ask for 50 GB of keys.
    #[test]
    fn more_directions_than_prototypes_have_no_keys() -> Result<()> {
        assert!(ShortlistSearch::new(vec![0.5; 2_000_000], 1_000_000, 4096, 1)?.keys().is_none());
        assert!(ShortlistSearch::new(vec![0.5; 600], 30, 10, 1)?.keys().is_some());
        Ok(())
    }

    #[test]
    fn the_least_estimates_are_those_of_sorting_them_all() {
        const WIDTH: usize = 3;
        for (rows, keys, length) in
            [(1, 1, 1), (70, 7, 4), (200, 5, 40), (200, 3, 300), (3000, 70, 32), (9000, 7, 40), (9000, 7, 5000)]
        {
            let mut random = random_stream(rows as u64, "test.products");
            // Few different values: many estimates are equal.
            let mut draw = |count: usize| (0..count).map(|_| random.random_range(-3i8..3).into()).collect::<Vec<f32>>();
            let (prototypes, keys) = (draw(rows * WIDTH), draw(keys * WIDTH));
            let mut panels = Panels::new(rows, WIDTH);
            for (place, row) in prototypes.chunks_exact(WIDTH).enumerate() {
                panels.set(place, row);
            }
            let mut found = vec![vec![(0.0, 0)]; keys.len() / WIDTH];
            Products::default().least_of_all(&panels, &keys, WIDTH, length, &mut found);
            for (key, mut found) in keys.chunks_exact(WIDTH).zip(found) {
                let estimate =
                    |row: &[f32]| squared_norm(row) - 2.0 * row.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
                let mut expected: Shortlist = prototypes.chunks_exact(WIDTH).map(estimate).zip(0..).collect();
                expected.sort_unstable_by(order);
                expected.truncate(length);
                found.sort_unstable_by(order);
                assert_eq!(found, expected, "{rows} prototypes, {length} wanted");
            }
        }
    }
}
