//! The nearest of some packed prototypes: keys rule out, direct distances decide.
//!
//! A panel of keys is compared with all queries of a task in one product. For the few prototypes that the keys cannot
//! rule out the distance is computed directly, with the same bits on every machine, and only these distances are ranked; the
//! limit falls as nearer ones are found. So the answer does not depend on the keys, on the order of the panels, or
//! on the rounding of the product.

use std::ops::Range;

use masf_core::vectorised;

use crate::lanes::{squared_distance, squared_norm};
use crate::panels::{Panels, Tiles, WIDTH};
use crate::sieve::{Keys, Sieve};
use crate::{Neighbours, Result};

/// Queries of a task: their keys stay in the second-level cache.
pub(crate) const QUERIES_PER_TASK: usize = 102;
/// Unit roundoff of `f32`.
const U: f64 = f32::EPSILON as f64 / 2.0;
/// A query is searched for by the plain product if one in so many of the last prototypes had to be looked at.
const HARD_SHARE: usize = 8;
/// Packing pays for one in so many queries of a task.
const PACKING_SHARE: usize = 4;
/// Panels between two looks for such queries.
const PANELS_PER_LOOK: usize = 16;

/// Packed prototypes in any order.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    /// The prototypes in their own order.
    pub(crate) rows: Vec<f32>,
    pub(crate) dimensions: usize,
    sieve: Sieve,
    panels: Panels,
    /// The prototype in every place of the panels; [`EMPTY`] where there is none.
    ids: Vec<u32>,
    reach: Reach,
    /// For queries that short keys do not serve: keys that are the centred prototypes, packed when they are needed.
    plain: Option<(Sieve, Reach)>,
}

/// What is known of all keys together.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// How far a prototype's key may be from the true one.
    error: f64,
    /// The largest norm of a key.
    norm: f64,
}

impl Reach {
    /// Computes the keys of rows, hands them to `each` one by one, and says what they have in common.
    fn of(sieve: &Sieve, rows: &[f32], dimensions: usize, mut each: impl FnMut(usize, &[f32])) -> Result<Self> {
        let (mut keys, mut index) = (Keys::default(), 0);
        let mut reach = Self { error: 0.0, norm: 0.0 };
        for rows in rows.chunks(ROWS_PER_BLOCK * dimensions) {
            sieve.keys(rows, &mut keys)?;
            for (key, error) in keys.values.chunks_exact(sieve.dimensions()).zip(&keys.errors) {
                // The norm is rounded, too.
                let norm = f64::from(squared_norm(key)).sqrt() * 1.001;
                reach = Self { error: reach.error.max(*error), norm: reach.norm.max(norm) };
                each(index, key);
                index += 1;
            }
        }
        Ok(reach)
    }
}

/// Rows whose keys are computed at once while packing.
const ROWS_PER_BLOCK: usize = 512;
/// An empty place of a panel.
const EMPTY: u32 = u32::MAX;

/// What a thread needs for searching.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    keys: Keys,
    tiles: Tiles,
    out: Vec<f32>,
    hits: Vec<Hit>,
    pub(crate) states: Vec<State>,
}

/// A prototype of a panel that a query may be near to.
#[derive(Debug, Clone, Copy)]
struct Hit {
    place: u8,
    query: u32,
    value: f32,
}

/// What is known of a query.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Squared distances and prototypes, nearest first, at most `k`.
    best: Vec<(f32, u32)>,
    /// Products above this are out.
    limit: f32,
    bound: Bound,
    /// Prototypes looked at directly, now and when that was last judged.
    looked: usize,
    judged: usize,
}

/// How a distance limits the products.
#[derive(Debug, Default, Clone, Copy)]
struct Bound {
    /// The squared norm of the query's key.
    squared_norm: f64,
    /// How far the difference of two keys may be from the true one, and a share for distances that underflow.
    error: f64,
    /// The rounding error of a product.
    product: f64,
    /// The relative rounding error of a direct distance.
    direct: f64,
}

impl Bound {
    /// No prototype with a product above this has a computed squared distance of `squared` or less.
    fn limit(&self, squared: f32) -> f32 {
        let reach = f64::from(squared).sqrt() * (1.0 + self.direct) + self.error;
        ((reach * reach - self.squared_norm + self.product) as f32).next_up()
    }
}

impl State {
    fn worst(&self, k: usize) -> f32 {
        if self.best.len() < k { f32::INFINITY } else { self.best[k - 1].0 }
    }

    /// Takes in a squared distance that may be among the `k` smallest.
    fn insert(&mut self, k: usize, squared: f32, id: u32) {
        let after = |entry: &(f32, u32)| entry.0.total_cmp(&squared).then(entry.1.cmp(&id)).is_lt();
        let place = self.best.partition_point(after);
        // The query may have met it before.
        if place < k && self.best.get(place).is_none_or(|entry| entry.1 != id) {
            self.best.truncate(k - 1);
            self.best.insert(place, (squared, id));
        }
    }

