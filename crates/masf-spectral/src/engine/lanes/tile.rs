//! Between rows in memory and tiles of registers: lane `l` of a tile's vector `k` is element `k` of row `l`.
//!
//! Whole blocks are transposed in registers, what is left over goes element by element. With two parts, element `k` of a row belongs to vector
//! `k / 2` of part `k % 2`.

use super::wide::{MAX_LANES, Wide};
use crate::engine::plans::Sample;

/// Where the rows of a tile begin; only the first `count` are rows of a map.
pub(super) struct Rows {
    pub(super) starts: [usize; MAX_LANES],
    pub(super) count: usize,
}

/// Loads rows of `length` elements. Lanes beyond the rows repeat the first one.
#[inline(always)]
pub(super) fn load<T: Sample, S: Wide, const P: usize>(
    simd: S,
    data: &[T],
    rows: &Rows,
    length: usize,
    parts: [&mut [T]; P],
) {
    let lanes = T::lanes::<S>();
    let mut block = [T::splat(simd, T::zero()); MAX_LANES];
    let whole = length - length % lanes;
    let mut at = 0;
    while at < whole {
        for lane in 0..lanes {
            let start = rows.starts[if lane < rows.count { lane } else { 0 }] + at;
            block[lane] = T::vectors::<S>(&data[start..start + lanes])[0];
        }
        T::transpose(simd, &mut block);
        for i in 0..lanes {
            let vector = (at + i) / P * lanes;
            T::vectors_mut::<S>(&mut parts[(at + i) % P][vector..vector + lanes])[0] = block[i];
        }
        at += lanes;
    }
    for lane in 0..rows.count {
        let row = &data[rows.starts[lane]..rows.starts[lane] + length];
        for k in whole..length {
            parts[k % P][k / P * lanes + lane] = row[k];
        }
    }
}

/// Stores rows of `length` elements.
#[inline(always)]
pub(super) fn store<T: Sample, S: Wide, const P: usize>(
    simd: S,
    parts: [&[T]; P],
    data: &mut [T],
    rows: &Rows,
    length: usize,
) {
    let lanes = T::lanes::<S>();
    let mut block = [T::splat(simd, T::zero()); MAX_LANES];
    let whole = length - length % lanes;
    let mut at = 0;
    while at < whole {
        for i in 0..lanes {
            let vector = (at + i) / P * lanes;
            block[i] = T::vectors::<S>(&parts[(at + i) % P][vector..vector + lanes])[0];
        }
        T::transpose(simd, &mut block);
        for lane in 0..rows.count {
            let start = rows.starts[lane] + at;
            T::vectors_mut::<S>(&mut data[start..start + lanes])[0] = block[lane];
        }
        at += lanes;
    }
    for lane in 0..rows.count {
        let row = &mut data[rows.starts[lane]..rows.starts[lane] + length];
        for k in whole..length {
            row[k] = parts[k % P][k / P * lanes + lane];
        }
    }
}
