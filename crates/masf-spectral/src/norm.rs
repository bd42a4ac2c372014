//! Normalisation conventions, named as in NumPy and `torch.fft`.

/// Which direction of a transform carries the factor `1/N` (`N`: number of points of the transform).
///
/// The forward transform is `X[k] = s_f sum_n x[n] exp(-2 pi i k n / N)`, the inverse is
/// `x[n] = s_b sum_k X[k] exp(+2 pi i k n / N)`, with `s_f s_b = 1/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Norm {
    /// Forward unscaled, inverse `1/N`: the default of NumPy and PyTorch, and of this crate.
    #[default]
    Backward,
    /// Both directions `1/sqrt(N)`: the transform is unitary and keeps energies.
    Ortho,
    /// Forward `1/N`, inverse unscaled.
    Forward,
}

impl Norm {
    /// Factor of the forward transform over `points` points.
    pub fn forward_scale(self, points: usize) -> f64 {
        match self {
            Norm::Backward => 1.0,
            Norm::Ortho => 1.0 / (points as f64).sqrt(),
            Norm::Forward => 1.0 / points as f64,
        }
    }

    /// Factor of the inverse transform over `points` points.
    pub fn inverse_scale(self, points: usize) -> f64 {
        match self {
            Norm::Backward => 1.0 / points as f64,
            Norm::Ortho => 1.0 / (points as f64).sqrt(),
            Norm::Forward => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_scales_multiply_to_one_over_n() {
        for norm in [Norm::Backward, Norm::Ortho, Norm::Forward] {
            for points in [1, 2, 7, 4096] {
                let product = norm.forward_scale(points) * norm.inverse_scale(points);
                assert!((product * points as f64 - 1.0).abs() < 1e-15);
            }
        }
    }
}