    /// Whether too many of the last `seen` prototypes had to be looked at.
    fn is_hard(&mut self, seen: usize) -> bool {
        let looked = self.looked - std::mem::replace(&mut self.judged, self.looked);
        looked * HARD_SHARE > seen
    }
}

impl Store {
    /// Packs prototypes in the order of `groups`, each of which begins a panel of its own.
    pub(crate) fn new(rows: Vec<f32>, dimensions: usize, groups: &[Vec<u32>]) -> Result<Self> {
        let sieve = Sieve::choose(&rows, dimensions)?;
        Self::with_sieve(rows, dimensions, groups, sieve)
    }

    pub(crate) fn with_sieve(rows: Vec<f32>, dimensions: usize, groups: &[Vec<u32>], sieve: Sieve) -> Result<Self> {
        let mut ids = Vec::new();
        for group in groups {
            ids.extend_from_slice(group);
            ids.resize(ids.len().next_multiple_of(WIDTH), EMPTY);
        }
        let mut places = vec![0; rows.len() / dimensions];
        for (place, id) in ids.iter().enumerate().filter(|(_, id)| **id != EMPTY) {
            places[*id as usize] = place;
        }
        let mut panels = Panels::new(ids.len(), sieve.dimensions());
        let reach = Reach::of(&sieve, &rows, dimensions, |index, key| panels.set(places[index], key))?;
        let plain = match sieve.is_short() {
            true => {
                let plain = sieve.plain_of();
                let reach = Reach::of(&plain, &rows, dimensions, |_, _| {})?;
                Some((plain, reach))
            }
            false => None,
        };
        Ok(Self { rows, dimensions, sieve, panels, ids, reach, plain })
    }

    /// The number of prototypes.
    pub(crate) fn count(&self) -> usize {
        self.rows.len() / self.dimensions
    }

