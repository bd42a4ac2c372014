//! Linear maps to fewer dimensions: seeded Gaussian projections, and the principal components of [`pca`](crate::pca).

use masf_core::random_stream;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::{MemoryError, Result};

/// Rows of one matrix product.
const ROWS: usize = 64;

/// A linear map of descriptors to fewer dimensions.
///
/// Memory: its matrix twice, row by row and packed for the matrix product.
#[derive(Clone)]
pub struct LinearMap {
    /// `[input, output]`, row-major.
    matrix: Vec<f32>,
    packed: PackedBMatrix<f32>,
    input: usize,
    output: usize,
}

impl std::fmt::Debug for LinearMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinearMap").field("input", &self.input).field("output", &self.output).finish()
    }
}

impl LinearMap {
    /// The map of a matrix `[input, output]`, row-major.
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if a dimension is zero, the matrix has another length or a value is not finite.
    pub fn new(matrix: Vec<f32>, input: usize, output: usize) -> Result<Self> {
        let wrong =
            |value: String| MemoryError::parameter("linear map", value, "positive dimensions and finite values");
        if input == 0 || output == 0 || input.checked_mul(output) != Some(matrix.len()) {
            return Err(wrong(format!("{input} -> {output} with {} values", matrix.len())));
        }
        if let Some(value) = matrix.iter().find(|value| !value.is_finite()) {
            return Err(wrong(format!("{input} -> {output} with a value of {value}")));
        }
        let view = NdTensorView::from_data([input, output], matrix.as_slice());
        let packed = GemmExecutor::<f32>::new().prepack_b(view);
        Ok(Self { matrix, packed, input, output })
    }

    /// A Gaussian random projection: independent entries of mean 0 and variance `1 / output`, drawn from a stream.
    ///
    /// Distances survive it up to a small relative error (Johnson and Lindenstrauss 1984).
    ///
    /// # Errors
    /// [`MemoryError::Parameter`] if a dimension is zero or their product overflows.
    pub fn random(input: usize, output: usize, seed: u64, purpose: &str) -> Result<Self> {
        let Some(count) = input.checked_mul(output).filter(|count| *count > 0) else {
            return Err(MemoryError::parameter("linear map", format!("{input} -> {output}"), "positive dimensions"));
        };
        let mut random = random_stream(seed, purpose);
        let deviation = 1.0 / (output as f64).sqrt();
        let mut entry = || {
            let value: f64 = StandardNormal.sample(&mut random);
            (value * deviation) as f32
        };
        Self::new((0..count).map(|_| entry()).collect(), input, output)
    }

    /// Dimensions before the map.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Dimensions after the map.
    pub fn output(&self) -> usize {
        self.output
    }

    /// The matrix `[input, output]`, row-major.
    pub fn matrix(&self) -> &[f32] {
        &self.matrix
    }

    /// Maps rows `[n, input]` to `[n, output]`; the bits of a row do not depend on the others or on the number of threads.
    ///
    /// # Errors
    /// [`MemoryError::Dimensions`] if `rows` is no whole number of rows.
    pub fn apply(&self, rows: &[f32]) -> Result<Vec<f32>> {
        if !rows.len().is_multiple_of(self.input) {
            return Err(MemoryError::Dimensions { what: "rows", found: rows.len(), dimensions: self.input });
        }
        let mut out = vec![0.0; rows.len() / self.input * self.output];
        out.par_chunks_mut(ROWS * self.output)
            .zip(rows.par_chunks(ROWS * self.input))
            .try_for_each(|(out, rows)| self.apply_to(rows, out))?;
        Ok(out)
    }

    /// Maps `input` columns of rows of length `dimensions`, from column `first` on.
    pub(crate) fn apply_to_columns(
        &self,
        rows: &[f32],
        dimensions: usize,
        first: usize,
        out: &mut [f32],
    ) -> Result<()> {
        let rows = NdTensorView::from_data([rows.len() / dimensions, dimensions], rows);
        let rows = rows.slice((.., first..first + self.input));
        let (a, b) = (GemmInputA::Unpacked(rows), GemmInputB::Packed(&self.packed));
        Ok(GemmExecutor::<f32>::new().gemm(out, a, b, GemmOptions::default())?)
    }

    /// Maps whole rows to an `out` of the fitting length.
    pub(crate) fn apply_to(&self, rows: &[f32], out: &mut [f32]) -> Result<()> {
        let rows = NdTensorView::from_data([rows.len() / self.input, self.input], rows);
        // A packed right side: one row takes the same path as many.
        let (a, b) = (GemmInputA::Unpacked(rows), GemmInputB::Packed(&self.packed));
        Ok(GemmExecutor::<f32>::new().gemm(out, a, b, GemmOptions::default())?)
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn rows_do_not_depend_on_each_other() -> Result<()> {
        for (input, output) in [(700, 128), (5, 3), (300, 1), (257, 100)] {
            let map = LinearMap::random(input, output, 3, "test")?;
            let mut random = random_stream(1, "test.rows");
            let rows: Vec<f32> = (0..131 * input).map(|_| random.random_range(-1.0..1.0)).collect();
            let together = map.apply(&rows)?;
            for (row, expected) in rows.chunks(input).zip(together.chunks(output)) {
                assert_eq!(map.apply(row)?, expected);
            }
        }
        Ok(())
    }

    #[test]
    fn random_projections_keep_distances() -> Result<()> {
        let map = LinearMap::random(1000, 500, 0, "test")?;
        let mut random = random_stream(1, "test.rows");
        for _ in 0..20 {
            let row: Vec<f32> = (0..1000).map(|_| random.random_range(-1.0..1.0)).collect();
            let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
            let ratio = norm(&map.apply(&row)?) / norm(&row);
            // The deviation of the ratio is 1 / sqrt(2 x 500) = 0.03.
            assert!((ratio - 1.0).abs() < 0.15, "{ratio}");
        }
        Ok(())
    }

    #[test]
    fn bad_arguments_are_named() -> Result<()> {
        assert!(LinearMap::random(0, 3, 0, "test").is_err());
        assert!(LinearMap::random(usize::MAX, 3, 0, "test").is_err());
        assert!(LinearMap::new(vec![0.0; 5], 2, 3).is_err());
        assert!(LinearMap::new(vec![f32::NAN; 6], 2, 3).is_err());
        assert!(LinearMap::new(vec![0.0; 6], 2, 3)?.apply(&[0.0; 5]).is_err());
        Ok(())
    }
}
