//! Approximate search in a hierarchical navigable small-world graph (Malkov and Yashunin, PAMI 2020), by the crate `hnsw_rs`.
//!
//! That crate panics on NaN, accepts vectors of a wrong length, and may lose points: a point that no path leads to is never
//! found. So everything is checked before it gets there, points are inserted one after another (its levels come from a
//! fixed seed, so a graph is the same every time it is built), and once built every prototype is searched for. Those
//! that do not find themselves are searched exactly beside the graph. Its own file format is never used: the graph is built
//! anew from the stored vectors.

use hnsw_rs::anndists::dist::Distance;
use hnsw_rs::hnsw::Hnsw;
use masf_core::{Progress, Silent, vectorised};
use rayon::prelude::*;

use super::{check_prototypes, check_queries, prototype};
use crate::lanes::squared_distance;
use crate::{ExactSearch, MemoryError, Neighbours, PrototypeSearch, Result};

/// Most layers of the graph (the crate's own limit).
const LAYERS: usize = 16;

/// Hyper-parameters of an [`HnswSearch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HnswParams {
    /// Edges of a prototype and layer, 2 to 128 (twice as many in the lowest layer). With 16 many points of
    /// high-dimensional noise get lost, with 32 few.
    pub connections: usize,
    /// Candidates that are kept while a prototype is inserted, 1 to 4096.
    pub construction: usize,
    /// Candidates that are kept while searching, 1 to 65,536; more of them find more of the nearest.
    pub search: usize,
}

impl Default for HnswParams {
    fn default() -> Self {
        Self { connections: 32, construction: 200, search: 64 }
    }
}

impl HnswParams {
    pub(crate) fn check(&self) -> Result<()> {
        let range = |name, value: usize, least: usize, most: usize| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(MemoryError::parameter(name, value, format!("{least} to {most}"))),
        };
        range("hnsw connections", self.connections, 2, 128)?;
        range("hnsw construction", self.construction, 1, 4096)?;
        range("hnsw search", self.search, 1, 1 << 16)
    }
}

/// Search in a graph, with exact search among the prototypes that the graph lost.
///
/// Memory: the prototypes twice, and for each up to `384 + 80 connections` bytes.
pub struct HnswSearch {
    rows: Vec<f32>,
    dimensions: usize,
    params: HnswParams,
    graph: Hnsw<'static, f32, SquaredDistance>,
    /// The prototypes that do not find themselves in the graph, and the search among them.
    lost: Vec<u32>,
    beside: Option<ExactSearch>,
}

/// The distance of the graph, with the same bits everywhere.
#[derive(Debug, Clone, Copy, Default)]
struct SquaredDistance;

impl Distance<f32> for SquaredDistance {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        vectorised(
            #[inline(always)]
            || squared_distance(a, b),
        )
    }
}

impl std::fmt::Debug for HnswSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HnswSearch")
            .field("count", &self.count())
            .field("dimensions", &self.dimensions)
            .field("params", &self.params)
            .field("lost", &self.lost.len())
            .finish_non_exhaustive()
    }
}

impl HnswSearch {
    /// Builds the graph of the prototypes `[n, dimensions]`, on one thread, and searches for every one of them, on all.
    ///
    /// # Errors
    /// As [`ExactSearch::new`], and [`MemoryError::Parameter`] for hyper-parameters out of range.
    pub fn new(prototypes: Vec<f32>, dimensions: usize, params: HnswParams) -> Result<Self> {
        Self::build(prototypes, dimensions, params, &Silent)
    }

    /// As [`new`](Self::new), with its steps and cancellation through `progress`.
    pub(crate) fn build(
        prototypes: Vec<f32>,
        dimensions: usize,
        params: HnswParams,
        progress: &dyn Progress,
    ) -> Result<Self> {
        params.check()?;
        let count = check_prototypes(&prototypes, dimensions)?;
        let inserted = (0..count as u32).collect::<Vec<_>>();
        progress.start("building the graph", count as u64);
        let built = Self::with_inserted(prototypes, dimensions, params, &inserted, progress);
        progress.finish();
        built
    }

    /// A graph of some of the prototypes; the others are lost to it.
    fn with_inserted(
        rows: Vec<f32>,
        dimensions: usize,
        params: HnswParams,
        inserted: &[u32],
        progress: &dyn Progress,
    ) -> Result<Self> {
        let count = rows.len() / dimensions;
        let HnswParams { connections, construction, .. } = params;
        let mut graph = Hnsw::new(connections, count, LAYERS, construction, SquaredDistance);
        // Without them a prototype among near duplicates keeps few edges, and is lost more easily.
        graph.set_keeping_pruned(true);
        for part in inserted.chunks(64) {
            MemoryError::if_cancelled(progress)?;
            for &index in part {
                let start = index as usize * dimensions;
                graph.insert_slice((&rows[start..start + dimensions], index as usize));
            }
            progress.step(part.len() as u64);
        }
        graph.set_searching_mode(true);
        let mut search = Self { rows, dimensions, params, graph, lost: Vec::new(), beside: None };
        let finds_itself = |index: &u32| {
            let row = prototype(&search, *index);
            let found = search.candidates(row, 1);
            // Of equal prototypes any will do: the nearest distance is right.
            found.iter().any(|other| SquaredDistance.eval(row, prototype(&search, *other)) == 0.0)
        };
        let lost = |index: &u32| !progress.is_cancelled() && !finds_itself(index);
        search.lost = (0..count as u32).into_par_iter().filter(lost).collect();
        MemoryError::if_cancelled(progress)?;
        if !search.lost.is_empty() {
            let rows = search.lost.iter().flat_map(|index| prototype(&search, *index)).copied().collect();
            search.beside = Some(ExactSearch::new(rows, dimensions)?);
        }
        Ok(search)
    }

