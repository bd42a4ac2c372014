//! Element-wise arithmetic in loops that [`masf_core::vectorised`] compiles for each instruction set.
//!
//! Sums run in lanes that are folded in a fixed order, and products are rounded before they are added, so the bits depend on
//! neither the vector unit nor the number of threads.

/// Partial sums that a loop keeps.
pub(crate) const LANES: usize = 16;

/// `exp(x)`, clamped to `[-87, 88]`: Cody and Waite's reduction and a polynomial of degree 6, within 2e-7 relative.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "the split of ln 2 is exact in these digits")]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_375) + n * 2.121_944_4e-4;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let power = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    p * f32::from_bits(power)
}

/// `sqrt(8 / pi)`: the slope of the sigmoid's argument at zero in the tanh form of GELU.
pub(crate) const GELU_SLOPE: f64 = 1.595_769_121_605_731;
/// The cubic term of the tanh form of GELU (Hendrycks and Gimpel 2016).
pub(crate) const GELU_CUBE: f64 = 0.044_715;

/// GELU in its tanh form: `x sigmoid(1.5958 (x + 0.044715 x^3))`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-(GELU_SLOPE as f32) * (x + GELU_CUBE as f32 * x * x * x)))
}

/// The derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s + x * s * (1.0 - s) * GELU_SLOPE as f32 * (1.0 + 3.0 * GELU_CUBE as f32 * x * x)
}

/// The sum of partial sums, halves on halves.
#[inline(always)]
pub(crate) fn fold(mut sums: [f32; LANES]) -> f32 {
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

/// The sum of a row.
#[inline(always)]
pub(crate) fn sum(row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    fold(sums) + rest.iter().sum::<f32>()
}

/// The product of two rows.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for (x, y) in a_blocks.iter().zip(b_blocks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    fold(sums) + a_rest.iter().zip(b_rest).fold(0.0, |sum, (x, y)| sum + x * y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_double_precision() {
        for step in -8700..8800 {
            let x = step as f32 * 0.01;
            assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 3e-7, "{x}");
        }
        let exact =
            |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + GELU_CUBE * x * x * x)).tanh());
        for step in -1000..1000 {
            let x = f64::from(step) * 0.01;
            assert!((f64::from(gelu(x as f32)) - exact(x)).abs() < 2e-6, "{x}");
            let slope = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            assert!((f64::from(gelu_slope(x as f32)) - slope).abs() < 1e-5, "{x}");
        }
    }

    #[test]
    fn sums_agree_with_double_precision() {
        for length in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..length).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..length).map(|i| (i as f32 * 1.3).cos()).collect();
            let exact: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5);
            assert!((f64::from(sum(&a)) - a.iter().map(|x| f64::from(*x)).sum::<f64>()).abs() < 1e-5);
        }
    }
}
