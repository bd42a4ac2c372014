//! Cholesky factors in packed form: the rows of the lower triangle, one after another.

/// Values of the lower triangle of a matrix of `n` rows.
pub(super) const fn packed_len(n: usize) -> usize {
    n * (n + 1) / 2
}

/// Replaces a symmetric matrix, its lower triangle packed, by its Cholesky factor.
///
/// # Errors
/// Index and value of the first pivot that is not positive and finite.
pub(super) fn factorise(matrix: &mut [f64], n: usize) -> Result<(), (usize, f64)> {
    for i in 0..n {
        let (done, rest) = matrix.split_at_mut(packed_len(i));
        let row = &mut rest[..=i];
        for j in 0..i {
            let other = &done[packed_len(j)..packed_len(j + 1)];
            let sum: f64 = row[..j].iter().zip(other).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - sum) / other[j];
        }
        let pivot = row[i] - row[..i].iter().map(|value| value * value).sum::<f64>();
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err((i, pivot));
        }
        row[i] = pivot.sqrt();
    }
    Ok(())
}

/// The norm of the solution `z` of `L z = x`, with `x` replaced by `z`.
pub(super) fn solved_norm(factor: &[f32], x: &mut [f32]) -> f32 {
    let mut row_start = 0;
    for i in 0..x.len() {
        let row = &factor[row_start..=row_start + i];
        let (known, rest) = x.split_at_mut(i);
        rest[0] = (rest[0] - dot(&row[..i], known)) / row[i];
        row_start += i + 1;
    }
    x.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// A dot product in eight partial sums, which compilers vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_the_matrix_back() {
        let n = 19;
        let root = |i: usize, j: usize| {
            if j <= i { ((i * 7 + j * 3) % 11) as f64 * 0.1 + f64::from(u8::from(i == j)) } else { 0.0 }
        };
        let mut matrix = Vec::new();
        for i in 0..n {
            for j in 0..=i {
                matrix.push((0..n).map(|k| root(i, k) * root(j, k)).sum::<f64>());
            }
        }
        factorise(&mut matrix, n).unwrap();
        for i in 0..n {
            for j in 0..=i {
                assert!((matrix[packed_len(i) + j] - root(i, j)).abs() < 1e-9, "{i}, {j}");
            }
        }
        // z = L^-1 x, for x = L z.
        let z: Vec<f32> = (0..n).map(|i| i as f32 - 5.0).collect();
        let mut x: Vec<f32> = (0..n).map(|i| (0..=i).map(|j| root(i, j) as f32 * z[j]).sum()).collect();
        let factor: Vec<f32> = matrix.iter().map(|value| *value as f32).collect();
        let norm = solved_norm(&factor, &mut x);
        assert!((norm - z.iter().map(|v| v * v).sum::<f32>().sqrt()).abs() < 1e-3);
        for (a, b) in x.iter().zip(&z) {
            assert!((a - b).abs() < 1e-3, "{x:?}");
        }
    }

    #[test]
    fn an_indefinite_matrix_names_its_pivot() {
        assert_eq!(factorise(&mut [1.0, 2.0, 1.0], 2), Err((1, -3.0)));
        assert!(matches!(factorise(&mut [f64::NAN], 1), Err((0, _))));
    }
}