    /// How many prototypes the graph lost; they are searched exactly.
    pub fn lost(&self) -> usize {
        self.lost.len()
    }

    /// What the graph offers for a query, in no order that counts.
    fn candidates(&self, query: &[f32], k: usize) -> Vec<u32> {
        let width = self.params.search.max(k);
        self.graph.search(query, width, width).into_iter().map(|found| found.d_id as u32).collect()
    }

    fn nearest_of_one(&self, query: &[f32], k: usize) -> Result<Vec<(f32, u32)>> {
        let distance = |index: u32| (SquaredDistance.eval(query, prototype(self, index)), index);
        let mut found: Vec<_> = self.candidates(query, k).into_iter().map(distance).collect();
        if let Some(beside) = &self.beside {
            let among = beside.nearest(query, k.min(self.lost.len()))?;
            found.extend(among.indices.iter().map(|index| distance(self.lost[*index as usize])));
        }
        let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        found.sort_unstable_by(order);
        found.dedup();
        if found.len() < k {
            // The graph falls into parts: rather slow than short.
            found = (0..self.count() as u32).map(distance).collect();
            found.sort_unstable_by(order);
        }
        found.truncate(k);
        Ok(found)
    }
}

impl PrototypeSearch for HnswSearch {
    fn count(&self) -> usize {
        self.rows.len() / self.dimensions
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn prototypes(&self) -> &[f32] {
        &self.rows
    }

    fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        let found: Vec<_> =
            queries.par_chunks(self.dimensions).map(|query| self.nearest_of_one(query, k)).collect::<Result<_>>()?;
        let found = found.into_iter().flatten();
        let (distances, indices) = found.map(|(squared, index)| (squared.sqrt(), index)).unzip();
        Ok(Neighbours { k, indices, distances })
    }
}

#[cfg(test)]
mod tests {
    use masf_core::random_stream;
    use rand::Rng;

    use super::*;

    fn rows(count: usize, dimensions: usize, seed: u64) -> Vec<f32> {
        let mut random = random_stream(seed, "test");
        (0..count * dimensions).map(|_| random.random_range(-1f32..1.0)).collect()
    }

    #[test]
    fn it_finds_nearly_all_and_ranks_as_direct_distances_do() -> Result<()> {
        let prototypes = rows(1500, 8, 1);
        let queries = rows(200, 8, 2);
        let exact = ExactSearch::new(prototypes.clone(), 8)?;
        let graph = HnswSearch::new(prototypes.clone(), 8, HnswParams::default())?;
        let (expected, found) = (exact.nearest(&queries, 3)?, graph.nearest(&queries, 3)?);
        let equal = found.indices.iter().zip(&expected.indices).filter(|(a, b)| a == b).count();
        assert!(equal * 100 >= 98 * expected.indices.len(), "{equal} of {}", expected.indices.len());
        for (a, b) in found.distances.iter().zip(&expected.distances) {
            assert!(a >= b);
        }
        // Built again, and on other threads, it answers with the same bits.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let again = pool.install(|| HnswSearch::new(prototypes, 8, HnswParams::default())?.nearest(&queries, 3))?;
        assert_eq!(again, found);
        Ok(())
    }

    #[test]
    fn every_prototype_finds_itself_even_where_the_graph_lost_it() -> Result<()> {
        let prototypes = rows(400, 6, 3);
        let inserted: Vec<u32> = (0..400).filter(|index| index % 4 != 0).collect();
        let search = HnswSearch::with_inserted(prototypes.clone(), 6, HnswParams::default(), &inserted, &Silent)?;
        assert!(search.lost() >= 100);
        let found = search.nearest(&prototypes, 1)?;
        assert!(found.distances.iter().all(|distance| *distance == 0.0));
        assert!(found.indices.iter().zip(0..).all(|(index, own)| *index == own));
        // Nothing in the graph at all.
        let search = HnswSearch::with_inserted(prototypes.clone(), 6, HnswParams::default(), &[], &Silent)?;
        assert_eq!(search.nearest(&prototypes, 5)?, ExactSearch::new(prototypes.clone(), 6)?.nearest(&prototypes, 5)?);
        Ok(())
    }

    #[test]
    fn duplicates_small_banks_and_large_k_are_answered_in_full() -> Result<()> {
        let search = HnswSearch::new(vec![1.5; 3 * 50], 3, HnswParams::default())?;
        let found = search.nearest(&[0.0; 3], 50)?;
        let mut indices = found.indices.clone();
        indices.sort_unstable();
        assert!(indices.iter().zip(0..50).all(|(index, own)| *index == own));
        let single = HnswSearch::new(vec![1.0, 2.0], 2, HnswParams::default())?;
        assert_eq!(single.nearest(&[1.0, 2.0], 1)?.distances, [0.0]);
        assert!(single.nearest(&[1.0, 2.0], 2).is_err());
        Ok(())
    }

    #[test]
    fn bad_input_never_reaches_the_graph() -> Result<()> {
        let params = HnswParams::default();
        assert!(HnswSearch::new(vec![f32::NAN, 0.0], 2, params).is_err());
        assert!(HnswSearch::new(vec![0.0; 3], 2, params).is_err());
        assert!(HnswSearch::new(vec![], 2, params).is_err());
        assert!(HnswSearch::new(vec![0.0; 4], 2, HnswParams { connections: 300, ..params }).is_err());
        let search = HnswSearch::new(vec![0.0; 4], 2, params)?;
        assert!(search.nearest(&[f32::NAN, 0.0], 1).unwrap_err().to_string().contains("query 0"));
        assert!(search.nearest(&[0.0; 3], 1).is_err());
        Ok(())
    }
}
