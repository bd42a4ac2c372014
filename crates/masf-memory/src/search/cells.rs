//! The inverted file: prototypes sorted into cells, of which a query visits the nearest.
//!
//! Cells are keyed by the descriptors, by vectors of another kind that come with them (spectral anchors), or by both
//! (Sivic and Zisserman, ICCV 2003; Jegou, Douze and Schmid, PAMI 2011). Within the visited cells the search is exact; with all
//! cells visited it is [`ExactSearch`](crate::ExactSearch), bit for bit.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::kmeans::{centres_of, members};
use super::scan::{Scratch, Store};
use super::{check_groups, check_prototypes, check_queries, queries_per_task};
use crate::spare::Spare;
use crate::{ExactSearch, MemoryError, Neighbours, PrototypeSearch, Result};

/// Queries of a task: the more, the more of them share a cell.
const QUERIES_PER_TASK: usize = 1024;

/// Hyper-parameters of a [`CellSearch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellParams {
    /// The number of cells; 0 is the square root of the number of prototypes.
    pub cells: usize,
    /// Cells that a query visits, at least 1; more where these hold fewer than `k` prototypes.
    pub visited: usize,
    /// The entries of a row that distances are taken of.
    pub distance: Range<usize>,
    /// The entries of a row that the cells are keyed by.
    pub key: Range<usize>,
    /// The seed of the clustering.
    pub seed: u64,
}

/// Search in the nearest cells.
#[derive(Clone)]
pub struct CellSearch {
    /// Whole rows; the store has the part that distances are taken of.
    rows: Option<Vec<f32>>,
    dimensions: usize,
    params: CellParams,
    centres: ExactSearch,
    /// The panels of every cell, and how many prototypes it holds.
    cells: Vec<(Range<usize>, usize)>,
    store: Store,
    scratch: Spare<Scratch>,
}

impl std::fmt::Debug for CellSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CellSearch")
            .field("count", &self.count())
            .field("dimensions", &self.dimensions)
            .field("params", &self.params)
            .finish()
    }
}

impl CellSearch {
    /// Sorts the prototypes `[n, dimensions]` into cells.
    ///
    /// # Errors
    /// As [`ExactSearch::new`], and [`MemoryError::Parameter`] for no visited cells or ranges beyond the row.
    pub fn new(prototypes: Vec<f32>, dimensions: usize, params: CellParams) -> Result<Self> {
        Self::with_centres(prototypes, dimensions, params, None)
    }

    /// As [`new`](Self::new), with the centres of the cells, `[cells, key]`, where they are known.
    pub(crate) fn with_centres(
        prototypes: Vec<f32>,
        dimensions: usize,
        params: CellParams,
        centres: Option<Vec<f32>>,
    ) -> Result<Self> {
        let count = check_prototypes(&prototypes, dimensions)?;
        for (name, range) in [("distance", &params.distance), ("key", &params.key)] {
            if range.is_empty() || range.end > dimensions {
                let expected = format!("some of the {dimensions} entries of a row");
                return Err(MemoryError::parameter(name, format!("{range:?}"), expected));
            }
        }
        if params.visited == 0 {
            return Err(MemoryError::parameter("visited", 0, "at least 1"));
        }
        let keys = columns(&prototypes, dimensions, &params.key);
        let centres = match centres {
            Some(centres) => ExactSearch::new(centres, params.key.len())?,
            None => {
                let wanted = if params.cells == 0 { count.isqrt() } else { params.cells };
                centres_of(&keys, params.key.len(), wanted, params.seed)?
            }
        };
        let members = members(&centres, &keys)?;
        drop(keys);
        let mut first = 0;
        let mut cells = Vec::with_capacity(members.len());
        for members in &members {
            let end = first + members.len().div_ceil(crate::panels::WIDTH);
            cells.push((first..end, members.len()));
            first = end;
        }
        let whole = params.distance == (0..dimensions);
        let part = if whole { None } else { Some(columns(&prototypes, dimensions, &params.distance).into_owned()) };
        let (rows, measured) = match part {
            Some(part) => (Some(prototypes), part),
            None => (None, prototypes),
        };
        let store = Store::new(measured, params.distance.len(), &members)?;
        Ok(Self { rows, dimensions, params, centres, cells, store, scratch: Spare::default() })
    }

