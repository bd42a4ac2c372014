//! Search for the nearest prototypes, behind one trait.
//!
//! - [`ExactSearch`]: the answer of comparing all distances, bit for bit.
//! - [`ShortlistSearch`]: a few principal directions choose the prototypes that are compared directly.
//! - [`CellSearch`]: an inverted file; queries visit the nearest of the cells that the prototypes are sorted into.
//! - [`HnswSearch`](crate::HnswSearch) (feature `hnsw`): a navigable graph; measured slower than exact search on 100,000 patches.

mod backend;
mod cells;
mod exact;
#[cfg(feature = "hnsw")]
mod hnsw;
mod kmeans;
mod scan;
mod shortlist;
#[cfg(test)]
mod tests;

pub(crate) use backend::{Backend, Columns};
pub use backend::{CellKeys, Search};
pub use cells::{CellParams, CellSearch};
pub use exact::ExactSearch;
#[cfg(feature = "hnsw")]
pub use hnsw::{HnswParams, HnswSearch};
pub use kmeans::k_means;
pub use shortlist::ShortlistSearch;

use crate::coreset::check_magnitude;
use crate::{MemoryError, Result};

/// The nearest prototypes of some queries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Neighbours {
    /// Neighbours of each query.
    pub k: usize,
    /// Indices of the prototypes, `[queries, k]`, nearest first, the lowest index first among equals.
    pub indices: Vec<u32>,
    /// Their Euclidean distances, `[queries, k]`.
    pub distances: Vec<f32>,
}

impl Neighbours {
    /// The neighbours of consecutive parts of the queries, as one.
    pub(crate) fn join(k: usize, parts: Vec<Self>) -> Self {
        let mut all = Self { k, ..Self::default() };
        for part in parts {
            all.indices.extend(part.indices);
            all.distances.extend(part.distances);
        }
        all
    }
}

/// A way to find the prototypes nearest to a query.
pub trait PrototypeSearch: std::fmt::Debug + Send + Sync {
    /// The number of prototypes, at least 1.
    fn count(&self) -> usize;

    /// The length of a descriptor.
    fn dimensions(&self) -> usize;

    /// The prototypes, `[count, dimensions]`, row after row.
    fn prototypes(&self) -> &[f32];

    /// The `k` prototypes nearest to each of the queries `[n, dimensions]`; the answer for a query does not depend on the
    /// others or on the number of threads.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if `k` is 0 or above the number of prototypes, [`MemoryError::Dimensions`] or
    /// [`MemoryError::Magnitude`] for queries of another length or not finite.
    fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours>;

    /// As [`nearest`](Self::nearest) for queries that come in groups of like ones, such as the patches of neighbouring positions; `groups` has the
    /// lengths of the groups. A search that is not exact may look for what a whole group is near to: then the answer for a query depends
    /// on the others of its group, and on nothing else. Callers divide the groups among threads.
    ///
    /// # Errors
    /// As [`nearest`](Self::nearest), and [`MemoryError::Parameter`] for groups that have not as many queries in all.
    fn nearest_alike(&self, queries: &[f32], groups: &[usize], k: usize) -> Result<Neighbours> {
        check_groups(groups, queries.len() / self.dimensions().max(1))?;
        self.nearest(queries, k)
    }

    /// How many queries a thread is best given at once.
    fn queries_per_task(&self) -> usize {
        128
    }
}

/// Refuses prototypes that cannot be searched; gives their number.
fn check_prototypes(prototypes: &[f32], dimensions: usize) -> Result<usize> {
    if dimensions == 0 || !prototypes.len().is_multiple_of(dimensions) {
        return Err(MemoryError::Dimensions { what: "prototypes", found: prototypes.len(), dimensions });
    }
    let count = prototypes.len() / dimensions;
    if count == 0 || count >= u32::MAX as usize {
        return Err(MemoryError::parameter("number of prototypes", count, "1 to 4294967294"));
    }
    check_magnitude("prototype", prototypes, dimensions)?;
    Ok(count)
}

/// Refuses queries that cannot be searched for.
fn check_queries(search: &impl PrototypeSearch, queries: &[f32], k: usize) -> Result<()> {
    let dimensions = search.dimensions();
    if k == 0 || k > search.count() {
        return Err(MemoryError::parameter("k", k, format!("1 to the {} prototypes of the bank", search.count())));
    }
    if !queries.len().is_multiple_of(dimensions) {
        return Err(MemoryError::Dimensions { what: "queries", found: queries.len(), dimensions });
    }
    check_magnitude("query", queries, dimensions)
}

/// Refuses groups that are not those of some number of queries.
fn check_groups(groups: &[usize], queries: usize) -> Result<()> {
    let total = groups.iter().fold(0usize, |total, group| total.saturating_add(*group));
    if total != queries || groups.contains(&0) {
        let expected = format!("groups of at least 1, {queries} queries in all");
        return Err(MemoryError::parameter("groups", format!("{} groups, {total} queries", groups.len()), expected));
    }
    Ok(())
}

/// The prototype of an index that a search gave.
pub(crate) fn prototype(search: &dyn PrototypeSearch, index: u32) -> &[f32] {
    let start = index as usize * search.dimensions();
    &search.prototypes()[start..start + search.dimensions()]
}

/// Queries that one task searches for, of `count` in all: so many that a panel of prototypes is used well, at most
/// `most`, and the same number for every thread.
pub(crate) fn queries_per_task(count: usize, most: usize) -> usize {
    let threads = rayon::current_num_threads().max(1);
    let rounds = count.div_ceil(threads * most).max(1);
    count.div_ceil(threads * rounds).clamp(1, most)
}
