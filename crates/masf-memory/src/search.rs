//! Exact nearest-neighbour search: a matrix product as a filter, direct distances as the judge.
//!
//! `||q - p||^2 = ||q||^2 - 2 q.p + ||p||^2` turns all distances of a chunk of queries into one matrix product, but it
//! cancels: its error is that of the norms, not of the distance. So the product only sorts out. Its rounding error is at
//! most `(d + 32) u (||q|| + ||p||)^2` with `u = 2^-24` (Higham, Accuracy and Stability of Numerical Algorithms, section
//! 3.1), hence every prototype that could be nearest lies within twice that of the smallest product, and those few are
//! measured directly. The result is that of comparing all direct distances: a query that equals a prototype has distance
//! exactly 0, ties go to the lowest index, and the bits depend neither on the batch nor on the threads nor on the
//! processor's matrix kernel.

use pulp::Arch;
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::coreset::check_magnitude;
use crate::lanes::{squared_distance, squared_norm};
use crate::{MemoryError, Result};

/// Queries of one matrix product.
pub(crate) const QUERIES_PER_CHUNK: usize = 64;
/// Prototypes of one matrix product: with 64 queries its result (64 KiB) stays in the cache until it is read.
/// Measured against 128, 512, 1024 and all of 4000: 76 GFLOP/s against 76, 76, 72 and 65 (1024 x 128 x 4000, two threads).
const PROTOTYPES_PER_BLOCK: usize = 256;

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

/// A way to find the prototypes nearest to a query.
pub trait PrototypeSearch: Send + Sync {
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
}

/// Exact search among all prototypes.
///
/// Memory: the prototypes twice (row by row, and packed for the matrix product), and 64 KiB a thread.
pub struct ExactSearch {
    rows: Vec<f32>,
    dimensions: usize,
    blocks: Vec<Block>,
    /// The largest norm of a prototype.
    norm: f32,
}

/// Some consecutive prototypes.
struct Block {
    first: usize,
    packed: PackedBMatrix<f32>,
    squared_norms: Vec<f32>,
}

impl std::fmt::Debug for ExactSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExactSearch").field("count", &self.count()).field("dimensions", &self.dimensions).finish()
    }
}

impl ExactSearch {
    /// Search among the prototypes `[n, dimensions]`.
    ///
    /// # Errors
    /// [`MemoryError::Dimensions`] for no whole number of prototypes, [`MemoryError::Parameter`] for none or for more
    /// than 32 bits can number, [`MemoryError::Magnitude`] for one that is not finite.
    pub fn new(prototypes: Vec<f32>, dimensions: usize) -> Result<Self> {
        if dimensions == 0 || !prototypes.len().is_multiple_of(dimensions) {
            return Err(MemoryError::Dimensions { what: "prototypes", found: prototypes.len(), dimensions });
        }
        let count = prototypes.len() / dimensions;
        if count == 0 || count > u32::MAX as usize {
            return Err(MemoryError::parameter("number of prototypes", count, "1 to 4294967295"));
        }
        check_magnitude("prototype", &prototypes, dimensions)?;
        let product = GemmExecutor::<f32>::new();
        let mut blocks = Vec::with_capacity(count.div_ceil(PROTOTYPES_PER_BLOCK));
        let mut largest = 0f32;
        for (index, rows) in prototypes.chunks(PROTOTYPES_PER_BLOCK * dimensions).enumerate() {
            let squared_norms: Vec<f32> = rows.chunks_exact(dimensions).map(squared_norm).collect();
            largest = squared_norms.iter().copied().fold(largest, f32::max);
            let view = NdTensorView::from_data([rows.len() / dimensions, dimensions], rows);
            let packed = product.prepack_b(view.transposed());
            blocks.push(Block { first: index * PROTOTYPES_PER_BLOCK, packed, squared_norms });
        }
        Ok(Self { rows: prototypes, dimensions, blocks, norm: largest.sqrt() })
    }

    /// The prototype of an index that the search gave.
    pub(crate) fn prototype(&self, index: u32) -> &[f32] {
        let start = index as usize * self.dimensions;
        &self.rows[start..start + self.dimensions]
    }