    /// The number of cells, empty ones among them.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// The entries that cells are keyed by.
    pub(crate) fn key_dimensions(&self) -> usize {
        self.params.key.len()
    }

    /// The centres of the cells, `[cells, key]`.
    pub(crate) fn centres(&self) -> &[f32] {
        self.centres.prototypes()
    }

    /// Searches for checked queries, on this thread.
    fn nearest_here(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        self.scratch.with(|scratch| {
            let parts = queries.chunks(QUERIES_PER_TASK * self.dimensions).map(|queries| {
                self.search(queries, k, scratch)?;
                Ok(scratch.neighbours(k))
            });
            Ok(Neighbours::join(k, parts.collect::<Result<_>>()?))
        })
    }

    /// Visits the cells of some queries.
    fn search(&self, queries: &[f32], k: usize, scratch: &mut Scratch) -> Result<()> {
        let measured = columns(queries, self.dimensions, &self.params.distance);
        let keys = columns(queries, self.dimensions, &self.params.key);
        self.store.begin(&measured, scratch)?;
        let visited = self.params.visited.min(self.cells.len());
        if visited == self.cells.len() {
            return self.store.scan_all(&measured, k, scratch);
        }
        // The nearest cell first: what is found there rules out most of what the others hold.
        let mut first = vec![Vec::new(); self.cells.len()];
        let mut visitors = vec![Vec::new(); self.cells.len()];
        let nearest = self.centres.nearest_here(&keys, visited)?;
        for (query, cells) in nearest.indices.chunks_exact(visited).enumerate() {
            let mut held = 0;
            for (rank, cell) in cells.iter().enumerate() {
                let visitors = if rank == 0 { &mut first } else { &mut visitors };
                visitors[*cell as usize].push(query as u32);
                held += self.cells[*cell as usize].1;
            }
            if held < k {
                let key = &keys[query * self.params.key.len()..][..self.params.key.len()];
                let all = self.centres.nearest_here(key, self.cells.len())?;
                for cell in all.indices.into_iter().skip(visited) {
                    visitors[cell as usize].push(query as u32);
                    held += self.cells[cell as usize].1;
                    if held >= k {
                        break;
                    }
                }
            }
        }
        for visitors in [first, visitors] {
            for ((panels, _), visitors) in self.cells.iter().zip(&visitors) {
                if !visitors.is_empty() {
                    self.store.scan(panels.clone(), &measured, visitors, k, scratch);
                }
            }
        }
        Ok(())
    }
}

/// Some columns of rows; all of them are no copy.
fn columns<'a>(rows: &'a [f32], dimensions: usize, columns: &Range<usize>) -> Cow<'a, [f32]> {
    if *columns == (0..dimensions) {
        return Cow::Borrowed(rows);
    }
    Cow::Owned(rows.chunks_exact(dimensions).flat_map(|row| &row[columns.clone()]).copied().collect())
}

impl PrototypeSearch for CellSearch {
    fn count(&self) -> usize {
        self.store.count()
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn prototypes(&self) -> &[f32] {
        self.rows.as_deref().unwrap_or(&self.store.rows)
    }

    fn queries_per_task(&self) -> usize {
        QUERIES_PER_TASK
    }

    fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        let queries_per_task = queries_per_task(queries.len() / self.dimensions, QUERIES_PER_TASK);
        let parts: Vec<Neighbours> = queries
            .par_chunks(queries_per_task * self.dimensions)
            .map(|queries| self.nearest_here(queries, k))
            .collect::<Result<_>>()?;
        Ok(Neighbours::join(k, parts))
    }

    fn nearest_alike(&self, queries: &[f32], groups: &[usize], k: usize) -> Result<Neighbours> {
        check_queries(self, queries, k)?;
        check_groups(groups, queries.len() / self.dimensions)?;
        self.nearest_here(queries, k)
    }
}
