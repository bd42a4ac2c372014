//! Distances of vectors, with the same bits on every processor.
//!
//! Sums run in 32 lanes that are folded pairwise in a fixed order, and products are rounded before they are added (no
//! fused multiply-add), so the result does not depend on the width of the vector unit. The functions are inlined into
//! loops that [`masf_core::vectorised`] compiles for each instruction set.

/// Partial sums that a loop keeps.
const LANES: usize = 32;

/// Squared Euclidean distance of two vectors of one length; the shorter length counts otherwise.
#[inline(always)]
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        accumulate(&mut sums, x, y);
    }
    fold(sums) + rest(a_rest, b_rest)
}

/// Squared Euclidean distance where it is below `bound`; otherwise `bound` or more, not necessarily the distance.
///
/// Partial sums never decrease, rounded or not, so a vector that is given up could not have come below the bound.
#[inline(always)]
pub(crate) fn squared_distance_below(a: &[f32], b: &[f32], bound: f32) -> f32 {
    /// Blocks between two looks at the bound.
    const STRETCH: usize = 2;
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (x, y) in a_blocks.chunks(STRETCH).zip(b_blocks.chunks(STRETCH)) {
        for (x, y) in x.iter().zip(y) {
            accumulate(&mut sums, x, y);
        }
        let partial = fold(sums);
        if partial >= bound {
            return partial;
        }
    }
    fold(sums) + rest(a_rest, b_rest)
}

/// Squared Euclidean norm.
#[inline(always)]
pub(crate) fn squared_norm(a: &[f32]) -> f32 {
    let (blocks, rest) = a.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for x in blocks {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    fold(sums) + rest.iter().fold(0.0, |sum, x| sum + x * x)
}

#[inline(always)]
fn accumulate(sums: &mut [f32; LANES], x: &[f32; LANES], y: &[f32; LANES]) {
    for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
        let difference = x - y;
        *sum += difference * difference;
    }
}

#[inline(always)]
fn rest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (x, y)| sum + (x - y) * (x - y))
}

#[inline(always)]
fn fold(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn distances_agree_with_double_precision_and_each_other(
            pairs in proptest::collection::vec((-9f32..9.0, -9f32..9.0), 0..200), bound in 0f32..1e4
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let distance = squared_distance(&a, &b);
            prop_assert!((f64::from(distance) - exact).abs() <= 1e-5 * exact);
            let zeros = vec![0.0; a.len()];
            prop_assert_eq!(squared_norm(&a).to_bits(), squared_distance(&a, &zeros).to_bits());
            let bounded = squared_distance_below(&a, &b, bound);
            if distance < bound {
                prop_assert_eq!(bounded.to_bits(), distance.to_bits());
            } else {
                prop_assert!(bounded >= bound);
            }
        }
    }
}
