//! Between rows in memory and tiles of registers: lane `l` of a tile's vector `k` is element `k` of row `l`.

/// Copies a row into one lane of a tile with `lanes` lanes.
#[inline(always)]
pub(super) fn put<T: Copy>(row: impl Iterator<Item = T>, tile: &mut [T], lane: usize, lanes: usize) {
    for (vector, value) in tile.chunks_exact_mut(lanes).zip(row) {
        vector[lane] = value;
    }
}

/// Copies one lane of a tile into a row.
#[inline(always)]
pub(super) fn take<'a, T: Copy + 'a>(row: impl Iterator<Item = &'a mut T>, tile: &[T], lane: usize, lanes: usize) {
    for (value, vector) in row.zip(tile.chunks_exact(lanes)) {
        *value = vector[lane];
    }
}
