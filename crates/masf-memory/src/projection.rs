//! Seeded Gaussian random projection (Johnson and Lindenstrauss 1984): distances survive it up to a small relative error.

use masf_core::random_stream;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;

use crate::{MemoryError, Result};

/// Rows of one matrix product; fixed, so that every row is computed in the same way whatever the number of rows.
const ROWS: usize = 64;

/// A linear map to fewer dimensions with independent Gaussian entries of variance 1 / `output`.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomProjection {
    /// `[input, output]`, row-major.
    matrix: Vec<f32>,
    input: usize,
    output: usize,
}

impl RandomProjection {
    /// The projection of a seed.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if a dimension is zero or their product overflows.
    pub fn new(input: usize, output: usize, seed: u64) -> Result<Self> {
        let count = input.checked_mul(output).filter(|count| *count > 0);
        let Some(count) = count else {
            return Err(MemoryError::parameter("projection", format!("{input} -> {output}"), "positive dimensions"));
        };
        let mut random = random_stream(seed, "memory.projection");
        let deviation = 1.0 / (output as f64).sqrt();
        let mut entry = || {
            let value: f64 = StandardNormal.sample(&mut random);
            (value * deviation) as f32
        };
        Ok(Self { matrix: (0..count).map(|_| entry()).collect(), input, output })
    }

    /// Dimensions after the projection.
    pub fn output(&self) -> usize {
        self.output
    }

    /// Projects rows `[n, input]` to `[n, output]`; the bits of a row do not depend on the others or on the number of threads.
    ///
    /// # Errors
    /// [`MemoryError::Dimensions`] if `rows` is no whole number of rows.
    pub fn apply(&self, rows: &[f32]) -> Result<Vec<f32>> {
        if !rows.len().is_multiple_of(self.input) {
            return Err(MemoryError::Dimensions { what: "rows", found: rows.len(), dimensions: self.input });
        }
        let product = GemmExecutor::<f32>::new();
        let packed = product.prepack_b(NdTensorView::from_data([self.input, self.output], self.matrix.as_slice()));
        let mut out = vec![0.0; rows.len() / self.input * self.output];
        out.par_chunks_mut(ROWS * self.output).zip(rows.par_chunks(ROWS * self.input)).try_for_each(
            |(out, rows)| {
                let rows = NdTensorView::from_data([rows.len() / self.input, self.input], rows);
                product.gemm(out, GemmInputA::Unpacked(rows), GemmInputB::Packed(&packed), GemmOptions::default())
            },
        )?;
        Ok(out)
    }
}
