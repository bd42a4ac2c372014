//! Smooth radial bands of the spectrum, a partition of unity.
//!
//! With edges `e_1 < ... < e_{K-1}` and a transition width `t`, the rising step `s_i(r) = (1 + sin(pi u)) / 2`, `u = (r - e_i) / t` clamped to `[-1/2, 1/2]`,
//! and the bands `B_1 = 1 - s_1`, `B_k = s_{k-1} - s_k`, `B_K = s_{K-1}` add up to 1 at every radius `r`: raised-cosine flanks that telescope. The
//! radius is 1 at the Nyquist frequency of an axis, so bands depend on neither the size nor the aspect of the map; they
//! are even in frequency, so band maps of real maps are real.

use crate::error::{Error, Result};
use crate::frequency::{constant, polar_grid};
use candle_core::Tensor;
use std::f64::consts::PI;

/// Band responses `[K, height, width / 2 + 1]` on the half spectrum of `[height, width]` maps, from edges `[K - 1]`; differentiable in the edges.
pub(crate) fn responses(edges: &Tensor, softness: f64, height: usize, width: usize) -> Result<Tensor> {
    let columns = width / 2 + 1;
    let (radii, _) = polar_grid(height, width);
    let radii = constant(radii, (1, height, columns), edges)?;
    let inner = edges.dim(0)?;
    if inner == 0 {
        return Ok(radii.ones_like()?);
    }
    let offsets = radii.broadcast_sub(&edges.reshape((inner, 1, 1))?)?;
    let turns = offsets.affine(1.0 / softness, 0.0)?.clamp(-0.5, 0.5)?;
    let steps = turns.affine(PI, 0.0)?.sin()?.affine(0.5, 0.5)?;
    // Steps with the constant ones before the first and zeros after the last; bands are their differences.
    let ones = radii.ones_like()?;
    let upper = Tensor::cat(&[&ones, &steps], 0)?;
    let lower = Tensor::cat(&[&steps, &ones.zeros_like()?], 0)?;
    Ok(upper.sub(&lower)?)
}

/// Checks edges: strictly increasing inside `(0, 1)`.
pub(crate) fn check_edges(edges: &[f64]) -> Result<()> {
    let bounds = std::iter::once(0.0).chain(edges.iter().copied()).chain(std::iter::once(1.0));
    let increasing = bounds.clone().zip(bounds.skip(1)).all(|(a, b)| a < b);
    if increasing {
        Ok(())
    } else {
        Err(Error::argument("edges", edges, "use strictly increasing radii between 0 and 1 (Nyquist)"))
    }
}