    /// Searches for at most [`QUERIES_PER_CHUNK`] checked queries on this thread.
    pub(crate) fn nearest_of_chunk(&self, queries: &[f32], k: usize, scratch: &mut Scratch) -> Result<Neighbours> {
        // Costs nothing to make, and cannot be kept: it is not `Send`.
        let product = GemmExecutor::<f32>::new();
        let count = queries.len() / self.dimensions;
        scratch.prepare(count);
        let rounding = (self.dimensions + 32) as f32 * f32::EPSILON / 2.0;
        for (shortlist, query) in scratch.shortlists.iter_mut().zip(queries.chunks_exact(self.dimensions)) {
            let reach = squared_norm(query).sqrt() + self.norm;
            // Twice the error of the product, and a share for the rounding of the direct distances.
            // The last term covers results so small that rounding is no longer relative.
            shortlist.margin = 4.0 * rounding * reach * reach + self.dimensions as f32 * f32::MIN_POSITIVE;
        }
        let view = NdTensorView::from_data([count, self.dimensions], queries);
        for block in &self.blocks {
            let width = block.squared_norms.len();
            let values = &mut scratch.values[..count * width];
            let bias = Some(BiasVector::Row(block.squared_norms.as_slice()));
            let options = GemmOptions { alpha: -2.0, bias, ..GemmOptions::default() };
            product.gemm(values, GemmInputA::Unpacked(view), GemmInputB::Packed(&block.packed), options)?;
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (shortlist, values) in scratch.shortlists.iter_mut().zip(values.chunks_exact(width)) {
                        shortlist.consider(values, block.first, k);
                    }
                },
            );
        }
        let mut found =
            Neighbours { k, indices: Vec::with_capacity(count * k), distances: Vec::with_capacity(count * k) };
        for (shortlist, query) in scratch.shortlists.iter_mut().zip(queries.chunks_exact(self.dimensions)) {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (value, index) in &mut shortlist.entries {
                        *value = squared_distance(query, self.prototype(*index));
                    }
                },
            );
            shortlist.entries.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (value, index) in shortlist.entries.iter().take(k) {
                found.indices.push(*index);
                found.distances.push(value.sqrt());
            }
        }
        Ok(found)
    }
}

impl PrototypeSearch for ExactSearch {
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
        if k == 0 || k > self.count() {
            return Err(MemoryError::parameter("k", k, format!("1 to the {} prototypes of the bank", self.count())));
        }
        if !queries.len().is_multiple_of(self.dimensions) {
            let dimensions = self.dimensions;
            return Err(MemoryError::Dimensions { what: "queries", found: queries.len(), dimensions });
        }
        check_magnitude("query", queries, self.dimensions)?;
        let chunks: Vec<Neighbours> = queries
            .par_chunks(QUERIES_PER_CHUNK * self.dimensions)
            .map_init(Scratch::default, |scratch, queries| self.nearest_of_chunk(queries, k, scratch))
            .collect::<Result<_>>()?;
        let mut found = Neighbours { k, ..Neighbours::default() };
        for chunk in chunks {
            found.indices.extend(chunk.indices);
            found.distances.extend(chunk.distances);
        }
        Ok(found)
    }
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    values: Vec<f32>,
    shortlists: Vec<Shortlist>,
}

impl Scratch {
    fn prepare(&mut self, count: usize) {
        self.values.resize(QUERIES_PER_CHUNK.max(count) * PROTOTYPES_PER_BLOCK, 0.0);
        self.shortlists.resize_with(count, Shortlist::default);
        for shortlist in &mut self.shortlists {
            shortlist.entries.clear();
            shortlist.limit = f32::INFINITY;
        }
    }
}

/// The prototypes that may be among the nearest of a query.
#[derive(Debug, Default)]
struct Shortlist {
    /// Value of the product (later squared distance) and index.
    entries: Vec<(f32, u32)>,
    /// Values above this are out.
    limit: f32,
    /// How far the product of a nearest prototype may lie above the k-th smallest.
    margin: f32,
}

impl Shortlist {
    /// Takes in the values of consecutive prototypes.
    #[inline(always)]
    fn consider(&mut self, values: &[f32], first: usize, k: usize) {
        let least = smallest(values);
        if least > self.limit {
            return;
        }
        if k == 1 {
            self.limit = self.limit.min(least + self.margin);
        }
        for (value, index) in values.iter().zip(first as u32..) {
            if *value <= self.limit {
                self.entries.push((*value, index));
            }
        }
        if self.entries.len() > k {
            let (_, kth, _) = self.entries.select_nth_unstable_by(k - 1, |a, b| a.0.total_cmp(&b.0));
            self.limit = kth.0 + self.margin;
            let limit = self.limit;
            self.entries.retain(|entry| entry.0 <= limit);
        }
    }
}

/// The smallest value, in lanes.
#[inline(always)]
fn smallest(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::INFINITY; 16];
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = if *value < *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::INFINITY, f32::min)
}

#[cfg(test)]
mod tests;
