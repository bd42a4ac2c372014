//! Single-precision matrix products on slices (the crate `gemm`, on the calling thread).
#![allow(unsafe_code)]

/// A matrix in a slice; element `(r, c)` is at `r * row_step + c * column_step`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row, as many as there are.
    pub(super) fn new(data: &'a [f32], columns: usize) -> Self {
        Self { data, rows: data.len() / columns.max(1), columns, row_step: columns, column_step: 1 }
    }

    /// The transpose.
    pub(super) fn transposed(self) -> Self {
        let Self { data, rows, columns, row_step, column_step } = self;
        Self { data, rows: columns, columns: rows, row_step: column_step, column_step: row_step }
    }

    fn fits(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_step + (self.columns - 1) * self.column_step < self.data.len()
    }
}

/// `out = a b`, or `out += a b`; `out` is row-major.
///
/// # Panics
/// If the shapes do not fit together; they are the layer's own.
pub(super) fn multiply(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: bool) {
    assert!(a.columns == b.rows && out.len() == a.rows * b.columns && a.fits() && b.fits(), "shapes of a product");
    // SAFETY: all elements that the steps reach lie inside the three slices, as just checked; `out` is exclusive.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.column_step as isize,
            b.row_step as isize,
            if accumulate { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
