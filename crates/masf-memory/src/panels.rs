//! Squared distances of many queries to many rows, as one matrix product that ends in the comparison.
//!
//! Rows are packed into panels of [`WIDTH`], queries into tiles of [`TILE`]; the kernel keeps a tile of sums in registers
//! and starts from the squared norms of the rows, so that its results are `|p|^2 - 2 q.p`, the squared distance but for
//! the query's own squared norm. Nothing but one tile of results is ever written to memory.

use masf_core::vectorised;
use pulp::{Arch, Simd, WithSimd};

use crate::lanes::squared_norm;

/// Rows of a panel.
pub(crate) const WIDTH: usize = 64;
/// Queries of a tile: with the panel's four vectors of AVX-512 24 sums, the other eight registers hold the operands.
pub(crate) const TILE: usize = 6;

/// Packed rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panels {
    /// `[panels, dimensions, WIDTH]`; zeros fill the last panel.
    values: Vec<f32>,
    /// Squared norms; infinite where there is no row, so that no query comes near.
    squared_norms: Vec<f32>,
    dimensions: usize,
}

impl Panels {
    /// Room for `places` rows of length `dimensions`, at least 1; all places are empty.
    pub(crate) fn new(places: usize, dimensions: usize) -> Self {
        let panels = places.div_ceil(WIDTH);
        Self {
            values: vec![0.0; panels * WIDTH * dimensions],
            squared_norms: vec![f32::INFINITY; panels * WIDTH],
            dimensions,
        }
    }

    /// Empties all places.
    pub(crate) fn clear(&mut self) {
        self.values.fill(0.0);
        self.squared_norms.fill(f32::INFINITY);
    }

    /// Puts a row into a place.
    pub(crate) fn set(&mut self, place: usize, row: &[f32]) {
        self.set_with_norm(
            place,
            row,
            vectorised(
                #[inline(always)]
                || squared_norm(row),
            ),
        );
    }

    /// Puts a row into a place, with another squared norm than its own.
    pub(crate) fn set_with_norm(&mut self, place: usize, row: &[f32], squared_norm: f32) {
        self.squared_norms[place] = squared_norm;
        let start = place / WIDTH * WIDTH * self.dimensions + place % WIDTH;
        for (target, value) in self.values[start..].iter_mut().step_by(WIDTH).zip(row) {
            *target = *value;
        }
    }

    /// The number of panels.
    pub(crate) fn len(&self) -> usize {
        self.squared_norms.len() / WIDTH
    }

    /// For every query and every row of a panel `|p|^2 - 2 q.p`: `[places of the queries, WIDTH]`.
    pub(crate) fn products(&self, panel: usize, queries: &Tiles, out: &mut [f32]) {
        let size = WIDTH * self.dimensions;
        Arch::new().dispatch(Products {
            panel: &self.values[panel * size..(panel + 1) * size],
            start: &self.squared_norms[panel * WIDTH..(panel + 1) * WIDTH],
            queries: &queries.values,
            dimensions: self.dimensions,
            out,
        });
    }
}

/// Packed queries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tiles {
    /// `[tiles, dimensions, TILE]`, times -2; zeros fill the last tile.
    values: Vec<f32>,
    places: usize,
}

impl Tiles {
    /// Packs rows of length `dimensions`, at least 1.
    pub(crate) fn pack<'a>(&mut self, rows: impl ExactSizeIterator<Item = &'a [f32]>, dimensions: usize) {
        self.places = rows.len().div_ceil(TILE) * TILE;
        self.values.clear();
        self.values.resize(self.places * dimensions, 0.0);
        for (index, row) in rows.enumerate() {
            let start = index / TILE * TILE * dimensions + index % TILE;
            for (target, value) in self.values[start..].iter_mut().step_by(TILE).zip(row) {
                *target = -2.0 * value;
            }
        }
    }

    /// The number of queries, with those that fill the last tile.
    pub(crate) fn places(&self) -> usize {
        self.places
    }
}

struct Products<'a> {
    panel: &'a [f32],
    start: &'a [f32],
    queries: &'a [f32],
    dimensions: usize,
    out: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let tiles = self.queries.chunks_exact(TILE * self.dimensions);
        for (tile, out) in tiles.zip(self.out.chunks_exact_mut(TILE * WIDTH)) {
            if S::F32_LANES == 16 {
                strip::<S, 4>(simd, self.panel, self.start, 0, tile, out);
            } else {
                for strip_index in 0..WIDTH / (2 * S::F32_LANES) {
                    strip::<S, 2>(simd, self.panel, self.start, 2 * strip_index, tile, out);
                }
            }
        }
    }
}

/// `VECTORS` vectors of a panel, from vector `first` on, with one tile.
#[inline(always)]
fn strip<S: Simd, const VECTORS: usize>(
    simd: S,
    panel: &[f32],
    start: &[f32],
    first: usize,
    tile: &[f32],
    out: &mut [f32],
) {
    let vectors = first..first + VECTORS;
    let mut row = [simd.splat_f32s(0.0); VECTORS];
    row.copy_from_slice(&S::as_simd_f32s(start).0[vectors.clone()]);
    let mut sums = [row; TILE];
    for (line, query) in panel.as_chunks::<WIDTH>().0.iter().zip(tile.as_chunks::<TILE>().0) {
        let line = &S::as_simd_f32s(line).0[vectors.clone()];
        for (sums, value) in sums.iter_mut().zip(query) {
            let value = simd.splat_f32s(*value);
            for (sum, line) in sums.iter_mut().zip(line) {
                *sum = simd.mul_add_e_f32s(value, *line, *sum);
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(WIDTH).zip(sums) {
        S::as_mut_simd_f32s(out).0[vectors.clone()].copy_from_slice(&sums);
    }
}

#[cfg(test)]
mod tests {
    use masf_core::random_stream;
    use rand::Rng;

    use super::*;

    #[test]
    fn products_are_those_in_double_precision() {
        let mut random = random_stream(1, "test.panels");
        for (rows, queries, dimensions) in [(1, 1, 1), (64, 6, 7), (130, 13, 33), (70, 5, 200)] {
            let mut draw = |count: usize| (0..count).map(|_| random.random_range(-1f32..1.0)).collect::<Vec<f32>>();
            let (p, q) = (draw(rows * dimensions), draw(queries * dimensions));
            let mut panels = Panels::new(rows, dimensions);
            for (place, row) in p.chunks_exact(dimensions).enumerate() {
                panels.set(place, row);
            }
            let mut tiles = Tiles::default();
            tiles.pack(q.chunks_exact(dimensions), dimensions);
            let mut out = vec![0.0; tiles.places() * WIDTH];
            for panel in 0..panels.len() {
                panels.products(panel, &tiles, &mut out);
                for (query, values) in q.chunks_exact(dimensions).zip(out.chunks_exact(WIDTH)) {
                    for (value, index) in values.iter().zip(panel * WIDTH..) {
                        let Some(row) = p.chunks_exact(dimensions).nth(index) else {
                            assert_eq!(*value, f32::INFINITY);
                            continue;
                        };
                        let dot: f64 = query.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                        let norm: f64 = row.iter().map(|a| f64::from(*a).powi(2)).sum();
                        assert!((f64::from(*value) - (norm - 2.0 * dot)).abs() < 1e-4 * (1.0 + norm));
                    }
                }
            }
        }
    }
}