    /// The number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.panels.len()
    }

    /// A prototype.
    pub(crate) fn row(&self, id: u32) -> &[f32] {
        &self.rows[id as usize * self.dimensions..][..self.dimensions]
    }

    #[cfg(test)]
    pub(crate) fn is_short(&self) -> bool {
        self.sieve.is_short()
    }

    /// Computes the keys of checked queries and forgets what was found before.
    pub(crate) fn begin(&self, queries: &[f32], scratch: &mut Scratch) -> Result<()> {
        self.sieve.keys(queries, &mut scratch.keys)?;
        let width = self.sieve.dimensions();
        let count = queries.len() / self.dimensions;
        scratch.states.resize_with(count, State::default);
        let keys = scratch.keys.values.chunks_exact(width).zip(&scratch.keys.errors);
        for (state, (key, error)) in scratch.states.iter_mut().zip(keys) {
            state.best.clear();
            state.limit = f32::INFINITY;
            (state.looked, state.judged) = (0, 0);
            state.bound = self.bound(key, *error, self.reach);
        }
        Ok(())
    }

    fn bound(&self, key: &[f32], error: f64, rows: Reach) -> Bound {
        let squared_norm: f64 = key.iter().map(|value| f64::from(*value).powi(2)).sum();
        let reach = squared_norm.sqrt() + rows.norm;
        let underflow = (self.dimensions + key.len() + 32) as f64 * f64::from(f32::MIN_POSITIVE);
        Bound {
            squared_norm,
            error: error + rows.error + underflow.sqrt(),
            product: 2.0 * (key.len() as f64 + 8.0) * U * reach * reach + underflow,
            direct: 2.0 * (self.dimensions as f64 / 32.0 + 16.0) * U,
        }
    }

    /// Searches all panels.
    pub(crate) fn scan_all(&self, queries: &[f32], k: usize, scratch: &mut Scratch) -> Result<()> {
        let mut chosen: Vec<u32> = (0..scratch.states.len() as u32).collect();
        let Some((plain, reach)) = &self.plain else {
            self.scan(0..self.panels(), queries, &chosen, k, scratch);
            return Ok(());
        };
        let mut hard = Vec::new();
        let mut start = 0;
        while start < self.panels() && !chosen.is_empty() {
            let end = (start + PANELS_PER_LOOK).min(self.panels());
            self.scan(start..end, queries, &chosen, k, scratch);
            // Of the first ones many are looked at before the limits fall.
            if start > 0 {
                let seen = (end - start) * WIDTH;
                let (other, easy): (Vec<u32>, Vec<u32>) =
                    chosen.iter().partition(|query| scratch.states[**query as usize].is_hard(seen));
                // To pack the descriptors for a few queries would take longer than to look at all of them.
                if (hard.len() + other.len()) * PACKING_SHARE >= scratch.states.len() {
                    hard.extend(other);
                    chosen = easy;
                }
            }
            start = end;
        }
        if hard.is_empty() { Ok(()) } else { self.scan_plain(plain, *reach, queries, &hard, k, scratch) }
    }

    /// Searches all prototypes by the product of the descriptors themselves.
    fn scan_plain(
        &self,
        plain: &Sieve,
        reach: Reach,
        queries: &[f32],
        chosen: &[u32],
        k: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let dimensions = self.dimensions;
        let rows: Vec<f32> =
            chosen.iter().flat_map(|query| &queries[*query as usize * dimensions..][..dimensions]).copied().collect();
        plain.keys(&rows, &mut scratch.keys)?;
        for ((query, key), error) in
            chosen.iter().zip(scratch.keys.values.chunks_exact(dimensions)).zip(&scratch.keys.errors)
        {
            let state = &mut scratch.states[*query as usize];
            state.bound = self.bound(key, *error, reach);
            state.limit = state.bound.limit(state.worst(k));
        }
        scratch.tiles.pack(scratch.keys.values.chunks_exact(dimensions), dimensions);
        let Scratch { tiles, out, hits, states, keys, .. } = scratch;
        let mut panel = Panels::new(WIDTH, dimensions);
        for (block, rows) in self.rows.chunks(WIDTH * dimensions).enumerate() {
            plain.keys(rows, keys)?;
            panel.clear();
            for (place, key) in keys.values.chunks_exact(dimensions).enumerate() {
                panel.set(place, key);
            }
            out.resize(tiles.places() * WIDTH, 0.0);
            panel.products(0, tiles, out);
            let ids: [u32; WIDTH] = std::array::from_fn(|place| {
                if place * dimensions < rows.len() { (block * WIDTH + place) as u32 } else { EMPTY }
            });
            vectorised(
                #[inline(always)]
                || self.look_at_all(&ids, out, queries, chosen, k, states, hits),
            );
        }
        Ok(())
    }

    /// Looks at the prototypes of a panel that the products do not rule out: the most promising of every query first, then
    /// the others prototype by prototype, so that each is fetched from memory once.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "parts of the scratch that are borrowed one by one")]
    fn look_at_all(
        &self,
        ids: &[u32],
        out: &[f32],
        queries: &[f32],
        chosen: &[u32],
        k: usize,
        states: &mut [State],
        hits: &mut Vec<Hit>,
    ) {
        hits.clear();
        for (query, values) in chosen.iter().zip(out.as_chunks::<WIDTH>().0) {
            let state = &mut states[*query as usize];
            let least = smallest(values);
            if least > state.limit {
                continue;
            }
            let Some(place) = values.iter().position(|value| *value == least) else { continue };
            self.look(ids[place], *query, queries, k, state);
            for (value, other) in values.iter().zip(0u8..) {
                if *value <= state.limit && usize::from(other) != place {
                    hits.push(Hit { place: other, query: *query, value: *value });
                }
            }
        }
        hits.sort_unstable_by_key(|hit| (hit.place, hit.query));
        for hit in hits.iter() {
            let state = &mut states[hit.query as usize];
            // The limit may have fallen meanwhile.
            if hit.value <= state.limit {
                self.look(ids[usize::from(hit.place)], hit.query, queries, k, state);
            }
        }
    }

    /// Takes in the distance of a prototype.
    #[inline(always)]
    fn look(&self, id: u32, query: u32, queries: &[f32], k: usize, state: &mut State) {
        if id == EMPTY {
            return;
        }
        state.looked += 1;
        let query = &queries[query as usize * self.dimensions..][..self.dimensions];
        let worst = state.worst(k);
        // In full: to stop early would take sums of the lanes on the way, which cost more than they save.
        let squared = squared_distance(query, self.row(id));
        if squared <= worst {
            state.insert(k, squared, id);
            state.limit = state.limit.min(state.bound.limit(state.worst(k)));
        }
    }

    /// Searches some panels for the `k` nearest of the queries at `chosen`, of those that [`begin`](Self::begin) was given.
    pub(crate) fn scan(&self, panels: Range<usize>, queries: &[f32], chosen: &[u32], k: usize, scratch: &mut Scratch) {
        let width = self.sieve.dimensions();
        let Scratch { keys, tiles, out, hits, states } = scratch;
        tiles.pack(chosen.iter().map(|query| &keys.values[*query as usize * width..][..width]), width);
        for panel in panels {
            out.resize(tiles.places() * WIDTH, 0.0);
            self.panels.products(panel, tiles, out);
            let ids = &self.ids[panel * WIDTH..(panel + 1) * WIDTH];
            vectorised(
                #[inline(always)]
                || self.look_at_all(ids, out, queries, chosen, k, states, hits),
            );
        }
    }
}

/// The smallest value, in lanes.
#[inline(always)]
pub(super) fn smallest<const N: usize>(values: &[f32; N]) -> f32 {
    let mut lanes = [f32::INFINITY; 16];
    for block in values.as_chunks::<16>().0 {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = if *value < *lane { *value } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::INFINITY, |least, lane| if lane < least { lane } else { least })
}

impl Scratch {
    /// The neighbours that were found, query after query.
    pub(crate) fn neighbours(&self, k: usize) -> Neighbours {
        let best = || self.states.iter().flat_map(|state| &state.best);
        Neighbours {
            k,
            indices: best().map(|entry| entry.1).collect(),
            distances: best().map(|entry| entry.0.sqrt()).collect(),
        }
    }
}
