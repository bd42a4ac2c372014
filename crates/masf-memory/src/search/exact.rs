//! Exact search.

use rayon::prelude::*;

use super::scan::{QUERIES_PER_TASK, Scratch, Store};
use super::{check_groups, check_prototypes, check_queries, queries_per_task};
use crate::spare::Spare;
use crate::{Neighbours, PrototypeSearch, Result};

/// Exact search among all prototypes.
///
/// A matrix product of short keys (a few principal directions and the norm of what they leave, where the prototypes
/// are such that this pays; otherwise the descriptors themselves) rules out most prototypes by the triangle inequality,
/// rounding included; the distances of the others are computed directly and ranked. The result is that of comparing all
/// direct distances: a query that equals a prototype has distance exactly 0, ties go to the lowest index, and the bits
/// depend neither on the batch nor on the threads nor on the processor.
///
/// Memory: the prototypes and their keys, twice the prototypes at most, and buffers of 1 MiB for each of as many searches as ever ran at once.
#[derive(Clone)]
pub struct ExactSearch {
    store: Store,
    scratch: Spare<Scratch>,
}

impl std::fmt::Debug for ExactSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactSearch").field("count", &self.count()).field("dimensions", &self.dimensions()).finish()
    }
}

impl ExactSearch {
    /// Search among the prototypes `[n, dimensions]`.
    ///
    /// # Errors
    /// [`MemoryError::Dimensions`](crate::MemoryError::Dimensions) for no whole number of prototypes,
    /// [`MemoryError::Parameter`](crate::MemoryError::Parameter) for none or for more than 32 bits can number,
    /// [`MemoryError::Magnitude`](crate::MemoryError::Magnitude) for one that is not finite.
    pub fn new(prototypes: Vec<f32>, dimensions: usize) -> Result<Self> {
        let count = check_prototypes(&prototypes, dimensions)?;
        let store = Store::new(prototypes, dimensions, &[(0..count as u32).collect()])?;
        Ok(Self { store, scratch: Spare::default() })
    }

    /// Searches for checked queries, on this thread.
    pub(super) fn nearest_here(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        self.scratch.with(|scratch| {
            let parts = queries.chunks(QUERIES_PER_TASK * self.dimensions()).map(|queries| {
                self.store.begin(queries, scratch)?;
                self.store.scan_all(queries, k, scratch)?;
                Ok(scratch.neighbours(k))
            });
            Ok(Neighbours::join(k, parts.collect::<Result<_>>()?))
        })
    }

    #[cfg(test)]
    pub(crate) fn has_short_keys(&self) -> bool {
        self.store.is_short()
    }
}

impl PrototypeSearch for ExactSearch {
    fn count(&self) -> usize {
        self.store.count()
    }

    fn dimensions(&self) -> usize {
        self.store.dimensions
    }

    fn prototypes(&self) -> &[f32] {
        &self.store.rows
    }

    fn queries_per_task(&self) -> usize {
        QUERIES_PER_TASK
    }

    fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        let dimensions = self.dimensions();
        let queries_per_task = queries_per_task(queries.len() / dimensions, QUERIES_PER_TASK);
        let parts: Vec<Neighbours> = queries
            .par_chunks(queries_per_task * dimensions)
            .map(|queries| self.nearest_here(queries, k))
            .collect::<Result<_>>()?;
        Ok(Neighbours::join(k, parts))
    }

    fn nearest_alike(&self, queries: &[f32], groups: &[usize], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        check_groups(groups, queries.len() / self.dimensions())?;
        self.nearest_here(queries, k)
    }
}
